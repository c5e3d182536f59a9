"""Stanford Dogs through TensorFlow Datasets: 120 breeds, a training and a test split, boxes.

Khosla et al., Novel dataset for fine-grained image categorization, 2011.
"""

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.classes import kept_classes, label
from training.dataset import Dataset, Example
from training.errors import DataError
from training.splits import hold_out, limited

__all__ = ["stanford_dogs"]

_PHOTOS_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar"

_PATIENCE = 20.0
"""Seconds to wait for that address to answer."""


def stanford_dogs(
    data_dir: Path | None = None,
    *,
    breeds: Sequence[str] = (),
    validation_share: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    partial: bool = False,
) -> Dataset:
    """Read Stanford Dogs through TensorFlow Datasets.

    Args:
        data_dir: a prepared TFDS directory; None downloads to TFDS's own.
        breeds: synsets or breed names to keep; empty keeps each one present in the data.
        validation_share: the share of each breed's training photos that is held out.
        seed: of the held-out share.
        limit: at most this many photos of the training split, before the share is taken, and of
            the test split; None takes all.
        partial: whether some of `breeds` may be missing.

    Raises:
        DataError: no data there, no such breed, or fewer than two breeds.
    """
    builder = _builder(data_dir)
    names: list[str] = builder.info.features["label"].names
    records = {split: _examples(builder, split) for split in ("train", "test")}
    kept = kept_classes(
        names, {example.label for example in records["train"]}, breeds, partial=partial
    )
    position = {old: new for new, old in enumerate(kept)}
    train, test = (
        limited(
            [
                replace(example, label=position[example.label])
                for example in records[name]
                if example.label in position
            ],
            limit,
            seed,
        )
        for name in ("train", "test")
    )
    fit, held_out = hold_out(train, validation_share, seed)
    labels = tuple(label(index, names[old]) for index, old in enumerate(kept))
    return Dataset("stanford_dogs", labels, fit, held_out, test)


def _builder(data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder("stanford_dogs", data_dir=data_dir)
        if data_dir is None and not builder.is_prepared():
            _check_reach()
            builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            "Stanford Dogs could not be downloaded. On a machine that reaches "
            f"{_PHOTOS_URL}, run "
            "`python -c \"import tensorflow_datasets as t; t.load('stanford_dogs', "
            "data_dir='DIR')\"`, copy DIR here and pass --data-dir DIR. "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    if not Path(builder.data_path).is_dir():
        raise DataError(f"No prepared TFDS data set at {builder.data_path}.")
    return builder


def _check_reach() -> None:
    """Fail within seconds where TFDS's own retries take minutes."""
    request = urllib.request.Request(_PHOTOS_URL, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
    except urllib.error.HTTPError as answer:
        answer.close()  # it answers: let TFDS find out what it says to a real request


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
