"""A labelled photo, a data set of them, and the record that a run keeps of its data set."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from app import images
from app.bundle import Label
from training.errors import DataError

__all__ = ["Dataset", "Example", "check_same", "remember"]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled photo.

    Attributes:
        name: where it comes from, for messages.
        data: the encoded image, or the file that holds it.
        label: index into the data set's labels.
        boxes: xmin, ymin, xmax, ymax of each object as shares of width and height of the upright
            photo; often none.
    """

    name: str
    data: bytes | Path
    label: int
    boxes: tuple[images.Box, ...]

    def read(self) -> bytes:
        """The encoded image."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


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


def remember(run_dir: Path, dataset: Dataset) -> None:
    """Note in a run's directory what it is trained on."""
    draft = run_dir / "data.tmp"
    draft.write_text(json.dumps(_identity(dataset), indent=2) + "\n", encoding="utf-8")
    draft.replace(run_dir / "data.json")


def check_same(run_dir: Path, dataset: Dataset) -> None:
    """Hold a data set against what a run was begun on.

    Raises:
        DataError: classes or photos have changed since.
    """
    path = run_dir / "data.json"
    if path.exists() and json.loads(path.read_bytes()) != _identity(dataset):
        raise DataError(
            f"The photos have changed since {run_dir} was begun: its classes, or the photos of a "
            "split, are not the same. Put them back, or begin another run."
        )


def _identity(dataset: Dataset) -> dict[str, Any]:
    """Classes, and each split by a hash of its photos' names and labels, in order."""
    splits = {"train": dataset.train, "validation": dataset.validation}
    return {
        "labels": [label.model_dump() for label in dataset.labels],
        "splits": {
            name: blake2b(
                "\n".join(f"{each.label} {each.name}" for each in split).encode(
                    errors="surrogateescape"
                ),
                digest_size=16,
            ).hexdigest()
            for name, split in splits.items()
        },
    }
