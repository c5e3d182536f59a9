"""Boxes of a folder's photos, from PASCAL VOC XML, COCO JSON or CSV.

Every format is read into the service's own coordinates: xmin, ymin, xmax, ymax in pixels of the
upright photo (EXIF orientation applied), counted from 0 at the top left, the far edges exclusive.

| format | a box in the file | read as |
|---|---|---|
| VOC | `<xmin> <ymin> <xmax> <ymax>` | the same numbers |
| COCO | `[x, y, width, height]` | `x, y, x + width, y + height` |
| CSV | columns `xmin,ymin,xmax,ymax` | the same numbers |

PASCAL VOC's own files count from 1 and include the far edges; other files in that format vary. The
numbers are taken as they are, at the cost of a pixel at most.
"""

import csv
import json
import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from app import images
from training.data.skipped import Skipped
from training.errors import DataError

__all__ = ["ANNOTATION_FOLDERS", "COLUMNS", "PixelBox", "read_boxes", "relative_box"]

ANNOTATION_FOLDERS = ("annotations", "annotation")
"""Names (in any case) of a folder beside the class folders that may hold the boxes."""

COLUMNS = ("filename", "xmin", "ymin", "xmax", "ymax")
"""Required columns of a CSV file, in any order; others are ignored."""

_MAX_XML_BYTES = 1_000_000
"""The XML of one photo takes a few thousand."""


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A box in pixels, not checked yet.

    Attributes:
        location: its file, perhaps with a line or an index, for messages.
        edges: xmin, ymin, xmax, ymax in pixels.
        image_size: width and height in pixels of the image that the file describes; None where the
            file does not say.
    """

    location: str
    edges: images.Box
    image_size: tuple[int, int] | None


def relative_box(box: PixelBox, width: int, height: int) -> images.Box:
    """The box as fractions of an upright photo of `width` x `height` pixels, clipped to it.

    Raises:
        ValueError: the box is reversed, empty, outside the photo or not finite, or belongs to an
            image of another size.
    """
    xmin, ymin, xmax, ymax = box.edges
    text = ",".join(f"{edge:g}" for edge in box.edges)
    if not all(map(math.isfinite, box.edges)):
        raise ValueError(f"box {text} is not finite")
    if xmin >= xmax or ymin >= ymax:
        raise ValueError(f"box {text} is reversed or empty")
    # Some tools ignore the EXIF orientation and draw boxes on the pixels as they are stored. For a
    # photo that EXIF turns by a quarter, width and height are then swapped, which shows here. Half
    # a turn, a mirror image or a square photo leaves no trace in the size.
    if box.image_size is not None and box.image_size != (width, height):
        raise ValueError(
            f"box {text} belongs to an image of {box.image_size[0]} x {box.image_size[1]} pixels, "
            f"but the upright photo has {width} x {height}"
        )
    if xmin >= width or ymin >= height or xmax <= 0 or ymax <= 0:
        raise ValueError(f"box {text} lies outside the photo of {width} x {height} pixels")
    return images.scale_box(images.clip_box(box.edges, width, height), (width, height), (1, 1))


def read_boxes(
    directory: Path,
    photos: Mapping[str, str],
    *,
    source: Path | None = None,
    skipped: Skipped,
) -> dict[str, list[PixelBox]]:
    """The boxes of a folder's photos.

    Args:
        directory: the folder.
        photos: the class folder of each photo, by the photo's path: relative to `directory`, in
            POSIX form, `[split/]class/file`.
        source: where the boxes are: a directory of VOC XML (laid out as the photos are, or named by
            a photo's stem), a COCO `.json`, or a `.csv`. None looks in the folder: for `*.xml`
            anywhere, for COCO `*.json` at the top and in `annotations/`, and for `boxes.csv`.
        skipped: collects what cannot be read, and annotations of photos that do not exist.

    Returns:
        The boxes by photo, for photos that have an annotation.

    Raises:
        DataError: `source` has no boxes; there is no `source`, but boxes in two formats; or a file
            is not in the format that its name promises.
    """
    index = _PhotoIndex(photos)
    boxes: defaultdict[str, list[PixelBox]] = defaultdict(list)
    for annotation in _annotations(directory, source, skipped):
        try:
            photo = index.find(annotation.name, is_stem=annotation.is_stem)
        except LookupError as error:
            location = annotation.boxes[0].location if annotation.boxes else annotation.name
            skipped.add("annotation", location, error.args[0])
            continue
        boxes[photo] += annotation.boxes
    return dict(boxes)


class _Annotation(NamedTuple):
    """The boxes of one photo in a file.

    Attributes:
        name: the photo as the file names it: its path, or any last part of that.
        is_stem: whether `name` lacks the suffix.
        boxes: may be empty.
    """

    name: str
    is_stem: bool
    boxes: list[PixelBox]


class _PhotoIndex:
    """Finds a photo by the way an annotation file names it.

    Photos are indexed by every tail of their path: `train/beagle/a.jpg` by `train/beagle/a.jpg`,
    `beagle/a.jpg` and `a.jpg`, and by the same without `.jpg`.
    """

    def __init__(self, photos: Mapping[str, str]) -> None:
        self._class_by_photo = photos
        self._classes = set(photos.values())
        self._photos_by_tail: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
        for photo in photos:
            path = PurePosixPath(photo)
            for is_stem, last in ((False, path.name), (True, path.stem)):
                parts = (*path.parts[:-1], last)
                for begin in range(len(parts)):
                    self._photos_by_tail["/".join(parts[begin:]), is_stem].append(photo)

    def find(self, name: str, *, is_stem: bool) -> str:
        """The photo that `name` means.

        The longest tail of the name that fits a photo decides. What comes before it may be a path
        on another machine (`/data/pictures/beagle/a.jpg`), but must not contradict the photo's own
        folders: see `_compatible`.

        Raises:
            LookupError: no photo, or more than one.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for begin in range(len(parts)):
            candidates = [
                photo
                for photo in self._photos_by_tail.get(("/".join(parts[begin:]), is_stem), [])
                if self._compatible(photo, set(parts[:begin]), parts[begin:-1])
            ]
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                raise LookupError(f"ambiguous: {candidates[0]} or {candidates[1]}")
        raise LookupError(f"there is no photo {name}")

    def _compatible(self, photo: str, extra: Set[str], matched: Sequence[str]) -> bool:
        """Whether the folders of a name may be those of a photo.

        Args:
            photo: its path.
            extra: the name's first folders, which the tail does not cover.
            matched: the tail's folders, which end the photo's path.

        Returns:
            True if the photo lies in all of the extra folders anyway (`train/a.jpg` for
            `train/beagle/a.jpg`), or if the tail includes its class, and no extra folder is another
            class (`dingo/beagle/a.jpg` is of another picture).
        """
        if extra <= set(PurePosixPath(photo).parent.parts):
            return True
        return self._class_by_photo[photo] in matched and extra.isdisjoint(self._classes)


def _annotations(directory: Path, source: Path | None, skipped: Skipped) -> Iterator[_Annotation]:
    """Those of `source`, or those in the folder if all are in one format."""
    if source is not None:
        return _annotations_at(source, directory, skipped)
    folders = [
        child
        for child in sorted(directory.iterdir())
        if child.is_dir() and child.name.casefold() in ANNOTATION_FOLDERS
    ]
    voc = [path for path in _visible_files(directory) if path.suffix.casefold() == ".xml"]
    table = directory / "boxes.csv"
    coco = {
        path: contents
        for place in (directory, *folders)
        for path in sorted(place.glob("*.json"))
        if (contents := _load_coco(path, directory, skipped)) is not None
    }
    files = {"VOC XML": voc, "COCO JSON": list(coco), "CSV": [table] if table.is_file() else []}
    formats = {name: paths for name, paths in files.items() if paths}
    if len(formats) > 1:
        examples = ", ".join(
            f"{name} ({_display_name(paths[0], directory)})" for name, paths in formats.items()
        )
        raise DataError(
            f"{directory} has boxes in {len(formats)} formats: {examples}. "
            "Choose the file or the directory to read with --boxes."
        )
    if coco:
        return _from_coco(coco, directory, skipped)
    if table.is_file():
        return _from_csv(table, skipped)
    # A photo's path begins below an annotation folder: annotations/beagle/a.xml is of beagle/a.jpg.
    roots = [
        next((folder for folder in folders if folder in path.parents), directory) for path in voc
    ]
    return _from_voc(zip(voc, roots, strict=True), directory, skipped)


def _annotations_at(source: Path, directory: Path, skipped: Skipped) -> Iterator[_Annotation]:
    if source.is_dir():
        # The XML files in Stanford Dogs' own archive have no suffix.
        voc = [path for path in _visible_files(source) if path.suffix.casefold() in ("", ".xml")]
        if not voc:
            raise DataError(
                f"{source} has no VOC XML. For COCO or CSV, pass the file itself to --boxes."
            )
        return _from_voc(((path, source) for path in voc), directory, skipped)
    if not source.is_file():
        raise DataError(f"There is no file or directory {source} to read boxes from.")
    if source.suffix.casefold() == ".csv":
        return _from_csv(source, skipped)
    if source.suffix.casefold() == ".json":
        contents = _load_coco(source, directory, None)
        assert contents is not None  # without `skipped`, it raises instead
        return _from_coco({source: contents}, directory, skipped)
    raise DataError(f"{source} is neither a directory of VOC XML, nor .json (COCO), nor .csv.")


def _visible_files(directory: Path) -> list[Path]:
    """All files below a directory but hidden ones, sorted by path."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def _display_name(path: Path, directory: Path) -> str:
    """A file's name in messages: relative to the folder where it lies in there."""
    return (path.relative_to(directory) if path.is_relative_to(directory) else path).as_posix()


class _NoDoctype(ET.TreeBuilder):
    """Refuses a DOCTYPE. It can declare entities that expand a small file without bound."""

    def doctype(self, *_: object) -> NoReturn:
        raise ValueError("it has a DOCTYPE")


def _from_voc(
    files: Iterable[tuple[Path, Path]], directory: Path, skipped: Skipped
) -> Iterator[_Annotation]:
    """One annotation for each XML file.

    Args:
        files: the XML files, each with the directory that photo paths are relative to.
        directory: the folder of the photos, for messages.
        skipped: collects files that are not VOC XML.
    """
    for path, root in files:
        name = _display_name(path, directory)
        try:
            if path.stat().st_size > _MAX_XML_BYTES:
                raise ValueError(f"it is larger than {_MAX_XML_BYTES} bytes")
            tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_NoDoctype()))
            boxes = list(_voc_boxes(tree, name))
        except (OSError, ET.ParseError, ValueError, LookupError, OverflowError) as error:
            skipped.add("annotation", name, f"not VOC XML: {error}")
            continue
        # The XML file's own name decides. <filename> is unreliable: `%s` in Stanford Dogs' archive.
        yield _Annotation(path.relative_to(root).with_suffix("").as_posix(), True, boxes)


