"""A folder of photos with a folder for each class, and with or without folders for the splits."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from app import images
from training.data.boxes import ANNOTATION_FOLDERS, PixelBox, read_boxes, relative_box
from training.data.classes import check_distinct, kept_classes, label
from training.data.dataset import Dataset, Example
from training.data.skipped import Skipped
from training.data.splits import hash_split, subsample
from training.errors import DataError
from training.progress import bar

__all__ = ["load_folder"]

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Splits by the names of their folders."""

_UNSPLIT = "all"
"""Stands for a split where the folder has no folders for splits."""

_SUFFIXES = (*images.SUFFIXES, ".jp2", ".jxl")
"""Files that are meant as photos, in a format that can be read or not. Others are ignored."""


@dataclass(frozen=True, slots=True)
class _PhotoFile:
    """A photo that has not been decoded.

    Attributes:
        path: of the file.
        name: the path within the folder, in POSIX form.
        split: `train`, `validation`, `test`, or `_UNSPLIT`.
        class_name: the name of its class's folder.
    """

    path: Path
    name: str
    split: str
    class_name: str


def load_folder(
    directory: Path,
    *,
    boxes: Path | None = None,
    breeds: Sequence[str] = (),
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    partial: bool = False,
) -> Dataset:
    """Read a folder: `class/photo`, or `train/class/photo` beside `validation` (`val`) and `test`.

    A class has the name of its folder; `n02099601-golden_retriever` gives a synset and a name.
    Every photo is decoded once, to find those that cannot be. What cannot be used is left out and
    reported on standard error.

    A photo stays in its split when others are added or removed: see `splits.hash_split`. The splits
    come close to the shares for many photos, less so for few.

    Args:
        directory: the folder.
        boxes: the `source` of `boxes.read_boxes`. Photos need not have boxes.
        breeds: synsets or names of the classes to keep; empty keeps all.
        validation_share: of each class's training photos, where there is no validation folder.
        test_share: of each class's photos, where there are no folders for splits; 0 takes none.
        seed: of both shares, and of `limit`'s choice.
        limit: at most this many photos of a split; None takes all.
        partial: whether the photos are for a model that exists: see `classes.kept_classes`.

    Raises:
        DataError: there is no such folder; two folders for one split; too few classes, or too few
            photos of a class; or the boxes cannot be read (see `boxes.read_boxes`).
    """
    skipped = Skipped()
    try:
        files = _photo_files(directory, boxes, skipped)
        annotations = read_boxes(
            directory, {file.name: file.class_name for file in files}, source=boxes, skipped=skipped
        )
        names, splits = _splits(files, breeds, annotations, skipped, partial=partial)
    finally:
        skipped.report()  # also before an error, which what was left out may explain
    if _UNSPLIT in splits:
        photos = splits[_UNSPLIT]
        splits = {"train": photos, "validation": (), "test": ()}
        if test_share > 0:
            if not partial:
                _check_enough(photos, names, 3, "training, validation and test")
            # Two photos stay: one for training and one for validation.
            splits["train"], splits["test"] = hash_split(
                photos, test_share, f"test {seed}", least=2
            )
    train, validation, test = (
        subsample(splits[split], limit, seed) for split in ("train", "validation", "test")
    )
    if train and not validation:
        limited = f", with --limit {limit}," if len(train) < len(splits["train"]) else ""
        if not partial:
            _check_enough(train, names, 2, f"training and validation{limited}")
        train, validation = hash_split(train, validation_share, f"validation {seed}")
    labels = tuple(label(index, name) for index, name in enumerate(names))
    return Dataset(directory.resolve().name, labels, train, validation, test)


def _photo_files(directory: Path, boxes: Path | None, skipped: Skipped) -> list[_PhotoFile]:
    """All photos in the class folders, sorted by split, class and name."""
    if not directory.is_dir():
        raise DataError(f"There is no folder {directory}.")
    boxes = boxes and boxes.resolve()
    files: list[_PhotoFile] = []
    for split, split_folder in _split_folders(directory, skipped):
        for path in sorted(split_folder.iterdir()):
            if path.is_file() and path.suffix.casefold() in _SUFFIXES:
                skipped.add("photo", path.relative_to(directory).as_posix(), "in no class folder")
        for folder in _folders(split_folder):
            if folder.resolve() == boxes or folder.name.casefold() in ANNOTATION_FOLDERS:
                continue
            photos = [path for path in _files(folder) if path.suffix.casefold() in _SUFFIXES]
            if not photos:
                skipped.add("folder", folder.relative_to(directory).as_posix(), "has no photos")
            files += [
                _PhotoFile(path, path.relative_to(directory).as_posix(), split, folder.name)
                for path in photos
            ]
    if not files:
        raise DataError(f"{directory} has no photos. It needs a folder of photos for each class.")
    return files


