"""Photos as batches: shuffled and augmented for training, squashed as served for the rest."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app import images
from training.dataset import Example

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
    """One epoch of shuffled batches; the same arguments give the same batches.

    Hosts that train together each take their share of every batch, and cut it among their devices.

    Args:
        examples: the photos.
        size: pixels of the square input.
        batch_size: photos in a batch, of all hosts; an incomplete last batch is dropped.
        seed: of order and augmentation, together with `epoch`.
        epoch: counted from 0.
        augment: random resized crops, flips, brightness, contrast and saturation.
        targets: what is learnt of each photo, float32 `[len(examples), classes]`; rows sum to 1.
        crop_area: the least share of a photo's area in a crop; the most is 1.
        skip: batches at the start to leave out, for resuming.
        worker: this host, counted from 0.
        workers: hosts that share each batch.
        replicas: devices of all hosts; divides `batch_size`.

    Returns:
        A data set of (float32 RGB 0..255 `[N, size, size, 3]`, labels int32 `[N]`, targets float32
        `[N, classes]`), where N is `batch_size / replicas`.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(examples)).astype(np.int32)
    seeds = random.integers(-(2**31), 2**31, (len(examples), 2), np.int32)
    whole = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)[skip:]
    chosen = np.split(whole, workers, axis=1)[worker].ravel()
    labels = tf.constant([examples[index].label for index in chosen.tolist()], tf.int32)

    def prepare(
        index: tf.Tensor, item_seed: tf.Tensor, label: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if not augment:
            return _squashed(examples, index, size), label, target
        photo = _decoded(examples, index, side=2 * size)
        return _augmented(photo, item_seed, size, crop_area), label, target

    return (
        tf.data.Dataset.from_tensor_slices((chosen, seeds[chosen], labels, targets[chosen]))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size // replicas, drop_remainder=True)
        .prefetch(2)
    )


def _augmented(photo: tf.Tensor, seed: tf.Tensor, size: int, crop_area: float) -> tf.Tensor:
    crop_seed, flip_seed, *colour_seeds = _seeds(seed, 5)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(photo),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=crop_seed,
        area_range=(crop_area, 1.0),
        aspect_ratio_range=(0.6, 1.7),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(photo, begin, extent)
    crop = tf.image.resize(tf.ensure_shape(crop, (None, None, 3)), (size, size), antialias=True)
    crop = tf.image.stateless_random_flip_left_right(crop / 255.0, flip_seed)
    crop = tf.image.stateless_random_brightness(crop, 0.125, colour_seeds[0])
    crop = tf.image.stateless_random_contrast(crop, 0.8, 1.25, colour_seeds[1])
    crop = tf.image.stateless_random_saturation(crop, 0.7, 1.4, colour_seeds[2])
    return tf.clip_by_value(crop * 255.0, 0.0, 255.0)


def _seeds(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """A seed for each draw, none of which tells of another: int32 `[2]` each."""
    return [tf.random.experimental.stateless_fold_in(seed, draw) for draw in range(count)]


def inference_batches(
    examples: Sequence[Example], *, size: int, batch_size: int
) -> tf.data.Dataset:
    """The photos in order, decoded and squashed as the service does it.

    Returns:
        A data set of (float32 RGB 0..255 `[N, size, size, 3]`, int32 `[N]`).
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
    """Read, decode and squash with the service's own code: float32 `[size, size, 3]`."""

    def squash(index: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        photo = images.decode(examples[int(index)].read(), side=images.enough_for(size))
        return images.squash(photo.pixels, size)

    photo = tf.numpy_function(squash, [index], tf.uint8)
    return tf.cast(tf.ensure_shape(photo, (size, size, 3)), tf.float32)


def _decoded(examples: Sequence[Example], index: tf.Tensor, *, side: int) -> tf.Tensor:
    """Read and decode, upright, the shorter side at `side` or more: uint8 `[h, w, 3]`."""

    def decode(index: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        return images.decode(examples[int(index)].read(), side=side).pixels

    photo = tf.numpy_function(decode, [index], tf.uint8)
    return tf.ensure_shape(photo, (None, None, 3))
