"""Batches of photos: shuffled and augmented for training; as the service sees them otherwise."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app import images
from training.data.dataset import Example

__all__ = ["inference_batches", "train_batches"]


def train_batches(
    examples: Sequence[Example],
    *,
    size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool,
    targets: npt.NDArray[np.float32],
    crop_area: float = 0.3,
    skip: int = 0,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """The shuffled batches of one epoch. The same arguments give the same batches.

    Hosts that train together take an equal part of every batch each, and divide it among their
    devices.

    Args:
        examples: the photos.
        size: side of the square input in pixels.
        batch_size: photos in a batch, over all hosts. An incomplete last batch is dropped.
        seed: of order and augmentation, together with `epoch`.
        epoch: counted from 0.
        augment: whether to apply random resized crops, flips, brightness, contrast and saturation.
        targets: the probability of each class to learn for each photo, float32
            `[len(examples), classes]`; rows sum to 1.
        crop_area: the smallest part of a photo's area that a crop may have; the largest is 1.
        skip: number of batches to leave out at the start, to resume an epoch.
        worker: index of this host, from 0.
        workers: number of hosts.
        replicas: number of devices over all hosts; divides `batch_size`.

    Returns:
        A `tf.data.Dataset` of (float32 RGB 0..255 `[N, size, size, 3]`, labels int32 `[N]`, targets
        float32 `[N, classes]`), where N is `batch_size / replicas`.
    """
    # Order and seeds are drawn for all photos, whatever `skip` and the number of hosts: a resumed
    # epoch, or one on other hardware, crops and flips each photo as the plain one does.
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(examples)).astype(np.int32)  # [examples]
    photo_seeds = rng.integers(-(2**31), 2**31, (len(examples), 2), np.int32)  # [examples, 2]
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)[skip:]
    # The columns [batches, batch_size / workers] of this host: its part of every batch, in turn.
    indices = np.split(batches, workers, axis=1)[worker].ravel()
    labels = tf.constant([examples[index].label for index in indices.tolist()], tf.int32)

    def prepare(
        index: tf.Tensor, photo_seed: tf.Tensor, label: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if not augment:
            return _squashed(examples, index, size), label, target
        # Twice the input: a crop of a quarter of the area still has as many pixels as the input.
        photo = _decoded(examples, index, side=2 * size)
        return _augmented(photo, photo_seed, size, crop_area), label, target

    return (
        tf.data.Dataset.from_tensor_slices(
            (indices, photo_seeds[indices], labels, targets[indices])
        )
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size // replicas, drop_remainder=True)
        .prefetch(2)
    )


def _augmented(photo: tf.Tensor, seed: tf.Tensor, size: int, crop_area: float) -> tf.Tensor:
    """A random crop of a photo, with random colours: float32 `[size, size, 3]`, 0..255.

    Args:
        photo: uint8 `[h, w, 3]`.
        seed: int32 `[2]`.
        size: side of the square result in pixels.
        crop_area: see `train_batches`.
    """
    crop_seed, flip_seed, *colour_seeds = _seeds(seed, 5)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(photo),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),  # the object that a crop has to meet: the photo
        seed=crop_seed,
        area_range=(crop_area, 1.0),
        aspect_ratio_range=(0.6, 1.7),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(photo, begin, extent)
    crop = tf.image.resize(tf.ensure_shape(crop, (None, None, 3)), (size, size), antialias=True)
    # The changes of colour below expect values of 0..1.
    crop = tf.image.stateless_random_flip_left_right(crop / 255.0, flip_seed)
    crop = tf.image.stateless_random_brightness(crop, 0.125, colour_seeds[0])
    crop = tf.image.stateless_random_contrast(crop, 0.8, 1.25, colour_seeds[1])
    crop = tf.image.stateless_random_saturation(crop, 0.7, 1.4, colour_seeds[2])
    return tf.clip_by_value(crop * 255.0, 0.0, 255.0)


def _seeds(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Independent seeds, int32 `[2]`. With one seed for all, flips and colours would correlate."""
    return [tf.random.experimental.stateless_fold_in(seed, index) for index in range(count)]


def inference_batches(
    examples: Sequence[Example], *, size: int, batch_size: int
) -> tf.data.Dataset:
    """The photos in order, decoded and squashed exactly as the service does it.

    Args:
        examples: the photos.
        size: side of the square input in pixels.
        batch_size: photos in a batch; the last batch may have fewer.

    Returns:
        A `tf.data.Dataset` of (float32 RGB 0..255 `[N, size, size, 3]`, labels int32 `[N]`).
    """
    labels = tf.constant([example.label for example in examples], tf.int32)

    def prepare(index: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _squashed(examples, index, size), label

    return (
        tf.data.Dataset.from_tensor_slices((np.arange(len(examples), dtype=np.int32), labels))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(2)
    )


def _squashed(examples: Sequence[Example], index: tf.Tensor, size: int) -> tf.Tensor:
    """A photo read, decoded and squashed by the service's own code: float32 `[size, size, 3]`."""

    def squash(index: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        photo = images.decode(examples[int(index)].read(), side=images.enough_for(size))
        return images.squash(photo.pixels, size)

    photo = tf.numpy_function(squash, [index], tf.uint8)
    return tf.cast(tf.ensure_shape(photo, (size, size, 3)), tf.float32)


def _decoded(examples: Sequence[Example], index: tf.Tensor, *, side: int) -> tf.Tensor:
    """A photo read and decoded, upright: uint8 `[h, w, 3]`.

    It may be scaled down, to a shorter side of `side` pixels or more.
    """

    def decode(index: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        return images.decode(examples[int(index)].read(), side=side).pixels

    photo = tf.numpy_function(decode, [index], tf.uint8)
    return tf.ensure_shape(photo, (None, None, 3))
