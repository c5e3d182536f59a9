"""Labelled photos with boxes: where they come from and how they are split and fed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app import images
from app.bundle import Label
from training.config import TrainConfig
from training.errors import DataError

__all__ = [
    "Dataset",
    "Example",
    "inference_batches",
    "load_dataset",
    "stanford_dogs",
    "train_batches",
]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled photo.

    Attributes:
        name: where it comes from, for messages.
        data: the encoded image.
        label: index into the data set's labels.
        boxes: xmin, ymin, xmax, ymax of each object as shares of width and height; often none.
    """

    name: str
    data: bytes
    label: int
    boxes: tuple[images.Box, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set cut in three. `validation` is taken from the training split, never from test."""

    name: str
    labels: tuple[Label, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Photos in each split."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def load_dataset(config: TrainConfig) -> Dataset:
    """The data set that a run is configured for.

    Raises:
        DataError: see `stanford_dogs`.
    """
    return stanford_dogs(
        config.data_dir,
        breeds=config.breeds,
        validation_share=config.validation_share,
        seed=config.seed,
        limit=config.limit,
    )


def stanford_dogs(
    data_dir: Path | None = None,
    *,
    breeds: Sequence[str] = (),
    validation_share: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Read Stanford Dogs through TensorFlow Datasets.

    Args:
        data_dir: a prepared TFDS directory; None downloads to TFDS's own.
        breeds: synsets or breed names to keep; empty keeps each one present in the data.
        validation_share: the share of each breed's training photos that is held out.
        seed: of the held-out share.
        limit: at most this many photos of the training split, before the share is taken, and of
            the test split; None takes all.

    Raises:
        DataError: no data there, no such breed, or fewer than two breeds.
    """
    builder = _builder(data_dir)
    names: list[str] = builder.info.features["label"].names
    records = {split: _examples(builder, split) for split in ("train", "test")}
    kept = _kept(names, {example.label for example in records["train"]}, breeds)
    position = {old: new for new, old in enumerate(kept)}
    train, test = (_select(records[name], position, limit, seed) for name in ("train", "test"))
    fit, held_out = _hold_out(train, validation_share, seed)
    labels = tuple(_label(index, names[old]) for index, old in enumerate(kept))
    return Dataset("stanford_dogs", labels, fit, held_out, test)


def _builder(data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder("stanford_dogs", data_dir=data_dir)
        if data_dir is None:
            builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            "Stanford Dogs could not be downloaded. On a machine that reaches it, run "
            "`python -c \"import tensorflow_datasets as t; t.load('stanford_dogs', "
            "data_dir='DIR')\"`, copy DIR here and pass --data-dir DIR."
            f" ({type(error).__name__}: {error})"
        ) from error
    if not Path(builder.data_path).is_dir():
        raise DataError(f"No prepared TFDS data set at {builder.data_path}.")
    return builder


def _examples(builder: Any, split: str) -> list[Example]:
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    records = tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))
    return [
        Example(
            name=record["image/filename"].decode(),
            data=record["image"],
            label=int(record["label"]),
            boxes=tuple(
                (float(xmin), float(ymin), float(xmax), float(ymax))
                for ymin, xmin, ymax, xmax in record["objects"]["bbox"]
            ),
        )
        for record in records
    ]


def _kept(names: list[str], present: set[int], breeds: Sequence[str]) -> list[int]:
    """Original indices of the classes to keep, in the data set's order."""
    if breeds:
        keys = [
            {_key(name), _key(name.split("-", 1)[0]), _key(name.split("-", 1)[-1])}
            for name in names
        ]
        wanted = {_key(breed): breed for breed in breeds}
        unknown = [breed for key, breed in wanted.items() if not any(key in k for k in keys)]
        if unknown:
            raise DataError(f"No such breed: {', '.join(unknown)}.")
        kept = [index for index, k in enumerate(keys) if k & wanted.keys()]
        absent = [names[index] for index in kept if index not in present]
        if absent:
            raise DataError(f"No training photo of {', '.join(absent)} in this data.")
    else:
        kept = sorted(present)
    if len(kept) < 2:
        raise DataError(f"A classifier needs two classes or more; the data holds {len(kept)}.")
    return kept


