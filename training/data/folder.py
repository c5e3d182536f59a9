"""A folder of photos with a folder for each class, and with or without folders for the splits."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from app import images
from app.photo_files import is_photo
from app.progress import bar
from training.data.annotations import PixelBox
from training.data.boxes import ANNOTATION_FOLDERS, read_boxes, relative_box
from training.data.classes import check_distinct, kept_classes, label
from training.data.dataset import Dataset, Example
from training.data.skipped import Skipped
from training.data.splits import SPLIT_NAMES, hash_split, subsample
from training.data.tree import Tree
from training.errors import DataError

__all__ = ["load_folder"]

_UNSPLIT = "all"
"""Stands for a split where the folder has no folders for splits."""

_ANNOTATION_SUFFIXES = (".xml", ".json", ".csv")
"""Files that `boxes.read_boxes` reads, or reports."""


@dataclass(frozen=True, slots=True)
class _PhotoFile:
    """A photo that has not been decoded.

    Attributes:
        path: of the file.
        name: the path within the folder, in POSIX form.
        split: `train`, `validation`, `test`, or `_UNSPLIT`.
        class_name: the name of its class's folder, in Unicode's composed form (NFC).
    """

    path: Path
    name: str
    split: str
    class_name: str


class _Decoded(NamedTuple):
    """What is known of a photo once it has been decoded.

    Attributes:
        size: width and height in pixels of the upright photo (EXIF orientation applied, as for the
            coordinates of boxes).
        digest: of the file's bytes.
    """

    size: tuple[int, int]
    digest: bytes


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
    """Read a folder: `class/photo`, or `train/class/photo` beside `validation` and `test`.

    A class has the name of its folder; `n02099601-golden_retriever` gives a synset and a name. See
    `splits.SPLIT_NAMES` for other names of splits. Every photo is decoded once, to find those that
    cannot be. What cannot be used is left out and reported on standard error; so are copies of a
    photo, which could get into two splits.

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
        DataError: there is no such folder; two folders for one split, or one within a class; a
            class whose name `model.json` cannot hold; too few classes, or too few photos of a
            class; or the boxes cannot be read (see `boxes.read_boxes`).
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
    tree = Tree(directory, skipped)
    photos: list[_PhotoFile] = []
    for split, split_folder in _split_folders(tree, directory, skipped):
        folders, outside = tree.children(split_folder)
        for path in filter(is_photo, outside):
            skipped.add("photo", tree.name(path), "in no class folder")
        for folder in folders:
            if folder.resolve() == boxes or folder.name.casefold() in ANNOTATION_FOLDERS:
                continue
            class_name = _composed(folder.name)
            before = len(photos)
            for path in tree.files(folder):
                suffix = path.suffix.casefold()
                if is_photo(path):
                    if split == _UNSPLIT:
                        _check_no_split_within(path, folder)
                    photos.append(_PhotoFile(path, tree.name(path), split, class_name))
                elif suffix not in _ANNOTATION_SUFFIXES and path.resolve() != boxes:
                    skipped.add("file", tree.name(path), f"not a photo ({suffix or 'no suffix'})")
            if len(photos) == before:
                skipped.add("folder", tree.name(folder), "has no photos")
    if not photos:
        raise DataError(f"{directory} has no photos. It needs a folder of photos for each class.")
    return sorted(photos, key=lambda photo: (photo.split, photo.class_name, _composed(photo.name)))


def _check_no_split_within(path: Path, folder: Path) -> None:
    """Raise DataError if a photo of a class folder lies in a folder that is named like a split."""
    first = path.relative_to(folder).parts[0]
    if path.parent != folder and first.casefold() in SPLIT_NAMES:
        raise DataError(
            f"{folder / first} is a split within a class. Put the classes into the splits: "
            f"{first}/{folder.name}."
        )


def _composed(text: str) -> str:
    """Text in Unicode's composed form (NFC). The same name may be stored in either form."""
    return unicodedata.normalize("NFC", text)


