"""A labelled photo, a data set of them, and the fingerprint by which a run knows its data set."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from app import images
from app.bundle import Label
from training.errors import DataError
from training.files import atomic_write

__all__ = ["Dataset", "Example", "check_fingerprint", "write_fingerprint"]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled photo.

    Attributes:
        name: its file name or path within the data set. Messages quote it, and `splits.hash_split`
            decides by it.
        data: the encoded image, or the path of its file.
        label: index into the data set's labels.
        boxes: (xmin, ymin, xmax, ymax) of each object, as fractions of the width and height of the
            upright photo (EXIF orientation applied). Often empty.
    """

    name: str
    data: bytes | Path
    label: int
    boxes: tuple[images.Box, ...]

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            OSError: its file cannot be read.
        """
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclass(frozen=True)
class Dataset:
    """Photos in three splits. `validation` is taken from the training photos, never from `test`.

    Attributes:
        name: of the data set, as `model.json` records it.
        labels: the classes; `labels[i].index` is i.
        train: photos to fit the weights on.
        validation: photos to choose the best epoch and to calibrate the confidence on.
        test: photos that nothing is fitted or chosen on.
    """

    name: str
    labels: tuple[Label, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of photos in each split."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def write_fingerprint(run_dir: Path, dataset: Dataset) -> None:
    """Write `data.json` into a run's directory: the data set that the run trains on."""
    atomic_write(run_dir / "data.json", json.dumps(_fingerprint(dataset), indent=2) + "\n")


def check_fingerprint(run_dir: Path, dataset: Dataset) -> None:
    """Compare a data set with the one that a run started with. A new run passes.

    Raises:
        DataError: the classes, or the photos of a split, differ.
    """
    path = run_dir / "data.json"
    if path.exists() and json.loads(path.read_bytes()) != _fingerprint(dataset):
        raise DataError(
            f"The photos have changed since the run {run_dir} started: its classes, or the photos "
            "in a split, are different. Restore them, or start a new run."
        )


def _fingerprint(dataset: Dataset) -> dict[str, Any]:
    """The labels, and for each split a hash over the names and labels of its photos, in order.

    The test split has no part in it: training does not depend on it.
    """
    splits = {"train": dataset.train, "validation": dataset.validation}
    return {
        "labels": [label.model_dump() for label in dataset.labels],
        "splits": {
            name: blake2b(
                # A file name that is not UTF-8 holds surrogates, which only this handler encodes.
                "\n".join(f"{example.label} {example.name}" for example in split).encode(
                    errors="surrogateescape"
                ),
                digest_size=16,
            ).hexdigest()
            for name, split in splits.items()
        },
    }
