"""Stanford Dogs from TensorFlow Datasets (TFDS): 120 breeds, training and test photos, boxes.

Khosla et al., Novel dataset for fine-grained image categorization, 2011.
"""

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.classes import kept_classes, label
from training.data.dataset import Dataset, Example
from training.data.splits import hold_out, subsample
from training.errors import DataError

__all__ = ["load_stanford_dogs"]

_PHOTOS_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar"

_TIMEOUT = 20.0
"""Seconds to wait for a response from that address."""


def load_stanford_dogs(
    data_dir: Path | None = None,
    *,
    breeds: Sequence[str] = (),
    validation_share: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    partial: bool = False,
) -> Dataset:
    """Read Stanford Dogs from TensorFlow Datasets.

    Args:
        data_dir: a prepared TFDS directory; None downloads to the default one.
        breeds: synsets or names of the breeds to keep; empty keeps all that have training photos.
        validation_share: the share of each breed's training photos that is held out.
        seed: of `limit`'s choice and of the photos that are held out.
        limit: at most this many training photos, validation photos included, and at most this
            many test photos; None takes all.
        partial: whether the photos are for a model that exists: see `classes.kept_classes`.

    Raises:
        DataError: no data, no such breed, or fewer than two breeds.
    """
    builder = _builder(data_dir)
    names: list[str] = builder.info.features["label"].names
    examples = {split: _examples(builder, split) for split in ("train", "test")}
    splits = ("train", "test") if partial else ("train",)
    present = {example.label for split in splits for example in examples[split]}
    kept = kept_classes(names, present, breeds, partial=partial)
    new_index = {old: new for new, old in enumerate(kept)}
    train, test = (
        subsample(
            [
                replace(example, label=new_index[example.label])
                for example in examples[split]
                if example.label in new_index
            ],
            limit,
            seed,
        )
        for split in ("train", "test")
    )
    train, validation = hold_out(train, validation_share, seed)
    labels = tuple(label(index, names[old]) for index, old in enumerate(kept))
    return Dataset("stanford_dogs", labels, train, validation, test)


def _builder(data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder("stanford_dogs", data_dir=data_dir)
        if data_dir is None and not builder.is_prepared():
            _check_connection()
            builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            "Stanford Dogs could not be downloaded. On a machine that can reach "
            f"{_PHOTOS_URL}, run "
            "`python -c \"import tensorflow_datasets as t; t.load('stanford_dogs', "
            "data_dir='DIR')\"`, copy DIR here and pass --data-dir DIR. "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    if not Path(builder.data_path).is_dir():
        raise DataError(f"No prepared TFDS data set at {builder.data_path}.")
    return builder


def _check_connection() -> None:
    """Fail within seconds if the host is out of reach. TFDS retries for minutes.

    Raises:
        OSError: no response.
    """
    request = urllib.request.Request(_PHOTOS_URL, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError as response:
        # The host responds, if only with an error to HEAD. Whether GET works, TFDS will see.
        response.close()


def _examples(builder: Any, split: str) -> list[Example]:
    import tensorflow_datasets as tfds

    # Photos stay encoded: 20,580 decoded ones would not fit into memory.
    decoders = {"image": tfds.decode.SkipDecoding()}
    records = tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))
    return [
        Example(
            name=record["image/filename"].decode(),
            data=record["image"],
            label=int(record["label"]),
            # TFDS orders a box ymin, xmin, ymax, xmax; both it and we use fractions of the photo.
            boxes=tuple(
                (float(xmin), float(ymin), float(xmax), float(ymax))
                for ymin, xmin, ymax, xmax in record["objects"]["bbox"]
            ),
        )
        for record in records
    ]
