"""Labelled photos with boxes: from Stanford Dogs or from a folder of your own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from app.bundle import Label
from training.classes import as_labelled
from training.config import Source, TrainConfig
from training.dataset import Dataset, Example
from training.errors import DataError
from training.folder import folder
from training.stanford_dogs import stanford_dogs

__all__ = ["Dataset", "Example", "load_dataset", "load_for_model"]


_SPLITTING = ("validation_share", "seed")
"""What decides which photos are held out for validation; of a folder, there is more."""


def load_dataset(config: TrainConfig) -> Dataset:
    """The data set that a run is configured for.

    Raises:
        DataError: see `stanford_dogs` and `folder`; or there is nothing to train on.
    """
    if config.source == "stanford_dogs":
        return stanford_dogs(
            config.data_dir,
            breeds=config.breeds,
            validation_share=config.validation_share,
            seed=config.seed,
            limit=config.limit,
        )
    dataset = folder(
        _directory(config.data_dir),
        boxes=config.boxes,
        breeds=config.breeds,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
        limit=config.limit,
    )
    if not dataset.train:
        raise DataError(f"{config.data_dir} has photos to test with but none to train on.")
    return dataset


def load_for_model(
    source: Source,
    data_dir: Path | None,
    labels: Sequence[Label],
    *,
    boxes: Path | None = None,
    config: Mapping[str, Any],
) -> Dataset:
    """Photos of a model's classes, under the model's labels; some classes may have none.

    Args:
        source: where the photos come from.
        data_dir: see `stanford_dogs` and `folder`.
        labels: the model's.
        boxes: see `folder`.
        config: the model's training configuration, as `model.json` has it: its seed and shares
            split the photos that it was trained on as they did then. Photos that have been added
            to a folder since leave the others in their splits, but for classes of few photos: see
            `splits.draw`. One that was renamed is drawn anew.

    Raises:
        DataError: see `stanford_dogs` and `folder`; or a folder has classes that the model does
            not know.
    """

    def told(*names: str) -> dict[str, Any]:
        return {name: config[name] for name in names if name in config}

    if source == "stanford_dogs":
        breeds = [label.synset or label.name for label in labels]
        read = partial(stanford_dogs, data_dir, breeds=breeds, partial=True)
        dataset = read(**told(*_SPLITTING))
        if config.get("limit"):  # of the photos to train on alone: the test split is whole
            part = read(**told(*_SPLITTING, "limit"))
            dataset = replace(part, test=dataset.test)
        return as_labelled(dataset, labels)
    drawn = told(*_SPLITTING, "test_share", "breeds")
    dataset = folder(_directory(data_dir), boxes=boxes, partial=True, **drawn)
    return as_labelled(dataset, labels)


def _directory(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError("--source folder needs --data-dir DIR, a folder with one for each class.")
    return data_dir
