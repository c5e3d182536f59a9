"""Labelled photos, with boxes: from Stanford Dogs, or from a folder of your own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.bundle import Label
from training.config import Source, TrainConfig
from training.data.classes import relabel
from training.data.dataset import Dataset
from training.data.folder import load_folder
from training.data.stanford_dogs import load_stanford_dogs
from training.errors import DataError

__all__ = ["load_dataset", "load_for_model"]


def load_dataset(config: TrainConfig) -> Dataset:
    """The data set that a run is configured for.

    Raises:
        DataError: see `load_stanford_dogs` and `load_folder`; or there is no photo to train on.
    """
    if config.source == "stanford_dogs":
        return load_stanford_dogs(
            config.data_dir,
            breeds=config.breeds,
            validation_share=config.validation_share,
            seed=config.seed,
            limit=config.limit,
        )
    dataset = load_folder(
        _required(config.data_dir),
        boxes=config.boxes,
        breeds=config.breeds,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
        limit=config.limit,
    )
    if not dataset.train:
        raise DataError(f"{config.data_dir} has photos to test with, but none to train on.")
    return dataset


def load_for_model(
    source: Source,
    data_dir: Path | None,
    labels: Sequence[Label],
    *,
    boxes: Path | None = None,
    config: Mapping[str, Any],
) -> Dataset:
    """Photos of a model's classes, under the model's labels. A class may have no photos.

    Args:
        source: where the photos come from.
        data_dir: see `load_stanford_dogs` and `load_folder`.
        labels: the model's.
        boxes: see `load_folder`.
        config: the model's training configuration, from `model.json`. Its seed and shares split
            the photos as they were split when the model was trained, so that no test photo is one
            that the model has learnt. Photos that have since been added to a folder move no others
            between splits (for small classes see `splits.hash_split`). A renamed photo may move.

    Raises:
        DataError: see `load_stanford_dogs` and `load_folder`; or a folder has a class that the
            model does not know.
    """
    if source == "stanford_dogs":
        breeds = [label.synset or label.name for label in labels]
        split = _subset(config, "validation_share", "seed")

        def load(limit: int | None) -> Dataset:
            return load_stanford_dogs(data_dir, breeds=breeds, limit=limit, partial=True, **split)

        dataset = load(None)
        if config.get("limit"):
            # The limit was for training. The test split stays whole, as for any other model.
            dataset = replace(load(config["limit"]), test=dataset.test)
        return relabel(dataset, labels)
    # A folder's photos are split by hash: without the training's limit they are split alike.
    split = _subset(config, "validation_share", "seed", "test_share", "breeds")
    dataset = load_folder(_required(data_dir), boxes=boxes, partial=True, **split)
    return relabel(dataset, labels)


def _subset(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The named settings that `config` has."""
    return {name: config[name] for name in names if name in config}


def _required(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError("--source folder needs --data-dir DIR, a folder with one for each class.")
    return data_dir
