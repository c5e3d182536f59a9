"""HEIC and AVIF: pictures in boxes (ISO/IEC 14496-12 and 23008-12)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.containers.base import Budget, Limits, Source, check_size
from app.errors import TooManyPixels, UndecodableImage, UnsupportedMediaType

__all__ = ["BRANDS", "inspect"]

BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    **dict.fromkeys((b"hevs", b"mif1", b"msf1"), "HEIC"),
}
"""Formats by the brands of pictures; the general ones (`mif1`) may hold AV1 as well."""

_MAX_ITEMS = 1_000
"""As libheif has it."""

_CUT = "The image is cut short: the description of its picture is not complete."

# Item types that hold coded pixels.
_CODED = {b"hvc1": "HEIC", b"av01": "AVIF"}
_DERIVED = (b"grid", b"iden", b"iovl")


@dataclass(slots=True)
class _Items:
    """What `meta` says of the file's pictures."""

    primary: int = 0
    types: dict[int, bytes] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    made_of: dict[int, list[int]] = field(default_factory=dict)  # tiles; and alpha planes
    metadata: list[int] = field(default_factory=list)  # places of the types of EXIF and XMP items


def inspect(data: bytes, limits: Limits) -> Source:
    """Read the structure of a HEIC or AVIF file.

    Boxes, references and associations are counted together: see `Budget`.

    In `parts`, EXIF and XMP are hidden from the decoder: neither format takes its orientation from
    them, and a broken EXIF block must not matter.

    Raises:
        TooManyPixels: the picture or what it is made of exceeds the limits.
        UnsupportedMediaType: the picture is coded by another method than HEVC and AV1.
        UndecodableImage: there is no picture that the file says is the one to show.
    """
    items = _items(data)
    if items.primary not in items.sizes:
        raise UndecodableImage(_CUT)
    width, height = items.sizes[items.primary]
    check_size(width, height, limits)
    coded, format_ = 0, ""
    for item in _reachable(items):
        kind = items.types.get(item, b"")
        if kind in _DERIVED:
            continue
        if kind not in _CODED:
            raise UnsupportedMediaType(
                f"The picture is coded as {kind.decode('ascii', 'replace')!r}; HEVC (HEIC) and "
                "AV1 (AVIF) are supported."
            )
        size = items.sizes.get(item)
        if size is None:
            raise UndecodableImage(_CUT)
        check_size(*size, limits)
        coded += size[0] * size[1]
        format_ = format_ or _CODED[kind]
    if not format_:
        raise UndecodableImage(_CUT)
    if coded > 4 * limits.pixels:
        raise TooManyPixels(
            f"The image is made of {coded} pixels in tiles; the limit is {4 * limits.pixels}."
        )
    hidden = bytearray(data)
    for place in items.metadata:
        hidden[place : place + 4] = b"skip"
    return Source(
        format=format_,
        width=width,
        height=height,
        parts=[bytes(hidden)] if items.metadata else [data],
        # HEVC: 20 ns a pixel and 240 ns a byte; AV1: 10 and 150.
        cost=2 * coded + 24 * len(data) if format_ == "HEIC" else coded + 15 * len(data),
        peak_bytes=(8 if format_ == "HEIC" else 10) * max(coded, width * height),
        frames=1,
    )


def _reachable(items: _Items) -> list[int]:
    """The primary item, and all that it is made of."""
    seen = {items.primary: None}
    waiting = [items.primary]
    for item in waiting:
        parts = [part for part in dict.fromkeys(items.made_of.get(item, ())) if part not in seen]
        seen |= dict.fromkeys(parts)
        waiting += parts
    return waiting


def _items(data: bytes) -> _Items:
    items, budget = _Items(), Budget(len(data), "boxes and references")
    try:
        for kind, start, end in _boxes(data, 0, len(data), budget):
            if kind == b"meta":
                _read_meta(data, start + 4, end, items, budget)
                break
    except (struct.error, IndexError) as error:
        raise UndecodableImage(_CUT) from error
    return items


