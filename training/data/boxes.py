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

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Set
from itertools import chain
from pathlib import Path

from app import images
from training.data.annotations import Annotation, PixelBox, coco, table, voc
from training.data.classes import letters, spellings
from training.data.photo_index import PhotoIndex
from training.data.skipped import Skipped
from training.data.tree import Tree
from training.errors import DataError

__all__ = ["ANNOTATION_FOLDERS", "read_boxes", "relative_box"]

ANNOTATION_FOLDERS = ("annotations", "annotation")
"""Names (in any case) of a folder beside the class folders that may hold the boxes."""

_ANY_CLASS = (
    *(frozenset(("dog", "dogs")), frozenset(("object", "objects"))),
    *(frozenset((name,)) for name in ("animal", "foreground", "pet")),
)
"""Names of objects that stand for the photo's class, whatever it is, unless the class is one of
them: then the other number is no other name either."""


def relative_box(box: PixelBox, width: int, height: int) -> images.Box:
    """The box as fractions of an upright photo of `width` x `height` pixels, clipped to it.

    Raises:
        ValueError: the box is reversed, empty, not finite, in fractions instead of pixels, or more
            than half of it lies outside the photo; or it belongs to an image of another size. A
            photo of another size is not always the same picture scaled: it may be cut, too.
    """
    xmin, ymin, xmax, ymax = box.edges
    text = ",".join(f"{edge:g}" for edge in box.edges)
    if not all(map(math.isfinite, box.edges)):
        raise ValueError(f"box {text} is not finite")
    if xmin >= xmax or ymin >= ymax:
        raise ValueError(f"box {text} is reversed or empty")
    if max(map(abs, box.edges)) <= 1 < max(width, height):
        raise ValueError(f"box {text} is given in fractions; pixels are needed")
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
    clipped = images.clip_box(box.edges, width, height)
    # A few pixels too many are a slip of the hand; a box of which most is missing is of an image
    # of another size.
    inside = (clipped[2] - clipped[0]) * (clipped[3] - clipped[1])
    if inside < (xmax - xmin) * (ymax - ymin) / 2:
        raise ValueError(f"box {text} lies mostly outside the photo of {width} x {height} pixels")
    return images.scale_box(clipped, (width, height), (1, 1))


def read_boxes(
    directory: Path,
    photos: Mapping[str, str],
    *,
    source: Path | None = None,
    skipped: Skipped,
) -> dict[str, list[PixelBox]]:
    """The boxes of a folder's photos.

    A box with the name of an object is taken if the name is that of the photo's class, or one of
    `_ANY_CLASS`: the person who holds a beagle is no beagle. Numbers before a name, spaces and
    punctuation make no difference, unless two classes are then alike.

    Args:
        directory: the folder.
        photos: the class folder of each photo, by the photo's path: relative to `directory`, in
            POSIX form, `[split/]class/file`.
        source: where the boxes are: a directory of VOC XML (laid out as the photos are, or named by
            a photo's stem), a COCO `.json`, or a `.csv`. None looks in the folder: for `*.xml`
            anywhere, for COCO `*.json` at the top and in `annotations/`, and for `boxes.csv`.
        skipped: collects what cannot be read, boxes of other objects, and annotations of photos
            that do not exist.

    Returns:
        The boxes by photo, for photos that have an annotation.

    Raises:
        DataError: `source` has no boxes; there is no `source`, but boxes in two formats; or a file
            is not in the format that its name promises.
    """
    index = PhotoIndex(photos)
    names = _names(set(photos.values()))
    known = frozenset().union(*names.values())
    others: list[tuple[str, PixelBox]] = []  # boxes of other objects, with their photos
    any_named = False  # whether a box's name is that of a class at all
    boxes: defaultdict[str, list[PixelBox]] = defaultdict(list)
    for annotation in _annotations(directory, source, skipped):
        try:
            photo = index.find(annotation.name, is_stem=annotation.is_stem)
        except LookupError as error:
            location = annotation.boxes[0].location if annotation.boxes else annotation.name
            skipped.add("annotation", location, error.args[0])
            continue
        kept = boxes[photo]
        for box in annotation.boxes:
            own = names[photos[photo]]
            if box.class_name is None:
                kept.append(box)
                continue
            spelled = spellings(box.class_name) | {letters(box.class_name)}
            any_named |= not known.isdisjoint(spelled)
            if own.isdisjoint(spelled):
                others.append((photo, box))
            else:
                kept.append(box)
    for photo, box in others:
        reason = f"`{box.class_name}` is not the class of the photo"
        if not any_named:
            reason = (
                "no box of the file has the name of a class. If all show the photo's class, rename "
                "them to `object`"
            )
        skipped.add("box", f"{photo} ({box.location})", reason)
    return dict(boxes)


