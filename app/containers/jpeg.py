"""JPEG: its markers and scans, and the file without its metadata."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.containers.base import (
    CUT,
    LEAST_SIDE,
    MAX_PROFILE,
    Budget,
    Limits,
    Source,
    check_size,
    orientation,
    reduction,
)
from app.errors import TooCostly, UndecodableImage, UnsupportedMediaType

__all__ = ["inspect"]

# In entropy-coded data, 0xFF is followed by 0 or by a restart marker (D0 to D7).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
_FILL = re.compile(rb"\xff+")
_WINDOW = 1 << 20
"""Bytes of one search. Between two, other threads may run."""

_TEM, _SOI, _EOI, _SOS = 0x01, 0xD8, 0xD9, 0xDA
# Start of frame: C0 to CF but for DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# DHT, DAC, DQT and DRI are needed; JFIF (E0) and Adobe (EE) tell the colour space.
_KEPT = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}


@dataclass(slots=True)
class _Frame:
    """The start of frame, and which coefficients its scans have brought."""

    marker: int
    width: int
    height: int
    samples: dict[int, int]  # of each component, by its identifier
    # Of each component and coefficient, the bits still to come; 14 before the first scan. In a
    # sequential file, where a scan brings all coefficients, they count as one.
    missing: dict[int, list[int]] = field(default_factory=dict)
    scans: int = 0
    covered: int = 0  # samples, once for each scan over them

    @property
    def progressive(self) -> bool:
        return self.marker in _PROGRESSIVE

    @property
    def complete(self) -> bool:
        return not any(any(bits) for bits in self.missing.values())

    @property
    def all_samples(self) -> int:
        return sum(self.samples.values())

    @property
    def single(self) -> bool:
        """Whether its scan, if it is the first, brings all that there is."""
        return not self.progressive and self.complete

    def scan(self, body: bytes) -> None:
        """Take note of a start of scan."""
        self.scans += 1
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            return  # the decoder will say what is wrong
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        for component in body[1 : 1 + 2 * count : 2]:
            self.covered += self.samples.get(component, 0)
            levels = self.missing.get(component)
            if levels is not None and not self.progressive:
                levels[0] = 0  # decoders ignore the range
            elif levels is not None and first <= last < 64:
                levels[first : last + 1] = [bits & 15] * (last + 1 - first)


def inspect(data: bytes, limits: Limits) -> Source:
    """Read a JPEG's structure.

    Raises:
        TooManyPixels: its size exceeds the limits.
        TooCostly: its scans do.
        UnsupportedMediaType: its frame is of a rare kind.
        UndecodableImage: it has no frame or no scan.
    """
    structure = _Structure(data, limits)
    for segment in _segments(data):
        if not structure.take(*segment):
            break
    return structure.source()


class _Structure:
    """What the segments of a JPEG say, up to the one that ends the picture."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data, self._view, self._limits = data, memoryview(data), limits
        self._parts: list[bytes | memoryview] = [b"\xff\xd8"]
        self._frame: _Frame | None = None
        self._exif: bytes | None = None
        self._profile = dict[int, bytes]()
        # Where the entropy-coded data begin and end, and whether their end is marked.
        self._first_scan, self._stop, self._ended = 0, len(data), False

    def take(self, marker: int, start: int, end: int) -> bool:
        """Note a segment; returns whether those behind it matter."""
        if self._is_end(marker, start, end):
            return False
        if end > len(self._data) or (marker == _SOS and not self._frame):
            raise UndecodableImage(CUT)
        body = self._data[start + 4 : end]
        if marker == _SOS:
            return self._scan(start, body)
        self._note(marker, body)
        if marker in _KEPT and not self._first_scan:
            self._parts.append(self._view[start:end])
        return True

    def _is_end(self, marker: int, start: int, end: int) -> bool:
        """Whether the picture's data end before a segment."""
        if marker in (_EOI, _SOI) or (self._first_scan and end > len(self._data)):
            # A second picture (SOI) or a trailer may stand where EOI is missing.
            self._stop, self._ended = start, marker == _EOI
            return True
        if self._frame and self._frame.scans == 1 and self._frame.single:
            self._stop = start  # a trailer after the one scan
            return True
        return False

    def _scan(self, start: int, body: bytes) -> bool:
        """Note a start of scan; returns whether what follows matters."""
        frame = self._frame
        assert frame is not None
        self._first_scan = self._first_scan or start
        frame.scan(body)
        if frame.scans == 1 and frame.single and self._data.endswith(b"\xff\xd9"):
            # The file ends as it should, and decoders read no other scan: search no further.
            self._stop, self._ended = len(self._data) - 2, True
            return False
        if frame.scans > self._limits.scans:
            raise TooCostly(
                f"The JPEG has more than {self._limits.scans} scans, the limit: each is as much "
                "work as a picture."
            )
        return True

    def _note(self, marker: int, body: bytes) -> None:
        """Note the frame header and what metadata matter."""
        if marker in _FRAMES:
            if self._frame:
                raise UndecodableImage("The JPEG has two frame headers.")
            self._frame = _frame(marker, body, self._limits)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and self._exif is None:
            self._exif = body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            self._profile.setdefault(body[12], body[14:])

    def source(self) -> Source:
        """The picture, once all segments that matter are taken."""
        frame, ended = self._frame, self._ended
        if not (frame and self._first_scan):
            raise UndecodableImage(CUT)
        return Source(
            format="JPEG",
            width=frame.width,
            height=frame.height,
            parts=[*self._parts, self._view[self._first_scan : self._stop], b"\xff\xd9"],
            cost=_cost(frame, self._stop - self._first_scan, twice=not ended),
            peak_bytes=_peak(frame),
            orientation=1 if self._exif is None else orientation(self._exif),
            profile=_joined(self._profile),
            scans=frame.scans,
            progressive=frame.progressive,
            ended=ended,
            complete=ended or frame.complete,
        )


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker with its place and the end of its segment, which may lie past the data's."""
    place, budget = 2, Budget(len(data), "segments")
    while True:
        budget.spend()
        start = _next_marker(data, place)
        if start < 0:
            return
        marker = data[start + 1]
        if marker == 0xFF:  # fill: the marker is the last of the run and what follows
            run = _FILL.match(data, start)
            assert run is not None
            follows = data[run.end() : run.end() + 1]
            place = run.end() - (0 if follows in (b"", b"\0") else 1)
            continue
        if marker in (_TEM, _SOI, _EOI):
            place = start + 2
            yield marker, start, place
            continue
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        place = start + 2 + length if length >= 2 else len(data) + 1
        yield marker, start, place


