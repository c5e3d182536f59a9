import contextlib
import gzip
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import TooCostly, TooManyPixels, UndecodableImage, UnsupportedMediaType
from app.explainer import SMALL_BYTES
from app.image_header import FORMATS, Limits, read
from tests import needs
from tests.app.cost import megapixels
from tests.app.encoded import END, NOISE, encode, ihdr, png, segment, smooth
from tests.needs import shared

PICTURE = smooth(120, 80)


def progressive(scans: int, *, width: int = 120, height: int = 80) -> bytes:
    """A JPEG with one of its scans repeated until there are so many."""
    data = encode(smooth(width, height), "JPEG", progressive=True)
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    ends = []
    for start, following in zip(starts, [*starts[1:], len(data) - 2], strict=True):
        table = data.find(b"\xff\xc4", start, following)  # of the next scan
        ends.append(following if table < 0 else table)
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    shortest = sizes.index(min(sizes))
    start, end = starts[shortest], ends[shortest]
    return data[:end] + data[start:end] * (scans - len(starts)) + data[end:]


PROFILE = b"x\0\0" + zlib.compress(bytes(5 << 20), 9)
"""Of an iCCP chunk: more zeros than a profile may have."""


def box(kind: bytes, body: bytes, *, full: bool = False) -> bytes:
    """A box of ISO media, with version and flags if it is a full one."""
    body = bytes(4 * full) + body
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heic(*boxes: bytes) -> bytes:
    """A HEIC that describes its picture by these boxes; item 1 is the one to show."""
    primary = box(b"pitm", b"\0\1", full=True)
    types = box(b"iinf", b"\0\1" + box(b"infe", b"\2\0\0\0\0\1\0\0grid\0"), full=True)
    meta = box(b"meta", primary + types + b"".join(boxes), full=True)
    return box(b"ftyp", b"heic\0\0\0\0") + meta


def references(items: int, targets: int) -> bytes:
    """Each of so many items is made of all the following ones up to a number."""
    return b"".join(
        box(
            b"dimg",
            struct.pack(
                f">HH{targets}H",
                item,
                targets,
                *(2 + (item + n) % 65_000 for n in range(targets)),
            ),
        )
        for item in range(1, items + 1)
    )