def _key(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")


def _select(
    split: list[Example], position: dict[int, int], limit: int | None, seed: int
) -> tuple[Example, ...]:
    kept = [
        Example(example.name, example.data, position[example.label], example.boxes)
        for example in split
        if example.label in position
    ]
    if limit is not None and limit < len(kept):
        chosen = np.random.default_rng(seed).permutation(len(kept))[:limit]
        kept = [kept[index] for index in sorted(chosen)]
    return tuple(kept)


def _hold_out(
    train: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Take a seeded share of each class, rounded, out of `train`."""
    order = np.random.default_rng(seed).permutation(len(train))
    totals = np.bincount([example.label for example in train])
    quota = np.rint(totals * share).astype(int)
    held_out: set[int] = set()
    for index in order.tolist():
        label = train[index].label
        if quota[label] > 0:
            quota[label] -= 1
            held_out.add(index)
    return (
        tuple(example for i, example in enumerate(train) if i not in held_out),
        tuple(example for i, example in enumerate(train) if i in held_out),
    )


def _label(index: int, tfds_name: str) -> Label:
    synset, name = tfds_name.split("-", 1)
    return Label(index=index, synset=synset, name=name.replace("_", " "))


def train_batches(
    examples: Sequence[Example],
    *,
    size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool,
    skip: int = 0,
) -> tf.data.Dataset:
    """One epoch of shuffled batches; the same arguments give the same batches.

    Args:
        examples: the photos.
        size: pixels of the square input.
        batch_size: photos in a batch; an incomplete last batch is dropped.
        seed: of order and augmentation, together with `epoch`.
        epoch: counted from 0.
        augment: random resized crops (0.3 to 1 of the area), flips, brightness and contrast.
        skip: batches at the start to leave out, for resuming.

    Returns:
        A data set of (float32 RGB 0..255 `[N, size, size, 3]`, int32 `[N]`).
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))[skip * batch_size :]
    data = tf.constant([examples[index].data for index in order])
    labels = tf.constant([examples[index].label for index in order], tf.int32)
    seeds = tf.constant([(seed * 1009 + epoch, index) for index in order.tolist()], tf.int32)

    def prepare(
        encoded: tf.Tensor, label: tf.Tensor, item_seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        photo = _augmented(encoded, item_seed, size) if augment else _squashed(encoded, size)
        return photo, label

    return (
        tf.data.Dataset.from_tensor_slices((data, labels, seeds))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=True)
        .prefetch(2)
    )


def _augmented(encoded: tf.Tensor, seed: tf.Tensor, size: int) -> tf.Tensor:
    photo = tf.image.decode_image(encoded, channels=3, expand_animations=False)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(photo),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        area_range=(0.3, 1.0),
        aspect_ratio_range=(0.6, 1.7),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(photo, begin, extent)
    crop = tf.image.resize(tf.ensure_shape(crop, (None, None, 3)), (size, size), antialias=True)
    one = tf.constant((1, 0))  # each draw has a seed of its own
    crop = tf.image.stateless_random_flip_left_right(crop / 255.0, seed + one)
    crop = tf.image.stateless_random_brightness(crop, 0.125, seed + 2 * one)
    crop = tf.image.stateless_random_contrast(crop, 0.8, 1.25, seed + 3 * one)
    crop = tf.image.stateless_random_saturation(crop, 0.7, 1.4, seed + 4 * one)
    return tf.clip_by_value(crop * 255.0, 0.0, 255.0)


def inference_batches(
    examples: Sequence[Example], *, size: int, batch_size: int
) -> tf.data.Dataset:
    """The photos in order, decoded and squashed as the service does it.

    Returns:
        A data set of (float32 RGB 0..255 `[N, size, size, 3]`, int32 `[N]`).
    """
    data = tf.constant([example.data for example in examples])
    labels = tf.constant([example.label for example in examples], tf.int32)

    def prepare(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _squashed(encoded, size), label

    return (
        tf.data.Dataset.from_tensor_slices((data, labels))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(2)
    )


def _squashed(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decode and squash with the service's own code."""

    def squash(data: bytes) -> npt.NDArray[np.uint8]:
        return images.squash(images.decode(data).pixels, size)

    photo = tf.numpy_function(squash, [encoded], tf.uint8)
    return tf.cast(tf.ensure_shape(photo, (size, size, 3)), tf.float32)