def _next_marker(data: bytes, place: int) -> int:
    """Where the next marker or run of fill bytes is; -1 if there is none."""
    while place < len(data):
        # One byte more than the window, for a marker across its end.
        marker = _MARKER.search(data, place, place + _WINDOW + 1)
        if marker:
            return marker.start()
        place += _WINDOW
    return -1


def _frame(marker: int, body: bytes, limits: Limits) -> _Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise UndecodableImage(CUT)
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    check_size(width, height, limits)
    if bits != 8 or marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or count not in (1, 3, 4):
        raise UnsupportedMediaType(
            f"The JPEG is of a rare kind (frame 0x{marker:02X}, {bits} bits, {count} components) "
            "that is not supported."
        )
    components = body[6 : 6 + 3 * count]
    factors = [(factor >> 4) * (factor & 15) for factor in components[1::3]]
    if len(set(components[::3])) < count:
        raise UndecodableImage("The JPEG has two components of one name.")
    most = max(1, *factors)
    samples = {
        component: width * height * factor // most
        for component, factor in zip(components[::3], factors, strict=True)
    }
    size = 64 if marker in _PROGRESSIVE else 1
    missing = {component: [14] * size for component in samples}
    return _Frame(marker, width, height, samples, missing)


def _joined(chunks: dict[int, bytes]) -> bytes | None:
    """An ICC profile from its numbered chunks; None if one is missing."""
    if sorted(chunks) != list(range(1, len(chunks) + 1)):
        return None
    profile = b"".join(chunks[number] for number in sorted(chunks))
    return profile if 0 < len(profile) <= MAX_PROFILE else None


def _cost(frame: _Frame, size: int, *, twice: bool) -> int:
    """Pixels of work: see `image_header`.

    3.2 ns a sample and 20 ns a byte of the file; of a progressive one, 60 ns a byte and 0.8 ns for
    each sample that a scan covers.
    """
    if frame.scans > 1 or frame.progressive:
        work = (32 * frame.all_samples + 8 * frame.covered + 600 * size) // 100
    else:
        work = (32 * frame.all_samples + 200 * size) // 100
    return work * (2 if twice else 1)  # see `images`: a file without its end is decoded twice


def _peak(frame: _Frame) -> int:
    """Bytes: the picture, reduced as it is decoded; where there are several scans, coefficients."""
    coefficients = 2 * frame.all_samples if frame.scans > 1 or frame.progressive else 0
    scale = reduction(frame.width, frame.height, LEAST_SIDE)
    pixels = -(-frame.width // scale) * -(-frame.height // scale)
    return 7 * pixels + coefficients
