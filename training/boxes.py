"""Boxes of a folder's photos, from PASCAL VOC XML, COCO JSON or CSV.

Whatever the file, coordinates are what the service takes and gives: pixels of the upright photo
(EXIF applied), the far edges exclusive. Where a file tells the size of the image it describes and
that is not the upright photo's, the box is of another picture and is left out.
"""

import csv
import json
import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from app import images
from training.errors import DataError
from training.skipped import Skipped

__all__ = ["ANNOTATION_FOLDERS", "COLUMNS", "PixelBox", "read_boxes", "shares"]

ANNOTATION_FOLDERS = ("annotations", "annotation")
"""Names, in any case, of the folder beside the classes that may hold the boxes."""

COLUMNS = ("filename", "xmin", "ymin", "xmax", "ymax")
"""Of a CSV file, among others and in any order."""

_MOST_XML = 1_000_000
"""Bytes; the XML of one photo takes a few thousand."""


@dataclass(frozen=True, slots=True)
class PixelBox:
    """One box as a file has it.

    Attributes:
        where: which file, and where in it.
        edges: xmin, ymin, xmax, ymax in pixels.
        frame: width and height of the image that the file speaks of; None if it does not tell.
    """

    where: str
    edges: images.Box
    frame: tuple[int, int] | None


def shares(box: PixelBox, width: int, height: int) -> images.Box:
    """The box as shares of an upright photo of `width` x `height` pixels, clipped to it.

    Raises:
        ValueError: reversed, outside, not finite, or of an image of another size.
    """
    xmin, ymin, xmax, ymax = box.edges
    shown = ",".join(f"{edge:g}" for edge in box.edges)
    if not all(map(math.isfinite, box.edges)):
        raise ValueError(f"box {shown} is not finite")
    if xmin >= xmax or ymin >= ymax:
        raise ValueError(f"box {shown} is reversed or empty")
    if box.frame is not None and box.frame != (width, height):
        raise ValueError(
            f"box {shown} is of an image of {box.frame[0]} x {box.frame[1]} pixels; "
            f"upright, the photo has {width} x {height}"
        )
    if xmin >= width or ymin >= height or xmax <= 0 or ymax <= 0:
        raise ValueError(f"box {shown} lies outside the photo of {width} x {height} pixels")
    return images.scale_box(images.clip_box(box.edges, width, height), (width, height), (1, 1))


def read_boxes(
    directory: Path,
    photos: Mapping[str, str],
    *,
    named: Path | None = None,
    skipped: Skipped,
) -> dict[str, list[PixelBox]]:
    """The boxes of a folder's photos.

    Args:
        directory: the folder.
        photos: paths of its photos relative to it, in POSIX form, `[split/]class/file`, each with
            its class's folder.
        named: a directory of VOC XML (laid out as the photos are, or found by stem), a COCO
            `.json`, or a `.csv`; None looks for `*.xml` anywhere in the folder,
            `annotations.json` or other COCO files at its top or in `annotations/`, and
            `boxes.csv`.
        skipped: takes up what cannot be read, and annotations of photos that are not there.

    Returns:
        The boxes of each photo that has any.

    Raises:
        DataError: nothing where `named` points, boxes of two kinds and none named, or a file that
            is not what it is taken for.
    """
    catalogue = _Catalogue(photos)
    found: defaultdict[str, list[PixelBox]] = defaultdict(list)
    for name, is_stem, boxes in _read(directory, named, skipped):
        try:
            photo = catalogue.find(name, is_stem=is_stem)
        except LookupError as error:
            skipped.add("annotation", boxes[0].where if boxes else name, error.args[0])
            continue
        found[photo] += boxes
    return dict(found)


Annotation = tuple[str, bool, list[PixelBox]]
"""A photo's path or a part of its end, whether it lacks the suffix, and its boxes."""