def _voc_boxes(tree: ET.Element, location: str) -> Iterator[PixelBox]:
    """The boxes of all objects of one photo.

        <annotation>
          <size> <width>500</width> <height>375</height> </size>
          <object> <bndbox> <xmin>1</xmin> <ymin>2</ymin> <xmax>3</xmax> <ymax>4</ymax> </bndbox>
          </object> ...

    A size that is missing or 0 counts as not given.
    """
    if tree.tag != "annotation":
        raise ValueError(f"its root is <{tree.tag}>, not <annotation>")
    size = [float(tree.findtext(f"size/{side}") or 0) for side in ("width", "height")]
    image_size = (int(size[0]), int(size[1])) if all(size) else None
    for box in tree.iterfind("object/bndbox"):
        texts = [box.findtext(edge) for edge in COLUMNS[1:]]
        yield PixelBox(location, _four_numbers(texts), image_size)


def _four_numbers(values: Sequence[Any]) -> images.Box:
    """`values` as floats.

    Raises:
        ValueError: not four, or one is missing or not a number. JSON's true and false are none.
    """
    if len(values) != 4 or any(value is None or isinstance(value, bool) for value in values):
        raise ValueError("a box needs four numbers")
    try:
        xmin, ymin, xmax, ymax = map(float, values)
    except TypeError as error:
        raise ValueError("a box needs four numbers") from error
    return xmin, ymin, xmax, ymax