def _split_folders(directory: Path, skipped: Skipped) -> list[tuple[str, Path]]:
    """The splits that have a folder, with that; without any, `_UNSPLIT` and the directory."""
    folders = _folders(directory)
    split_folders = [
        (_SPLITS[folder.name.casefold()], folder)
        for folder in folders
        if folder.name.casefold() in _SPLITS
    ]
    if not split_folders:
        return [(_UNSPLIT, directory)]
    counts = Counter(split for split, _ in split_folders)
    split, count = counts.most_common(1)[0]
    if count > 1:  # `val` beside `validation`, or `Train` beside `train`
        raise DataError(f"{directory} has two folders for {split}.")
    for folder in folders:
        if folder.name.casefold() not in {*_SPLITS, *ANNOTATION_FOLDERS}:
            skipped.add("folder", folder.name, "beside the folders of splits, but is not a split")
    return split_folders


def _folders(directory: Path) -> list[Path]:
    """Its folders but hidden ones, by name."""
    return [
        child
        for child in sorted(directory.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    ]


def _files(directory: Path) -> list[Path]:
    """All files below it but hidden ones, by path."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def _splits(
    files: Sequence[_PhotoFile],
    breeds: Sequence[str],
    annotations: dict[str, list[PixelBox]],
    skipped: Skipped,
    *,
    partial: bool,
) -> tuple[list[str], dict[str, tuple[Example, ...]]]:
    """The names of the classes to keep, and their examples by split.

    Classes are chosen twice: by name before any photo is decoded, so that none is decoded in vain,
    and once more by which of them have a usable training photo.
    """
    names = sorted({file.class_name for file in files})
    all_classes = set(range(len(names)))
    candidates = [
        names[index] for index in kept_classes(names, all_classes, breeds, partial=partial)
    ]
    check_distinct(candidates)
    files = [file for file in files if file.class_name in candidates]
    examples = _examples(files, candidates, annotations, skipped)
    splits_present = {file.split for file in files}
    # A class needs a photo to train on, unless nothing is trained: for a model that exists, or if
    # the folder has only `test`, a photo of any split will do.
    training_splits = splits_present & {_UNSPLIT, "train"}
    if partial or not training_splits:
        training_splits = splits_present
    present = {example.label for file, example in examples if file.split in training_splits}
    kept = kept_classes(candidates, present, candidates if breeds else (), partial=partial)
    untrained = {file.class_name for file, example in examples if example.label not in kept}
    if untrained:
        raise DataError(f"No training photo of {', '.join(sorted(untrained))}.")
    for index, name in enumerate(candidates):
        if index not in kept:
            skipped.add("folder", name, "none of its photos can be used")
    new_index = {old: new for new, old in enumerate(kept)}
    splits = {
        split: tuple(
            replace(example, label=new_index[example.label])
            for file, example in examples
            if file.split == split
        )
        for split in ([_UNSPLIT] if _UNSPLIT in splits_present else ["train", "validation", "test"])
    }
    return [candidates[index] for index in kept], splits


def _examples(
    files: Sequence[_PhotoFile],
    class_names: Sequence[str],
    annotations: dict[str, list[PixelBox]],
    skipped: Skipped,
) -> list[tuple[_PhotoFile, Example]]:
    """Decode each photo once. Keep those that decode, and those of their boxes that fit."""
    examples = []
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        sizes = pool.map(_upright_size, [file.path for file in files])
        for file, size in zip(files, bar("photos", sizes, total=len(files)), strict=True):
            if isinstance(size, Exception):
                skipped.add("photo", file.name, size)
                continue
            boxes = []
            for box in annotations.get(file.name, ()):
                try:
                    boxes.append(relative_box(box, *size))
                except ValueError as error:
                    skipped.add("box", f"{file.name} ({box.location})", error)
            unique = tuple(dict.fromkeys(boxes))  # in order; two annotations may hold the same box
            label_index = class_names.index(file.class_name)
            examples.append((file, Example(file.name, file.path, label_index, unique)))
    return examples


def _upright_size(path: Path) -> tuple[int, int] | Exception:
    """Width and height in pixels of the upright photo, or why it cannot be used.

    Upright: EXIF orientation applied, as for the coordinates of boxes.
    """
    try:
        # `side=1` decodes a JPEG at an eighth of its size, and yet reads all of the file.
        photo = images.decode(path.read_bytes(), side=1)
    except (
        OSError,
        images.TooManyPixels,
        images.UndecodableImage,
        images.UnsupportedMediaType,
    ) as error:
        return error
    return photo.width, photo.height


def _check_enough(examples: Sequence[Example], names: Sequence[str], least: int, use: str) -> None:
    """Make sure that each class has a photo for each of the splits.

    Args:
        examples: the photos that will be split.
        names: of the classes.
        least: the number of splits.
        use: what they are, for the message.

    Raises:
        DataError: a class has fewer photos than `least`.
    """
    counts = Counter(example.label for example in examples)
    for index, name in enumerate(names):
        if counts[index] < least:
            raise DataError(
                f"Class {name} has too few photos ({counts[index]}): {use} need {least} or more."
            )