class _Catalogue:
    """Photos by their paths and by the ends of these, with suffix and without."""

    def __init__(self, photos: Mapping[str, str]) -> None:
        self._photos: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
        self._class_of = photos
        self._classes = set(photos.values())
        for photo in photos:
            path = PurePosixPath(photo)
            for is_stem, parts in (
                (False, path.parts),
                (True, (*path.parts[:-1], path.stem)),
            ):
                for begin in range(len(parts)):
                    self._photos["/".join(parts[begin:]), is_stem].append(photo)

    def find(self, name: str, *, is_stem: bool) -> str:
        """The photo of that path; folders may be strange to us before its class, never after."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for begin in range(len(parts)):
            candidates = [
                photo
                for photo in self._photos.get(("/".join(parts[begin:]), is_stem), [])
                if self._fits(photo, set(parts[:begin]), parts[begin:-1])
            ]
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                raise LookupError(f"may be of {candidates[0]} or of {candidates[1]}")
        raise LookupError(f"there is no photo {name}")

    def _fits(self, photo: str, strange: Set[str], known: Sequence[str]) -> bool:
        """Whether the folders of a name, first the unmatched ones, may lead to the photo."""
        if strange <= set(PurePosixPath(photo).parent.parts):
            return True
        return self._class_of[photo] in known and strange.isdisjoint(self._classes)


def _read(directory: Path, named: Path | None, skipped: Skipped) -> Iterator[Annotation]:
    if named is not None:
        return _read_named(directory, named, skipped)
    folders = [
        child
        for child in sorted(directory.iterdir())
        if child.is_dir() and child.name.casefold() in ANNOTATION_FOLDERS
    ]
    voc = [path for path in _visible(directory) if path.suffix.casefold() == ".xml"]
    table = directory / "boxes.csv"
    coco = {
        path: contents
        for place in (directory, *folders)
        for path in sorted(place.glob("*.json"))
        if (contents := _coco(path, directory, skipped)) is not None
    }
    kinds = {"VOC XML": voc, "COCO JSON": list(coco), "CSV": [table] if table.is_file() else []}
    there = {kind: paths for kind, paths in kinds.items() if paths}
    if len(there) > 1:
        examples = ", ".join(
            f"{kind} ({_told(paths[0], directory)})" for kind, paths in there.items()
        )
        raise DataError(
            f"{directory} has boxes of {len(there)} kinds, {examples}: say which with --boxes."
        )
    if coco:
        return _from_coco(coco, directory, skipped)
    if table.is_file():
        return _from_csv(table, skipped)
    # Such a folder's own name is no part of the photos' paths.
    roots = [next((f for f in folders if f in path.parents), directory) for path in voc]
    return _from_voc(zip(voc, roots, strict=True), directory, skipped)


def _read_named(directory: Path, named: Path, skipped: Skipped) -> Iterator[Annotation]:
    if named.is_dir():
        # Stanford Dogs' own archive has its XML in files without a suffix.
        voc = [path for path in _visible(named) if path.suffix.casefold() in ("", ".xml")]
        if not voc:
            raise DataError(f"{named} holds no VOC XML; name a COCO or CSV file itself.")
        return _from_voc(((path, named) for path in voc), directory, skipped)
    if not named.is_file():
        raise DataError(f"There are no boxes at {named}.")
    if named.suffix.casefold() == ".csv":
        return _from_csv(named, skipped)
    if named.suffix.casefold() == ".json":
        contents = _coco(named, directory, None)
        assert contents is not None
        return _from_coco({named: contents}, directory, skipped)
    raise DataError(f"{named} is neither a directory of VOC XML, nor .json (COCO), nor .csv.")


def _visible(directory: Path) -> list[Path]:
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def _told(path: Path, directory: Path) -> str:
    """A file's name in messages."""
    return (path.relative_to(directory) if path.is_relative_to(directory) else path).as_posix()


class _NoDoctype(ET.TreeBuilder):
    """Refuses what entities are declared in: they can grow a small file without bound."""

    def doctype(self, *_: object) -> NoReturn:
        raise ValueError("it declares a document type")


