"""PASCAL VOC: an XML file for each photo."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from training.data.annotations.annotation import (
    EDGES,
    Annotation,
    PixelBox,
    four_numbers,
    image_size,
)
from training.data.skipped import Skipped

__all__ = ["read"]

_MAX_BYTES = 1_000_000
"""The XML of one photo takes a few thousand."""


class _NoDoctype(ET.TreeBuilder):
    """Refuses a DOCTYPE. It can declare entities that expand a small file without bound."""

    def doctype(self, *_: object) -> NoReturn:
        raise ValueError("it has a DOCTYPE")


def read(files: Iterable[tuple[Path, Path, str]], skipped: Skipped) -> Iterator[Annotation]:
    """One annotation for each XML file.

    Args:
        files: the XML files, each with the directory that photo paths are relative to, and with its
            name in messages.
        skipped: collects files that are not VOC XML.
    """
    for path, root, name in files:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
            tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_NoDoctype()))
            boxes = list(_boxes(tree, name))
        except (OSError, ET.ParseError, ValueError, LookupError, OverflowError) as error:
            skipped.add("annotation", name, f"not VOC XML: {error}")
            continue
        # The XML file's own name decides. <filename> is unreliable: `%s` in Stanford Dogs' archive.
        stem = path.with_suffix("") if path.suffix.casefold() == ".xml" else path
        yield Annotation(stem.relative_to(root).as_posix(), True, boxes)


def _boxes(tree: ET.Element, location: str) -> Iterator[PixelBox]:
    """The boxes of all objects of one photo.

        <annotation>
          <size> <width>500</width> <height>375</height> </size>
          <object> <name>beagle</name>
            <bndbox> <xmin>1</xmin> <ymin>2</ymin> <xmax>3</xmax> <ymax>4</ymax> </bndbox>
          </object> ...

    A size that is missing or 0 counts as not given.
    """
    if tree.tag != "annotation":
        raise ValueError(f"its root is <{tree.tag}>, not <annotation>")
    size = image_size(tree.findtext("size/width"), tree.findtext("size/height"))
    for element in tree.iterfind("object"):
        class_name = (element.findtext("name") or "").strip() or None
        for box in element.iterfind("bndbox"):
            edges = four_numbers([box.findtext(edge) for edge in EDGES])
            yield PixelBox(location, edges, size, class_name)