def _load_coco(path: Path, directory: Path, skipped: Skipped | None) -> dict[str, Any] | None:
    """The contents of a COCO file. None for any other JSON file, which goes to `skipped`.

    Raises:
        DataError: it is not COCO, though it is called `annotations.json` or there is no `skipped`.
    """
    try:
        contents = json.loads(path.read_bytes())
        if isinstance(contents, dict) and all(
            isinstance(contents.get(key), list) for key in ("images", "annotations")
        ):
            return contents
        reason = "it has no lists `images` and `annotations`"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    if skipped is None or path.name == "annotations.json":
        raise DataError(f"{path} is not COCO JSON: {reason}.")
    skipped.add("annotation", _display_name(path, directory), f"not COCO JSON: {reason}")
    return None


def _from_coco(
    files: dict[Path, dict[str, Any]], directory: Path, skipped: Skipped
) -> Iterator[_Annotation]:
    """One annotation for each image of each file, also for images without a box.

    {"images": [{"id": 7, "file_name": "beagle/a.jpg", "width": 500, "height": 375}, ...],
     "annotations": [{"image_id": 7, "bbox": [x, y, width, height]}, ...]}
    """
    for path, contents in files.items():
        file_name = _display_name(path, directory)
        photos: dict[object, tuple[str, tuple[int, int] | None]] = {}  # by id: name and size
        boxes: defaultdict[object, list[PixelBox]] = defaultdict(list)  # by id
        for number, image in enumerate(contents["images"]):
            try:
                size = (int(image.get("width") or 0), int(image.get("height") or 0))
                photos[image["id"]] = (str(image["file_name"]), size if all(size) else None)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                skipped.add("annotation", f"{file_name}: image {number}", f"malformed ({error!r})")
        for number, annotation in enumerate(contents["annotations"]):
            location = f"{file_name}: annotation {number}"
            try:
                _, image_size = photos[annotation["image_id"]]
                x, y, width, height = _four_numbers(annotation["bbox"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                skipped.add("annotation", location, f"malformed ({error!r})")
                continue
            box = PixelBox(location, (x, y, x + width, y + height), image_size)
            boxes[annotation["image_id"]].append(box)
        for image_id, (name, _) in photos.items():
            yield _Annotation(name, False, boxes[image_id])


def _from_csv(path: Path, skipped: Skipped) -> Iterator[_Annotation]:
    """One annotation for each row, with its one box.

    Raises:
        DataError: the file is not CSV, or a column is missing.
    """
    try:
        # utf-8-sig: a spreadsheet's export may begin with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"The first line of {path} lacks the columns {', '.join(missing)}.")
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not CSV: {error}.") from error
    for line, row in rows:
        location = f"{path.name}:{line}"
        try:
            box = PixelBox(location, _four_numbers([row[edge] for edge in COLUMNS[1:]]), None)
        except ValueError as error:
            skipped.add("annotation", location, error)
            continue
        yield _Annotation(row["filename"] or "", False, [box])