def _names(classes: Set[str]) -> dict[str, frozenset[str]]:
    """What boxes of a class may be called, by the class: its own names and those of any class."""
    exact = {name: spellings(name) for name in classes}
    any_class = frozenset[str]().union(
        *(group for group in _ANY_CLASS if group.isdisjoint(set().union(*exact.values())))
    )
    loose = Counter(map(letters, classes))
    return {
        name: any_class | exact[name] | ({letters(name)} if loose[letters(name)] == 1 else set())
        for name in classes
    }


def _annotations(directory: Path, source: Path | None, skipped: Skipped) -> Iterator[Annotation]:
    """Those of `source`, or those in the folder if all are in one format."""
    if source is not None:
        return _annotations_at(source, directory, skipped)
    # What cannot be opened in the folders of photos is reported by the reader of photos.
    tree, photo_tree = Tree(directory, skipped), Tree(directory, Skipped())
    children, top = photo_tree.children(directory)
    folders = [child for child in children if child.name.casefold() in ANNOTATION_FOLDERS]
    roots = dict.fromkeys(top, directory)  # by file: the folder that a photo's path begins in
    for child in children:
        # annotations/beagle/a.xml is of beagle/a.jpg.
        root, reader = (child, tree) if child in folders else (directory, photo_tree)
        roots |= dict.fromkeys(reader.files(child), root)
    files = sorted(roots)
    tables = [path for path in top if path.name.casefold() == "boxes.csv"]
    json_files = [
        path
        for path in files
        if path.suffix.casefold() == ".json" and path.parent in (directory, *folders)
    ]
    loaded = {path: coco.load(path, tree.name(path), skipped) for path in json_files}
    formats = {
        "VOC XML": [path for path in files if path.suffix.casefold() == ".xml"],
        "COCO JSON": [path for path in json_files if loaded[path] is not None],
        "CSV": tables,
    }
    formats = {name: paths for name, paths in formats.items() if paths}
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({tree.name(paths[0])})" for name, paths in formats.items())
        raise DataError(
            f"{directory} has boxes in {len(formats)} formats: {examples}. "
            "Choose the file or the directory to read with --boxes."
        )
    if len(tables) > 1:
        raise DataError(f"{directory} has both {tables[0].name} and {tables[1].name}.")
    read = {*tables, *json_files}
    for path in files:
        if path.suffix.casefold() in (".csv", ".json") and path not in read:
            skipped.add("file", tree.name(path), "not read; for boxes, pass it to --boxes")
    if tables:
        return table.read(tables[0], tables[0].name, skipped)
    if "COCO JSON" in formats:
        return chain.from_iterable(
            coco.read(contents, tree.name(path), skipped)
            for path, contents in loaded.items()
            if contents is not None
        )
    xml = formats.get("VOC XML", [])
    return voc.read([(path, roots[path], tree.name(path)) for path in xml], skipped)


def _annotations_at(source: Path, directory: Path, skipped: Skipped) -> Iterator[Annotation]:
    # In messages, a file has its name in the folder where it lies in there.
    name = _display_name(source, directory)
    if source.is_dir():
        # The XML files in Stanford Dogs' own archive have no suffix.
        files = Tree(source, skipped).files(source)
        xml = [path for path in files if path.suffix.casefold() in ("", ".xml")]
        if not xml:
            raise DataError(
                f"{source} has no VOC XML. For COCO or CSV, pass the file itself to --boxes."
            )
        return voc.read([(path, source, _display_name(path, directory)) for path in xml], skipped)
    if not source.is_file():
        raise DataError(f"There is no file or directory {source} to read boxes from.")
    if source.suffix.casefold() == ".csv":
        return table.read(source, source.name, skipped)
    if source.suffix.casefold() == ".json":
        contents = coco.load(source, name, None)
        assert contents is not None  # without `skipped`, it raises instead
        return coco.read(contents, name, skipped)
    raise DataError(f"{source} is neither a directory of VOC XML, nor .json (COCO), nor .csv.")


def _display_name(path: Path, directory: Path) -> str:
    """A file's name in messages: relative to the folder where it lies in there."""
    return (path.relative_to(directory) if path.is_relative_to(directory) else path).as_posix()