def _boxes(data: bytes, place: int, stop: int, budget: Budget) -> Iterator[tuple[bytes, int, int]]:
    """Each box's type, and where its content starts and ends."""
    while place + 8 <= stop:
        budget.spend()
        size, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = stop if size == 0 else place + size
        if end < start or (end > stop and kind != b"mdat"):
            raise UndecodableImage(_CUT)
        yield kind, start, min(end, stop)
        place = end


def _read_meta(data: bytes, start: int, end: int, items: _Items, budget: Budget) -> None:
    properties: list[tuple[int, int] | None] = []
    associations: list[tuple[int, Sequence[int]]] = []
    for kind, inner, inner_end in _boxes(data, start, end, budget):
        if kind == b"pitm":
            items.primary = _number(data, inner + 4, 4 if data[inner] else 2)
        elif kind == b"iinf":
            _read_types(data, inner, inner_end, items, budget)
        elif kind == b"iref":
            _read_references(data, inner, inner_end, items, budget)
        elif kind == b"iprp":
            for part, place, place_end in _boxes(data, inner, inner_end, budget):
                if part == b"ipco":
                    properties += _read_sizes(data, place, place_end, budget)
                elif part == b"ipma":
                    associations += _read_associations(data, place, place_end, budget)
    for item, indices in associations:
        for index in indices:
            size = properties[index - 1] if 0 < index <= len(properties) else None
            if size:
                items.sizes[item] = size


def _read_types(data: bytes, start: int, end: int, items: _Items, budget: Budget) -> None:
    """`iinf`: the type of each item."""
    for kind, place, _ in _boxes(data, start + (8 if data[start] else 6), end, budget):
        version = data[place]
        if kind != b"infe" or version < 2:
            continue
        width = 2 if version == 2 else 4
        item, type_at = _number(data, place + 4, width), place + 4 + width + 2
        items.types[item] = data[type_at : type_at + 4]
        if len(items.types) > _MAX_ITEMS:
            raise UndecodableImage(f"The image has more than {_MAX_ITEMS} items.")
        if items.types[item] in (b"Exif", b"mime"):
            items.metadata.append(type_at)


def _read_references(data: bytes, start: int, end: int, items: _Items, budget: Budget) -> None:
    """`iref`: of which items an item is made, and which is the alpha plane of which."""
    width = 4 if data[start] else 2
    for kind, place, place_end in _boxes(data, start + 4, end, budget):
        if kind not in (b"dimg", b"auxl"):
            continue
        origin, count = _number(data, place, width), _number(data, place + width, 2)
        first = place + width + 2
        count = min(count, (place_end - first) // width)
        budget.spend(count)
        targets = [_number(data, first + n * width, width) for n in range(count)]
        if kind == b"dimg":
            items.made_of.setdefault(origin, []).extend(targets)
        else:
            for target in targets:
                items.made_of.setdefault(target, []).append(origin)


def _read_sizes(data: bytes, start: int, end: int, budget: Budget) -> list[tuple[int, int] | None]:
    """`ipco`: of its properties, the sizes; None stands for another property."""
    return [
        struct.unpack_from(">II", data, place + 4) if kind == b"ispe" else None
        for kind, place, _ in _boxes(data, start, end, budget)
    ]


def _read_associations(
    data: bytes, start: int, end: int, budget: Budget
) -> Iterator[tuple[int, Sequence[int]]]:
    """`ipma`: each item with the indices of its properties, which count from 1."""
    version, wide = data[start], data[start + 3] & 1
    place = start + 8
    for _ in range(_number(data, start + 4, 4)):
        width = 2 if version < 1 else 4
        if place + width >= end:
            return
        item, count = _number(data, place, width), data[place + width]
        budget.spend(1 + count // 8)  # an index takes less time than a box
        place += width + 1
        if wide:
            indices = [_number(data, place + 2 * n, 2) & 0x7FFF for n in range(count)]
        else:
            indices = [index & 0x7F for index in data[place : place + count]]
        place += count * (2 if wide else 1)
        yield item, indices


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "big")
