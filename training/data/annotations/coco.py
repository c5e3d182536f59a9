"""COCO: one JSON file for many photos."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.annotations.annotation import Annotation, PixelBox, four_numbers, image_size
from training.data.skipped import Skipped
from training.errors import DataError

__all__ = ["load", "read"]


def load(path: Path, name: str, skipped: Skipped | None) -> dict[str, Any] | None:
    """The contents of a COCO file. None for any other JSON file, which goes to `skipped`.

    Args:
        path: of the file.
        name: of the file in messages.
        skipped: None where the file has to be COCO.

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
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    if skipped is None or path.name == "annotations.json":
        raise DataError(f"{path} is not COCO JSON: {reason}.")
    skipped.add("annotation", name, f"not COCO JSON: {reason}")
    return None


def read(contents: dict[str, Any], file_name: str, skipped: Skipped) -> Iterator[Annotation]:
    """One annotation for each image of a file, also for images without a box.

        {"images": [{"id": 7, "file_name": "beagle/a.jpg", "width": 500, "height": 375}, ...],
         "annotations": [{"image_id": 7, "category_id": 1, "bbox": [x, y, width, height]}, ...],
         "categories": [{"id": 1, "name": "beagle"}, ...]}

    Args:
        contents: of the file, as `load` returns them.
        file_name: in messages.
        skipped: collects images and annotations that are malformed.
    """
    photos: dict[object, tuple[str, tuple[int, int] | None]] = {}  # by id: name and size
    ambiguous: set[object] = set()
    for number, image in enumerate(contents["images"]):
        try:
            size = image_size(image.get("width"), image.get("height"))
            photo = (str(image["file_name"]), size)
            if photos.setdefault(image["id"], photo) != photo:  # as where two files were joined
                ambiguous.add(image["id"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            skipped.add("annotation", f"{file_name}: image {number}", f"malformed ({error!r})")
    names = _category_names(contents)
    boxes: defaultdict[object, list[PixelBox]] = defaultdict(list)  # by the image's id
    for number, annotation in enumerate(contents["annotations"]):
        location = f"{file_name}: annotation {number}"
        try:
            image_id = annotation["image_id"]
            size = photos[image_id][1]
            x, y, width, height = four_numbers(annotation["bbox"])
            class_name = names.get(annotation.get("category_id"))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            skipped.add("annotation", location, f"malformed ({error!r})")
            continue
        if image_id in ambiguous:
            skipped.add("annotation", location, f"two images have the id {image_id!r}")
            continue
        boxes[image_id].append(PixelBox(location, (x, y, x + width, y + height), size, class_name))
    for image_id, (name, _) in photos.items():
        if image_id not in ambiguous:
            yield Annotation(name, False, boxes[image_id])


def _category_names(contents: dict[str, Any]) -> dict[object, str]:
    """The names of categories by their id.

    A category without a name gets one by its number, if there are several of them: one alone may be
    that of all photos, but of several nobody can say which is which.
    """
    names: dict[object, str] = {}
    categories = contents.get("categories")
    for category in categories if isinstance(categories, list) else ():
        if isinstance(category, dict) and isinstance(category.get("id"), int | str):
            names[category["id"]] = str(category.get("name") or "").strip()
    names = {number: name for number, name in names.items() if name}
    used = {
        annotation["category_id"]
        for annotation in contents["annotations"]
        if isinstance(annotation, dict) and isinstance(annotation.get("category_id"), int | str)
    }
    nameless = used - names.keys()
    if names or len(nameless) > 1:
        names |= {number: f"category {number}" for number in nameless}
    return names
