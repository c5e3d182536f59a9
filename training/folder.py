"""A folder of photos with one folder for each class, its splits given or drawn by lot."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from app import images
from training.boxes import ANNOTATION_FOLDERS, PixelBox, read_boxes, shares
from training.classes import check_distinct, kept_classes, label
from training.dataset import Dataset, Example
from training.errors import DataError
from training.progress import bar
from training.skipped import Skipped
from training.splits import draw, limited

__all__ = ["folder"]

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".jp2", ".jxl"),
)
"""What is meant as a photo, be its format allowed or not; other files are none of our business."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A photo's file: its path, that within the folder in POSIX form, its split and its class."""

    path: Path
    name: str
    split: str
    of: str


def folder(
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

    A class is called as its folder is; `n02099601-golden_retriever` gives synset and name. Every
    photo is decoded once, to see that it can be. What cannot be used is left out and told on
    standard error.

    A photo keeps the split that it is drawn for when others are added or removed; see
    `splits.draw`. The shares are met the better, the more photos there are.

    Args:
        directory: the folder.
        boxes: see `boxes.read_boxes`; there may be none.
        breeds: synsets or names of the classes to keep; empty keeps all.
        validation_share: of each class's training photos, where no validation split is given.
        test_share: of each class's photos, where no splits are given at all; 0 takes none.
        seed: of both shares.
        limit: at most this many photos of a split; None takes all.
        partial: whether some of `breeds` may be missing.

    Raises:
        DataError: no such folder, splits that contradict each other, a class or a photo too few,
            or boxes that cannot be read (see `boxes.read_boxes`).
    """
    skipped = Skipped()
    try:
        found = _photos(directory, boxes, skipped)
        annotations = read_boxes(
            directory, {each.name: each.of for each in found}, named=boxes, skipped=skipped
        )
        names, splits = _splits(found, breeds, annotations, skipped, partial=partial)
    finally:
        skipped.report()
    if "all" in splits:
        splits |= {"train": splits["all"], "validation": (), "test": ()}
        if test_share > 0:
            _check_enough(splits["all"], names, 3, "training, validation and test")
            lot = f"test {seed}"
            splits["train"], splits["test"] = draw(splits["all"], test_share, lot, least=2)
    train, validation, test = (
        limited(splits[name], limit, seed) for name in ("train", "validation", "test")
    )
    if train and not validation:
        cut = f", with --limit {limit}," if len(train) < len(splits["train"]) else ""
        _check_enough(train, names, 2, f"training and validation{cut}")
        train, validation = draw(train, validation_share, f"validation {seed}")
    labels = tuple(label(index, name) for index, name in enumerate(names))
    return Dataset(directory.resolve().name, labels, train, validation, test)


def _photos(directory: Path, boxes: Path | None, skipped: Skipped) -> list[_Found]:
    """Every photo below the class folders, by name."""
    if not directory.is_dir():
        raise DataError(f"There is no folder {directory}.")
    aside = [] if boxes is None else [boxes.resolve()]
    found: list[_Found] = []
    for split, place in _places(directory, skipped):
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix.casefold() in _SUFFIXES:
                skipped.add("photo", path.relative_to(directory).as_posix(), "in no class folder")
        for child in _folders(place):
            if child.resolve() in aside or child.name.casefold() in ANNOTATION_FOLDERS:
                continue
            photos = [path for path in _files(child) if path.suffix.casefold() in _SUFFIXES]
            if not photos:
                name = child.relative_to(directory).as_posix()
                skipped.add("folder", name, "it holds no photo")
            found += [
                _Found(path, path.relative_to(directory).as_posix(), split, child.name)
                for path in photos
            ]
    if not found:
        raise DataError(f"{directory} holds no photo: it needs a folder for each class.")
    return found


def _places(directory: Path, skipped: Skipped) -> list[tuple[str, Path]]:
    """The splits that are given, with their folders; `all` where none is."""
    children = _folders(directory)
    given = [
        (_SPLITS[child.name.casefold()], child)
        for child in children
        if child.name.casefold() in _SPLITS
    ]
    if not given:
        return [("all", directory)]
    twice = [split for split, count in Counter(split for split, _ in given).items() if count > 1]
    if twice:
        raise DataError(f"{directory} has two folders for {twice[0]}.")
    for child in children:
        if child.name.casefold() not in {*_SPLITS, *ANNOTATION_FOLDERS}:
            skipped.add("folder", child.name, "beside given splits, it is none of them")
    return given


def _folders(directory: Path) -> list[Path]:
    return [
        child
        for child in sorted(directory.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    ]


def _files(directory: Path) -> list[Path]:
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def _splits(
    found: Sequence[_Found],
    breeds: Sequence[str],
    annotations: dict[str, list[PixelBox]],
    skipped: Skipped,
    *,
    partial: bool,
) -> tuple[list[str], dict[str, tuple[Example, ...]]]:
    """The classes to keep, and their examples by split."""
    names = sorted({each.of for each in found})
    every = set(range(len(names)))
    wanted = [names[index] for index in kept_classes(names, every, breeds, partial=partial)]
    check_distinct(wanted)
    found = [each for each in found if each.of in wanted]
    examples = _examples(found, wanted, annotations, skipped)
    taught = {split for split in ("all", "train") if any(each.split == split for each in found)}
    present = {
        example.label
        for each, example in examples
        if each.split in taught or not taught  # a folder to test with has no training split
    }
    kept = kept_classes(wanted, present, wanted if breeds else ())
    strange = {each.of for each, example in examples if example.label not in kept}
    if strange:
        raise DataError(f"No training photo of {', '.join(sorted(strange))}.")
    for index, name in enumerate(wanted):
        if index not in kept:
            skipped.add("folder", name, "none of its photos can be used")
    position = {old: new for new, old in enumerate(kept)}
    splits: dict[str, tuple[Example, ...]] = {}
    for split in ("all",) if "all" in taught else ("train", "validation", "test"):
        splits[split] = tuple(
            replace(example, label=position[example.label])
            for each, example in examples
            if each.split == split
        )
    return [wanted[index] for index in kept], splits


def _examples(
    found: Sequence[_Found],
    names: Sequence[str],
    annotations: dict[str, list[PixelBox]],
    skipped: Skipped,
) -> list[tuple[_Found, Example]]:
    """Decode each photo once; keep those that decode, with those of their boxes that fit."""
    examples = []
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        sizes = pool.map(_size, [each.path for each in found])
        decoded = bar("photos", sizes, total=len(found))
        for each, size in zip(found, decoded, strict=True):
            if isinstance(size, Exception):
                skipped.add("photo", each.name, size)
                continue
            boxes = []
            for box in annotations.get(each.name, ()):
                try:
                    boxes.append(shares(box, *size))
                except ValueError as error:
                    skipped.add("box", f"{each.name} ({box.where})", error)
            unique = tuple(dict.fromkeys(boxes))
            examples.append((each, Example(each.name, each.path, names.index(each.of), unique)))
    return examples


def _size(path: Path) -> tuple[int, int] | Exception:
    """Width and height of the upright photo, or why it cannot be used."""
    try:
        photo = images.decode(path.read_bytes(), side=1)  # the cheapest: a JPEG at an eighth
    except (
        OSError,
        images.TooManyPixels,
        images.UndecodableImage,
        images.UnsupportedMediaType,
    ) as error:
        return error
    return photo.width, photo.height


def _check_enough(examples: Sequence[Example], names: Sequence[str], least: int, use: str) -> None:
    """Each class needs a photo in each split that is drawn from these."""
    counts = Counter(example.label for example in examples)
    for index, name in enumerate(names):
        if counts[index] < least:
            raise DataError(
                f"Class {name} has too few photos ({counts[index]}): {use} need {least} or more."
            )