def repeated(size: int) -> dict[str, bytes]:
    """Files of about `size` bytes: for each format, the smallest elements again and again."""
    jpeg = encode(PICTURE, "JPEG")
    scan = jpeg.index(b"\xff\xda")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + bytes(12 * 5_000)
    directory = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535)
    associations = struct.pack(">I", 1 << 30) + b"\0\1\xff" + bytes(255)
    gif, webp = b"GIF89a\1\0\1\0\0\0\0", b"RIFF\0\0\0\0WEBP"
    parts = {
        "JPEG fill": (b"\xff\xd8\xff", b"\xff\xff\0", b""),
        "JPEG segments": (jpeg[:scan], b"\xff\xe1\0\2", jpeg[scan:]),
        "JPEG profiles": (jpeg[:scan], segment(0xE2, b"ICC_PROFILE\0\1\1x"), jpeg[scan:]),
        "JPEG EXIF": (jpeg[:scan], segment(0xE1, exif), jpeg[scan:]),
        "JPEG markers": (b"\xff\xd8\xff\1", b"\xff\1", b""),
        "JPEG restarts": (b"\xff\xd8\xff", b"\xd0\xff", b""),
        "PNG text": (png(ihdr(9, 9)), png((b"tEXt", b""))[8:], b""),
        "PNG palettes": (png(ihdr(9, 9)), png((b"PLTE", b""))[8:], b""),
        "PNG tRNS": (png(ihdr(9, 9)), png((b"tRNS", b"\0" * 6))[8:], b""),
        "PNG iCCP": (png(ihdr(9, 9)), png((b"iCCP", PROFILE))[8:], b""),
        "PNG eXIf": (png(ihdr(9, 9)), png((b"eXIf", exif[6:]))[8:], b""),
        "PNG IDAT": (png(ihdr(9, 9)), png((b"IDAT", b""))[8:], b""),
        "GIF blocks": (gif + b"!\xfe", b"\1x", b""),
        "GIF extensions": (gif, b"!\xfe\0", b""),
        "GIF controls": (gif, b"!\xf9\4\0\0\0\0\0", b""),
        "GIF data": (gif + b",\0\0\0\0\1\0\1\0\0\2", b"\1x", b""),
        "WebP chunks": (webp, b"EXIF\0\0\0\0", b""),
        "WebP EXIF": (webp, b"EXIF" + struct.pack("<I", len(exif)) + exif, b""),
        "WebP frames": (
            webp + b"VP8X\x0a\0\0\0\2" + bytes(9) + b"ANMF\xff\xff\xff\0" + bytes(16),
            b"xxxx\0\0\0\0",
            b"",
        ),
        "TIFF directory": (directory, bytes(12), b""),
        "HEIC boxes": (heic(), box(b"free", b""), b""),
        "HEIC items": (b"", box(b"infe", b"\2\0\0\0\0\1\0\0hvc1"), b""),
        "HEIC associations": (b"", associations[4:], b""),
        "HEIC associations of none": (b"", b"\0\1\0", b""),
        "HEIC sizes": (b"", box(b"ispe", bytes(12)), b""),
        "HEIC references": (b"", box(b"dimg", b"\0\1\0\x02\0\1\0\2"), b""),
        "HEIC other references": (b"", box(b"cdsc", b"\0\1\0\x02\0\1\0\2"), b""),
        "HEIC empty references": (b"", box(b"dimg", b"\0\1\0\0"), b""),
    }
    files = {
        name: head + element * ((size - len(head) - len(tail)) // len(element)) + tail
        for name, (head, element, tail) in parts.items()
    }
    files["HEIC items"] = heic(box(b"iinf", b"\0\1" + files["HEIC items"], full=True))
    for name in ("HEIC associations", "HEIC associations of none"):
        table = box(b"ipma", associations[:4] + files[name], full=True)
        files[name] = heic(box(b"iprp", table))
    files["HEIC sizes"] = heic(box(b"iprp", box(b"ipco", files["HEIC sizes"])))
    for name in ("HEIC references", "HEIC other references", "HEIC empty references"):
        files[name] = heic(box(b"iref", files[name], full=True))
    targets = min(60_000, size // 2)
    one = box(b"dimg", struct.pack(f">HH{targets}H", 1, targets, *range(targets)))
    files["HEIC targets"] = heic(box(b"iref", one * (size // len(one)), full=True))
    files["HEIC chain"] = heic(box(b"iref", references(min(size // 212, 60_000), 100), full=True))
    return files


class TestRead:
    @pytest.mark.parametrize(
        ("kind", "options", "expected"),
        [
            ("JPEG", {}, {"format": "JPEG", "scans": 1, "progressive": False}),
            ("JPEG", {"progressive": True}, {"format": "JPEG", "scans": 10, "progressive": True}),
            ("PNG", {}, {"format": "PNG"}),
            ("WEBP", {}, {"format": "WebP", "lossless": False}),
            ("WEBP", {"lossless": True}, {"format": "WebP", "lossless": True}),
            ("HEIF", {}, {"format": "HEIC"}),
            ("HEIF", {"tile_size": 64}, {"format": "HEIC"}),
            ("AVIF", {"speed": 10}, {"format": "AVIF"}),
            ("GIF", {}, {"format": "GIF"}),
            ("BMP", {}, {"format": "BMP"}),
            ("TIFF", {}, {"format": "TIFF"}),
            ("TIFF", {"compression": "tiff_lzw"}, {"format": "TIFF"}),
        ],
    )
    def test_formats_and_sizes(
        self, kind: str, options: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        picture = PICTURE.quantize(64) if kind == "GIF" else PICTURE
        header = read(encode(picture, kind, **options))
        assert (header.width, header.height) == PICTURE.size
        assert header.format in FORMATS
        assert {name: getattr(header, name) for name in expected} == expected
        assert 0 < header.cost < 1_000_000
        assert header.peak_bytes >= 120 * 80

    @pytest.mark.parametrize(
        ("width", "height", "pixels"),
        [
            (4_000, 3_000, 2_000 * 1_500),
            (2_047, 4_000, 2_047 * 4_000),
            (8_193, 8_192, 1_025 * 1_024),
        ],
    )
    def test_memory_for_a_jpeg_is_that_of_its_reduced_scale(
        self, width: int, height: int, pixels: int
    ) -> None:
        limits = Limits(pixels=100_000_000)
        for progressive in (False, True):
            data = encode(PICTURE, "JPEG", progressive=progressive, subsampling=0)
            frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
            large = data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]
            # Of a progressive one, the decoder keeps all coefficients: 3 of 16 bits a pixel.
            coefficients = 6 * width * height if progressive else 0
            assert read(large, limits).peak_bytes == 7 * pixels + coefficients

    @pytest.mark.parametrize("kind", ["WEBP", "PNG"])
    def test_frames_are_counted(self, kind: str) -> None:
        frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "lime")]
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert read(data).frames == 3

    def test_an_interlaced_png(self) -> None:
        data = png(ihdr(4, 4, interlaced=1), (b"IDAT", b""), END)
        assert read(data).progressive

    def test_work_grows_with_scans_and_bytes(self) -> None:
        few, many = read(progressive(12)), read(progressive(90))
        assert few.scans == 12
        assert many.scans == 90
        assert many.cost > 3 * few.cost
        assert read(encode(PICTURE, "JPEG")).cost < few.cost
        plain, noise = Image.new("RGB", (48, 64)), NOISE
        for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
            assert read(encode(plain, kind)).cost < read(encode(noise, kind)).cost

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "HEIF", "AVIF", "GIF", "TIFF", "BMP"])
    def test_a_file_cut_anywhere_is_read_or_the_clients_error(self, kind: str) -> None:
        data = encode(PICTURE.quantize(64) if kind == "GIF" else PICTURE, kind)
        rng = random.Random(5)
        sizes = [*range(0, min(700, len(data)), 7), *(rng.randrange(len(data)) for _ in range(60))]
        for size in sizes:
            try:
                header = read(data[:size])
            except (TooCostly, TooManyPixels, UndecodableImage, UnsupportedMediaType):
                continue
            assert (header.width, header.height) == PICTURE.size

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "HEIF", "AVIF", "GIF", "TIFF", "BMP"])
    def test_a_damaged_file_is_read_or_the_clients_error(self, kind: str) -> None:
        data = encode(PICTURE.quantize(64) if kind == "GIF" else PICTURE, kind)
        rng = random.Random(6)
        for _ in range(300):
            damaged = bytearray(data)
            for _ in range(rng.randrange(1, 6)):
                damaged[rng.randrange(min(400, len(data)))] = rng.choice((0, 1, 127, 255))
            try:
                header = read(bytes(damaged))
            except (TooCostly, TooManyPixels, UndecodableImage, UnsupportedMediaType):
                continue
            assert header.width * header.height <= Limits().pixels


DECODING = """
import sys
from app import image_header, images
from app.image_header import read

def most():
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

small, large = (open(path, "rb").read() for path in sys.argv[1:])
images.decode(small)
before = most()
images.decode(large)
print(most() - before, read(large).peak_bytes)
"""
"""Prints the memory that decoding took, and the estimate."""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2400, 1800), (3600, 2700)], ids=["whole", "reduced"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {"compress_level": 1}),
        ("BMP", {}),
        ("HEIF", {}),
        ("AVIF", {"speed": 10}),
        ("TIFF", {}),
        ("WEBP", {"method": 0}),
        ("WEBP", {"lossless": True, "method": 0}),
        ("GIF", {}),
    ],
)
def test_decoding_takes_no_more_memory_than_estimated(
    kind: str, options: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    if not Path("/proc/self/status").exists():
        needs.absent("/proc, where memory is read")
    paths = []
    for width, height in ((64, 64), size):
        picture = smooth(width, height)
        paths.append(tmp_path / f"{width}")
        paths[-1].write_bytes(
            encode(picture.quantize(64) if kind == "GIF" else picture, kind, **options)
        )
    command = [sys.executable, "-c", DECODING, *map(str, paths)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent, estimate = map(int, output.split())
    assert spent <= estimate
    assert estimate < 4 * spent or kind == "JPEG"  # which is decoded at a reduced scale


def reading(data: bytes, error: type[Exception], message: str | None = None) -> Callable[[], None]:
    """A call that reads a file's header and is refused."""

    def read_it() -> None:
        with pytest.raises(error, match=message):
            read(data)

    return read_it


class TestLimits:
    @pytest.mark.parametrize(
        ("width", "height", "message"),
        [
            (49_000_000, 1, "49000000 x 1 pixels; the limit is 65535 on a side"),
            (1, 65_536, "1 x 65536 pixels; the limit is 65535 on a side"),
            (10_000, 5_001, "10000 x 5001 pixels; the limit is 50000000 in all"),
        ],
    )
    def test_sides_and_pixels(self, width: int, height: int, message: str) -> None:
        with pytest.raises(TooManyPixels, match=message):
            read(png(ihdr(width, height), (b"IDAT", b""), END))

    def test_a_long_and_narrow_picture_passes(self) -> None:
        assert read(png(ihdr(65_535, 700), (b"IDAT", b""), END)).width == 65_535

    @pytest.mark.parametrize("scans", [101, 3_000, 20_000])
    def test_scans(self, scans: int) -> None:
        refused = reading(progressive(scans), TooCostly, "more than 100 scans")
        assert megapixels(refused, enough=1) < 1

    def test_a_hundred_scans_pass(self) -> None:
        assert read(progressive(100)).scans == 100

    def test_a_progressive_photo_of_40_megapixels_passes(self) -> None:
        # The header of one: sizes set anew in the frame, scans as Pillow writes them.
        data = encode(PICTURE, "JPEG", progressive=True, quality=95, subsampling=0)
        frame = data.index(b"\xff\xc2") + 5
        large = data[:frame] + struct.pack(">HH", 5_200, 7_700) + data[frame + 4 :]
        header = read(large)
        assert (header.width, header.height, header.scans) == (7_700, 5_200, 10)
        # Beside the header, 20 MB of codes at 60 ns each.
        assert header.cost + 6 * 20_000_000 < Limits().cost

    def test_scans_hidden_behind_a_second_component_of_one_name(self) -> None:
        data = encode(PICTURE, "JPEG", subsampling=0)
        frame = data.index(b"\xff\xc0") + 10
        same = data[:frame] + b"\1\x11\0\1\x11\1\1\x11\1" + data[frame + 9 :]
        with pytest.raises(UndecodableImage, match="two components"):
            read(same)

    def test_a_lossless_webp_of_46_bytes_passes_by_its_cost(self) -> None:
        data = encode(Image.new("RGB", (7_000, 7_000)), "WEBP", lossless=True, method=0)
        assert len(data) < 100
        header = read(data)
        assert header.cost == pytest.approx(2 * 49_000_000, rel=0.01)
        with pytest.raises(TooCostly, match="98 megapixels of an ordinary JPEG; the limit"):
            read(data, Limits(cost=50_000_000))

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("bytes of fill", b"\xff\xd8" + b"\xff" * 20_000_000),
            ("fill and zeros", b"\xff\xd8\xff" + b"\xff\xff\0" * 6_000_000),
            ("empty segments", b"\xff\xd8" + b"\xff\xe1\0\2" * 5_000_000),
            ("lone markers", b"\xff\xd8\xff\1" + b"\xff\1" * 5_000_000),
            ("restart markers", b"\xff\xd8\xff" + b"\xd0\xff" * 10_000_000),
            ("empty chunks", png(ihdr(9, 9)) + b"\0\0\0\0tEXtxxxx" * 1_500_000),
            ("one byte a block", b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1x" * 10_000_000),
            ("small chunks", b"RIFF\0\0\0\0WEBP" + b"EXIF\0\0\0\0" * 2_000_000),
            ("small boxes", b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 2_000_000),
            ("empty extensions", b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\0" * 6_000_000),
            ("profiles", png(ihdr(9, 9), *[(b"iCCP", PROFILE)] * 5_000)),
            ("items of items", heic(box(b"iref", references(3_000, 1_000), full=True))),
        ],
    )
    def test_hostile_structure_costs_less_than_100_megapixels(self, name: str, data: bytes) -> None:
        assert megapixels(reading(data, UndecodableImage), enough=100) < 100, name

    # Without a limit on elements, the dearest would cost five times as much and more.
    @pytest.mark.parametrize(
        ("size", "most"),
        [
            (SMALL_BYTES, 2),
            (1 << 18, 4),
            pytest.param(20_000_000, 250, marks=pytest.mark.slow),
        ],
    )
    def test_the_smallest_elements_cost_little(self, size: int, most: float) -> None:
        """In megapixels of an ordinary JPEG."""

        def cost(data: bytes) -> float:
            def read_it() -> None:
                with contextlib.suppress(UndecodableImage):
                    read(data)

            return megapixels(read_it, enough=most)

        costs = {name: cost(data) for name, data in repeated(size).items()}
        assert {name: spent for name, spent in costs.items() if spent > most} == {}

    def test_the_codes_of_a_jpeg_full_of_stuffed_bytes(self) -> None:
        data = encode(PICTURE, "JPEG", progressive=True)
        start = data.index(b"\xff\xda") + 14
        stuffed = data[:start] + b"\xff\0" * 10_000_000 + data[start:]
        assert read(stuffed).scans == 10
        assert megapixels(lambda: read(stuffed), enough=100) < 100

    def test_a_heic_of_tiles_is_limited_by_their_sum(self) -> None:
        data = encode(smooth(200, 80), "HEIF", tile_size=64)
        tile, large = struct.pack(">II", 64, 64), struct.pack(">II", 7_000, 7_000)
        assert tile in data
        with pytest.raises(TooManyPixels, match="in tiles"):
            read(data.replace(tile, large))

    @pytest.mark.parametrize(("kind", "size"), [("HEIF", (120, 80)), ("AVIF", (120, 80))])
    def test_a_heic_that_announces_too_much(self, kind: str, size: tuple[int, int]) -> None:
        data = encode(PICTURE, kind)
        with pytest.raises(TooManyPixels, match="9000 x 8000"):
            read(data.replace(struct.pack(">II", *size), struct.pack(">II", 9_000, 8_000)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (b"\xff\x0a" + bytes(20), "a JPEG XL image"),
            (b"8BPS\0\1" + bytes(20), "a Photoshop document"),
            (b"%PDF-1.7\n", "a PDF document"),
            (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing"),
            (b"<svg></svg>", "an SVG drawing"),
            (b"\n<!DOCTYPE html><html>", "an HTML page"),
            (b'{"image": 1}', "JSON text"),
            (b"a photo of a dog", "text"),
            (gzip.compress(b"x", mtime=0), "a gzip archive"),
            (b"\0\0\0\x18ftypmp42" + bytes(20), "an MP4 video"),
            (b"\0\0\0\x14ftypqt  " + bytes(20), "a QuickTime video"),
            (b"\0\0\0\x14ftypabcd" + bytes(20), "an ISO media file of brand 'abcd'"),
            (b"RIFF\0\0\0\0WAVEfmt ", "a WAV audio file"),
            (b"RIFF\0\0\0\0AVI LIST", "an AVI video"),
            (b"/9j/4AAQSkZJRg", "a JPEG in Base64"),
            (b"data:image/png;base64,iVBO", "a data URL"),
            (b"P6 2 2 255\n" + bytes(12), "a Netpbm image"),
            (bytes(2) + b"\2" + bytes(9) + b"\x40\0\x30\0\x18\0" + bytes(99), "a Targa image"),
            (b"\0\0\2\0\1\0 \0" + bytes(20), "a Windows cursor"),
            (b"\0\1\2\3\4\5", "of an unknown format"),
            (b"", "of an unknown format"),
        ],
    )
    def test_the_format_is_named_with_those_that_are_taken(self, data: bytes, name: str) -> None:
        with pytest.raises(UnsupportedMediaType) as caught:
            read(data)
        assert str(caught.value).startswith(f"The file is {name}")
        assert str(caught.value).endswith("HEIC, AVIF, GIF, BMP and TIFF are supported.")

    @pytest.mark.parametrize("compression", ["jpeg", "group4"])
    def test_a_tiff_of_another_compression(self, compression: str) -> None:
        picture = PICTURE.convert("1") if compression == "group4" else PICTURE
        with pytest.raises(UnsupportedMediaType, match="compression"):
            read(encode(picture, "TIFF", compression=compression))

    def test_a_bmp_of_run_lengths(self) -> None:
        data = bytearray(encode(PICTURE.quantize(16), "BMP"))
        data[30] = 1
        with pytest.raises(UnsupportedMediaType, match="RLE8"):
            read(bytes(data))

    def test_a_raw_photo_in_tiffs_form(self) -> None:
        data = encode(PICTURE, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
        with pytest.raises(UnsupportedMediaType, match="raw photo"):
            read(data)

    @pytest.mark.parametrize(("cut", "share"), [(1, 99), (3_000, 99), (10_500, 98), (10_501, 97)])
    def test_rows_that_are_missing_at_the_end_of_strips(self, cut: int, share: int) -> None:
        # 46 strips of 8 rows, and one of 7, which has 7 x 1,500 bytes.
        data = encode(smooth(500, 375), "TIFF", tiffinfo={278: 8})
        with pytest.raises(UndecodableImage, match=f"cut short: {share} % of its rows"):
            read(data[:-cut])

    @pytest.mark.parametrize("kind", ["BMP", "TIFF"])
    def test_rows_that_are_missing_are_told_as_a_share(self, kind: str) -> None:
        data = encode(Image.new("RGB", (100, 100)), kind)
        with pytest.raises(UndecodableImage, match=r"cut short: 7[45] % of its rows"):
            read(data[: len(data) * 3 // 4])

    def test_a_tiff_of_one_packed_strip_has_no_known_share(self) -> None:
        data = bytearray(encode(PICTURE, "TIFF", compression="tiff_lzw"))
        (directory,) = struct.unpack_from("<I", data, 4)
        # The strip has, by its directory, more bytes than there are.
        place = data.index(struct.pack("<H", 279), directory)
        struct.pack_into("<HHII", data, place, 279, 4, 1, 1_000_000)
        with pytest.raises(UndecodableImage, match="cut short: not all of its rows"):
            read(bytes(data))

    def test_a_png_whose_header_fails_its_checksum(self) -> None:
        with pytest.raises(UndecodableImage, match="header"):
            read(png(ihdr(1, 1), (b"IDAT", zlib.compress(b"\0\1\2\3")), END, spoilt=b"IHDR"))

    def test_a_jpeg_of_twelve_bits(self) -> None:
        frame = segment(0xC1, struct.pack(">BHHB", 12, 8, 8, 1) + b"\1\x11\0")
        with pytest.raises(UnsupportedMediaType, match="12 bits"):
            read(b"\xff\xd8" + frame + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\xff\xd9")


def test_many_scans_in_the_wild_case() -> None:
    data = shared("cases/jpeg-3000-scans.jpg").read_bytes()
    with pytest.raises(TooCostly, match="scans"):
        read(data)


def test_photos_pass() -> None:
    for path in sorted(shared("photos").glob("*.JPEG"))[:20]:
        data = path.read_bytes()
        header = read(data)
        with Image.open(path) as image:
            assert (header.width, header.height) == image.size
        assert header.cost < 10 * np.prod(image.size)