def _split_folders(tree: Tree, directory: Path, skipped: Skipped) -> list[tuple[str, Path]]:
    """The splits that have a folder, with that; without any, `_UNSPLIT` and the directory."""
    folders, files = Tree(directory, Skipped()).children(directory)
    by_split: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if folder.name.casefold() in SPLIT_NAMES:
            by_split[SPLIT_NAMES[folder.name.casefold()]].append(folder)
    if not by_split:
        return [(_UNSPLIT, directory)]
    for split, (first, *others) in by_split.items():
        if others:  # `val` beside `validation`, or `Train` beside `train`
            names = f"{first.name} and {others[0].name}"
            raise DataError(f"{directory} has two folders for {split}: {names}.")
    tree.children(directory)  # reports what it leaves out
    for path in filter(is_photo, files):
        skipped.add("photo", path.name, "beside the folders of splits")
    for folder in folders:
        if folder.name.casefold() not in {*SPLIT_NAMES, *ANNOTATION_FOLDERS}:
            skipped.add("folder", folder.name, "beside the folders of splits, but is not a split")
    return [(split, folder) for split, [folder] in by_split.items()]


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
    """Decode each photo once. Keep those that decode, once each, and those of their boxes that fit.

    A photo without a box gets those of its copy.
    """
    copies: defaultdict[bytes, list[_PhotoFile]] = defaultdict(list)  # by the digest
    sizes: dict[str, tuple[int, int]] = {}  # by the photo's name
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        results = pool.map(_decode, [file.path for file in files])
        for file, decoded in zip(files, bar("photos", results, total=len(files)), strict=True):
            if isinstance(decoded, Exception):
                skipped.add("photo", file.name, decoded)
            else:
                sizes[file.name] = decoded.size
                copies[decoded.digest].append(file)
    examples = {}
    for same in copies.values():
        kept = _one_of(same, skipped)
        if kept is None:
            continue
        boxes: list[images.Box] = []
        for file in sorted(same, key=lambda file: file != kept):
            if not boxes:
                boxes = _fitting(annotations.get(file.name, ()), file, sizes[file.name], skipped)
        unique = tuple(dict.fromkeys(boxes))  # in order; two annotations may hold the same box
        label_index = class_names.index(kept.class_name)
        examples[kept.name] = Example(_composed(kept.name), kept.path, label_index, unique)
    return [(file, examples[file.name]) for file in files if file.name in examples]


def _fitting(
    boxes: Iterable[PixelBox], file: _PhotoFile, size: tuple[int, int], skipped: Skipped
) -> list[images.Box]:
    """The boxes that fit a photo of `size`, as fractions of it."""
    fitting = []
    for box in boxes:
        try:
            fitting.append(relative_box(box, *size))
        except ValueError as error:
            skipped.add("box", f"{file.name} ({box.location})", error)
    return fitting


def _one_of(copies: Sequence[_PhotoFile], skipped: Skipped) -> _PhotoFile | None:
    """Which of some files with the same bytes to keep; None if they are of two classes.

    The test split keeps its photo, so that the model learns none of those that it is measured on.
    Within a split, the shortest name is kept (`a.jpg` beside `a (1).jpg`), so that a photo stays in
    its split when it is copied.
    """
    classes = sorted({file.class_name for file in copies})
    if len(classes) > 1:
        for file in copies:
            skipped.add("photo", file.name, f"the same photo is in {' and '.join(classes)}")
        return None
    order = ("test", "validation", "train", _UNSPLIT)
    first, *others = sorted(
        copies, key=lambda file: (order.index(file.split), len(file.name), file.name)
    )
    folder = first.path.parent
    for file in others:
        # Many photos share a line where a whole folder is there twice.
        where = first.name if file.path.parent == folder else f"one in {Path(first.name).parent}"
        skipped.add("photo", file.name, f"a copy of {where}")
    return first


def _decode(path: Path) -> _Decoded | Exception:
    """What is known of a photo, or why it cannot be used."""
    try:
        data = path.read_bytes()
        # `side=1` decodes a JPEG at an eighth of its size, and yet reads all of the file.
        photo = images.decode(data, side=1)
    except (
        OSError,
        images.TooCostly,
        images.TooManyPixels,
        images.UndecodableImage,
        images.UnsupportedMediaType,
    ) as error:
        return error
    return _Decoded((photo.width, photo.height), blake2b(data, digest_size=16).digest())


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