def _from_voc(
    paths: Iterable[tuple[Path, Path]], directory: Path, skipped: Skipped
) -> Iterator[Annotation]:
    for path, root in paths:
        where = _told(path, directory)
        try:
            if path.stat().st_size > _MOST_XML:
                raise ValueError(f"it has more than {_MOST_XML} bytes")
            tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_NoDoctype()))
            boxes = list(_voc_boxes(tree, where))
        except (OSError, ET.ParseError, ValueError, LookupError, OverflowError) as error:
            skipped.add("annotation", where, f"not VOC XML: {error}")
            continue
        yield path.relative_to(root).with_suffix("").as_posix(), True, boxes


def _voc_boxes(tree: ET.Element, where: str) -> Iterator[PixelBox]:
    if tree.tag != "annotation":
        raise ValueError(f"it begins with <{tree.tag}>")
    size = [float(tree.findtext(f"size/{side}") or 0) for side in ("width", "height")]
    frame = (int(size[0]), int(size[1])) if all(size) else None
    for box in tree.iterfind("object/bndbox"):
        texts = [box.findtext(edge) for edge in COLUMNS[1:]]
        yield PixelBox(where, _edges(texts), frame)


def _edges(values: Sequence[Any]) -> images.Box:
    if len(values) != 4 or any(value is None or isinstance(value, bool) for value in values):
        raise ValueError("a box needs four numbers")
    try:
        xmin, ymin, xmax, ymax = map(float, values)
    except TypeError as error:
        raise ValueError("a box needs four numbers") from error
    return xmin, ymin, xmax, ymax


def _coco(path: Path, directory: Path, skipped: Skipped | None) -> dict[str, Any] | None:
    """A COCO file; another JSON file is left out, unless its name promises boxes."""
    try:
        contents = json.loads(path.read_bytes())
        if isinstance(contents, dict) and all(
            isinstance(contents.get(key), list) for key in ("images", "annotations")
        ):
            return contents
        why = "it has no lists `images` and `annotations`"
    except (ValueError, RecursionError) as error:
        why = str(error)
    if skipped is None or path.name == "annotations.json":
        raise DataError(f"{path} is not COCO JSON: {why}.")
    skipped.add("annotation", _told(path, directory), f"not COCO JSON: {why}")
    return None


def _from_coco(
    files: dict[Path, dict[str, Any]], directory: Path, skipped: Skipped
) -> Iterator[Annotation]:
    for path, contents in files.items():
        told = _told(path, directory)
        photos: dict[object, tuple[str, tuple[int, int] | None]] = {}
        boxes: defaultdict[object, list[PixelBox]] = defaultdict(list)
        for number, image in enumerate(contents["images"]):
            try:
                size = (int(image.get("width") or 0), int(image.get("height") or 0))
                photos[image["id"]] = (str(image["file_name"]), size if all(size) else None)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                skipped.add("annotation", f"{told}: image {number}", f"malformed ({error!r})")
        for number, annotation in enumerate(contents["annotations"]):
            where = f"{told}: annotation {number}"
            try:
                _, frame = photos[annotation["image_id"]]
                x, y, width, height = _edges(annotation["bbox"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                skipped.add("annotation", where, f"malformed ({error!r})")
                continue
            box = PixelBox(where, (x, y, x + width, y + height), frame)
            boxes[annotation["image_id"]].append(box)
        for key, (name, _) in photos.items():
            yield name, False, boxes[key]


def _from_csv(path: Path, skipped: Skipped) -> Iterator[Annotation]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)} in its first line.")
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not CSV: {error}.") from error
    for line, row in rows:
        where = f"{path.name}:{line}"
        try:
            box = PixelBox(where, _edges([row[edge] for edge in COLUMNS[1:]]), None)
        except ValueError as error:
            skipped.add("annotation", where, error)
            continue
        yield row["filename"] or "", False, [box]
