"""Photos as they arrive: odd metadata, transparency of each kind, ends that are missing."""

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.errors import UndecodableImage
from app.images import decode
from tests.app.encoded import END, NOISE, encode, ihdr, oriented, png, segment, smooth
from tests.needs import shared

PICTURE = smooth(96, 64)
PIXELS = np.asarray(PICTURE)

# What a viewer does with the stored rows and columns for each of EXIF's orientations.
TURNS: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def odd_exif(seed: int, orientation: int) -> bytes:
    """A TIFF structure with tags of any type, count and place, and an orientation among them."""
    rng = random.Random(seed)
    order = rng.choice("<>")
    tags = {rng.randrange(0x100, 0xFFFF) for _ in range(rng.randrange(12))}
    tags |= {0x011A, 0x011B, 0x0128, 0x8769, 0x8825, 0x9286, 0x0112}
    entries = b""
    for tag in sorted(tags) if rng.random() < 0.8 else tags:
        kind, count = rng.randrange(14), rng.choice((0, 1, 2, 1000, 0xFFFFFFFF))
        value = rng.randbytes(4)
        if tag == 0x0112:
            kind, count = rng.choice((3, 4)), 1
            value = struct.pack(order + {3: "Hxx", 4: "I"}[kind], orientation)
        entries += struct.pack(order + "HHI", tag, kind, count) + value
    head = b"II*\0" if order == "<" else b"MM\0*"
    head += struct.pack(order + "I", 8) + struct.pack(order + "H", len(entries) // 12)
    return head + entries + rng.randbytes(rng.randrange(60))


def with_exif(kind: str, exif: bytes) -> bytes:
    if kind == "JPEG":
        data = encode(PICTURE, "JPEG", quality=95, subsampling=0)
        return data[:2] + segment(0xE1, b"Exif\0\0" + exif) + data[2:]
    if kind == "PNG":
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
        return png(ihdr(96, 64), (b"eXIf", exif), (b"IDAT", zlib.compress(rows)), END)
    data = encode(PICTURE, "WEBP", lossless=True, exif=oriented(1))
    start = data.index(b"EXIF")
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) & 1)
    whole = data[12:start] + chunk
    return b"RIFF" + struct.pack("<I", 4 + len(whole)) + b"WEBP" + whole


class TestOddExif:
    @pytest.mark.parametrize("orientation", TURNS)
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_the_orientation_counts_whatever_the_other_tags_are(
        self, kind: str, orientation: int
    ) -> None:
        expected = TURNS[orientation](PIXELS.astype(int))
        for seed in range(25):
            photo = decode(with_exif(kind, odd_exif(seed, orientation)))
            assert (photo.height, photo.width) == expected.shape[:2]
            np.testing.assert_allclose(photo.pixels, expected, atol=8 if kind == "JPEG" else 0)

    def test_any_tag_of_any_type(self) -> None:
        for tag in (0x011A, 0x0128, 0x0112, 0x010F, 0x8769):
            for kind in range(14):
                entry = struct.pack("<HHII", tag, kind, 1, 0xFFFFFFF0)
                turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
                exif = b"II*\0\x08\0\0\0\x02\0" + entry + turned
                photo = decode(with_exif("JPEG", exif))
                if tag != 0x0112:
                    assert (photo.width, photo.height) == (64, 96)

    @pytest.mark.parametrize("orientation", TURNS)
    def test_avif_turns_by_its_own_boxes(self, orientation: int) -> None:
        photo = decode(encode(PICTURE, "AVIF", quality=95, speed=8, exif=oriented(orientation)))
        expected = TURNS[orientation](PIXELS.astype(int))
        assert (photo.height, photo.width) == expected.shape[:2]
        assert np.abs(photo.pixels - expected).mean() < 3

    @pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
    def test_a_broken_exif_block_in_a_box(self, kind: str) -> None:
        exif = Image.Exif()
        exif[0x010F] = "x" * 60
        data = encode(PICTURE, kind, exif=exif)
        start = data.index(b"x" * 60)
        plain = decode(data).pixels
        # From the tags on, nothing makes sense.
        broken = data[: start - 24] + b"\xff" * 80 + data[start + 56 :]
        np.testing.assert_array_equal(decode(broken).pixels, plain)

    def test_tiff_turns_by_its_tag(self) -> None:
        for orientation, turn in TURNS.items():
            photo = decode(encode(PICTURE, "TIFF", tiffinfo={0x0112: orientation}))
            np.testing.assert_array_equal(photo.pixels, turn(PIXELS))


class TestMetadata:
    @pytest.mark.parametrize("size", [10, 70_000, 1_500_000, 9_000_000])
    @pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"prVt"])
    def test_a_png_of_much_text(self, kind: bytes, size: int) -> None:
        text = b"Comment\0" + b"x" * size
        if kind == b"zTXt":
            text = b"Comment\0\0" + zlib.compress(b"x" * size)
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
        pixels = (b"IDAT", zlib.compress(rows))
        for chunks in ([(kind, text), pixels], [pixels, (kind, text)]):
            data = png(ihdr(96, 64), *chunks, END)
            np.testing.assert_array_equal(decode(data).pixels, PIXELS)

    @pytest.mark.parametrize("marker", range(0xE0, 0xF0))
    def test_a_jpeg_of_many_segments(self, marker: int) -> None:
        plain = encode(PICTURE, "JPEG")
        extra = segment(marker, b"whatever\0" * 7_000) * 20
        np.testing.assert_array_equal(
            decode(plain[:2] + extra + plain[2:]).pixels, decode(plain).pixels
        )

    @pytest.mark.parametrize(
        "kind", [b"tEXt", b"gAMA", b"pHYs", b"iCCP", b"eXIf", b"tRNS", b"abCd"]
    )
    @pytest.mark.parametrize("late", [False, True])
    def test_a_wrong_checksum_on_an_ancillary_chunk(self, kind: bytes, late: bool) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
        pixels, extra = (b"IDAT", zlib.compress(rows)), (kind, b"k\0" + bytes(10))
        chunks = [pixels, extra] if late else [extra, pixels]
        data = png(ihdr(96, 64), *chunks, END, spoilt=kind)
        np.testing.assert_array_equal(decode(data).pixels, PIXELS)


def packed(samples: npt.NDArray[Any], depth: int) -> bytes:
    """Rows of a PNG without filters: samples of `depth` bits, the first in the highest bits."""
    rows = []
    for row in samples.reshape(len(samples), -1):
        bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows.append(b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes())
    return zlib.compress(b"".join(rows))


class TestTransparentColour:
    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("interlaced", [0, 1])
    def test_greys(self, depth: int, interlaced: int) -> None:
        rng = np.random.default_rng(depth)
        most = (1 << depth) - 1
        shape = (1, 1) if interlaced else (9, 13)  # one pixel: all in the first pass
        samples = rng.integers(0, most + 1, shape).astype(np.int64)
        if depth == 16 and not interlaced:
            samples[:, :4] = [0x1234, 0x1235, 0x1334, 0x1234]  # of the same high byte, or low byte
        clear = int(samples[0, 0])
        data = png(
            ihdr(shape[1], shape[0], depth=depth, colour=0, interlaced=interlaced),
            (b"tRNS", struct.pack(">H", clear)),
            (b"IDAT", packed(samples, depth)),
            END,
        )
        expected = np.where(samples == clear, 255, samples * 255 / most)
        pixels = decode(data).pixels
        np.testing.assert_allclose(pixels[..., 0], expected, atol=1)
        assert (pixels[samples == clear] == 255).all()

    @pytest.mark.parametrize("depth", [8, 16])
    def test_colours(self, depth: int) -> None:
        samples = np.random.default_rng(2).integers(0, 4, (9, 13, 3)).astype(np.int64)
        samples = samples * 0x0101 if depth == 16 else samples
        if depth == 16:
            samples[0, :3] = [[0x0102] * 3, [0x0103, 0x0102, 0x0102], [0x0202] * 3]
        clear = samples[0, 0]
        data = png(
            ihdr(13, 9, depth=depth),
            (b"tRNS", struct.pack(">HHH", *clear)),
            (b"IDAT", packed(samples, depth)),
            END,
        )
        same = (samples == clear).all(axis=-1)
        assert 0 < same.sum() < same.size
        shown = samples >> 8 if depth == 16 else samples
        np.testing.assert_array_equal(decode(data).pixels, np.where(same[..., None], 255, shown))

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_palettes(self, depth: int) -> None:
        count = 1 << depth
        rng = np.random.default_rng(depth)
        palette = rng.integers(0, 256, (count, 3))
        opacity = rng.integers(0, 256, count)
        indices = rng.integers(0, count, (9, 13)).astype(np.int64)
        data = png(
            ihdr(13, 9, depth=depth, colour=3),
            (b"PLTE", palette.astype(np.uint8).tobytes()),
            (b"tRNS", opacity.astype(np.uint8).tobytes() + b"more than the palette has" * 20),
            (b"IDAT", packed(indices, depth)),
            END,
        )
        alpha = opacity[indices][..., None] / 255
        expected = palette[indices] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(decode(data).pixels, expected, atol=1)

    @pytest.mark.parametrize("colour", [4, 6])
    def test_sixteen_bits_with_an_alpha_channel(self, colour: int) -> None:
        samples = np.random.default_rng(1).integers(0, 65_536, (9, 13, {4: 2, 6: 4}[colour]))
        data = png(ihdr(13, 9, depth=16, colour=colour), (b"IDAT", packed(samples, 16)), END)
        alpha = samples[..., -1:] / 65_535
        expected = samples[..., :-1] / 257 * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(
            decode(data).pixels, np.broadcast_to(expected, (9, 13, 3)), atol=2.5
        )

    def test_a_wrong_checksum_makes_it_void(self) -> None:
        data = png(
            ihdr(13, 9, colour=0),
            (b"tRNS", b"\0\x07"),
            (b"IDAT", packed(np.full((9, 13), 7), 8)),
            END,
            spoilt=b"tRNS",
        )
        assert (decode(data).pixels == 7).all()


class TestMissingEnds:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"progressive": True},
            {"restart_marker_blocks": 3},
            {"restart_marker_rows": 1},
            {"quality": 100, "subsampling": 0},
        ],
    )
    @pytest.mark.parametrize(
        "trailer",
        [b"", b"\0" * 9, b"SEFHx" * 900 + b"SEFT", b"\xff\xe1\xff\xff", b"\xff\xd8\xff\xe0\0\4ab"],
    )
    def test_a_jpeg_without_its_end_marker(self, options: dict[str, Any], trailer: bytes) -> None:
        whole = encode(PICTURE, "JPEG", **options)
        pixels = decode(whole).pixels
        np.testing.assert_array_equal(decode(whole[:-2] + trailer).pixels, pixels)
        np.testing.assert_array_equal(decode(whole + trailer).pixels, pixels)

    @pytest.mark.parametrize("picture", [PICTURE, Image.new("RGB", (96, 64), (128, 128, 128))])
    @pytest.mark.parametrize(
        "options", [{}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]
    )
    def test_a_jpeg_that_lacks_rows(self, picture: Image.Image, options: dict[str, Any]) -> None:
        whole = encode(picture, "JPEG", quality=95, **options)
        start = whole.index(b"\xff\xda") + 14
        for share in (0.0, 0.3, 0.7, 0.9):
            cut = start + int(share * (len(whole) - start))
            with pytest.raises(UndecodableImage, match=r"cut short: \d+ % of its rows") as caught:
                decode(whole[:cut], side=1)
            percent = int(str(caught.value).split(": ")[1].split(" ")[0])
            # Rows come 16 at a time.
            assert percent in (0, 25, 50, 75)
            assert abs(percent / 100 - share) <= 0.35

    def test_a_progressive_jpeg_that_lacks_scans(self) -> None:
        whole = encode(PICTURE, "JPEG", progressive=True, quality=95)
        starts = [n for n in range(len(whole)) if whole[n : n + 2] == b"\xff\xda"]
        for cut in (*starts[1:], *range(starts[0] + 20, len(whole) - 30, len(whole) // 12)):
            with pytest.raises(UndecodableImage, match=r"cut short: not all scans"):
                decode(whole[:cut])

    def test_a_png_whose_pixels_lack_their_checksum(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
        body = zlib.compress(rows)
        for cut in range(1, 5):
            whole = png(ihdr(96, 64), (b"IDAT", body[:-cut]), END)
            np.testing.assert_array_equal(decode(whole).pixels, PIXELS)
        whole = png(ihdr(96, 64), (b"IDAT", body), END)
        for cut in range(1, 20):
            np.testing.assert_array_equal(decode(whole[:-cut]).pixels, PIXELS)

    @pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.99])
    def test_a_png_that_lacks_rows(self, share: float) -> None:
        whole = encode(NOISE, "PNG")
        start = whole.index(b"IDAT") + 4
        with pytest.raises(UndecodableImage, match=r"cut short: \d+ % of its rows") as caught:
            decode(whole[: start + int(share * (len(whole) - start - 16))])
        percent = int(str(caught.value).split(": ")[1].split(" ")[0])
        assert abs(percent - 100 * share) <= 5

    def test_a_webp_cut_behind_its_pixels(self) -> None:
        whole = encode(PICTURE, "WEBP", lossless=True, exif=oriented(1))
        start = whole.index(b"EXIF")
        for cut in (start, start + 5, start + 12):
            np.testing.assert_array_equal(decode(whole[:cut]).pixels, PIXELS)


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("kind", "options", "error"),
        [
            ("HEIF", {"quality": 90}, 6.0),
            ("HEIF", {"quality": 90, "tile_size": 64}, 6.0),
            ("AVIF", {"quality": 90, "speed": 8}, 4.0),
            ("TIFF", {"compression": "tiff_lzw"}, 0.0),
            ("TIFF", {"compression": "tiff_adobe_deflate"}, 0.0),
            ("TIFF", {"compression": "packbits"}, 0.0),
            ("TIFF", {"big_tiff": False}, 0.0),
            ("BMP", {}, 0.0),
        ],
    )
    def test_colours(self, kind: str, options: dict[str, Any], error: float) -> None:
        photo = decode(encode(PICTURE, kind, **options))
        assert (photo.width, photo.height) == PICTURE.size
        assert np.abs(photo.pixels.astype(int) - PIXELS).mean() <= error

    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
    @pytest.mark.parametrize("mode", ["1", "L", "P"])
    def test_palettes_and_greys(self, kind: str, mode: str) -> None:
        image = PICTURE.quantize(16) if mode == "P" else PICTURE.convert(mode)
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode(encode(image, kind)).pixels, expected)

    @pytest.mark.parametrize("mode", ["I;16", "RGBA", "CMYK"])
    def test_other_modes_of_tiff(self, mode: str) -> None:
        if mode == "I;16":
            image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
            expected = np.stack([PIXELS[..., 0]] * 3, axis=-1)
        elif mode == "RGBA":
            image = Image.fromarray(np.dstack([PIXELS, np.full((64, 96), 51, np.uint8)]))
            expected = np.rint(PIXELS * 0.2 + 255 * 0.8).astype(np.uint8)
        else:
            image = PICTURE.convert("CMYK")
            expected = PIXELS
        np.testing.assert_allclose(decode(encode(image, "TIFF")).pixels, expected, atol=1)

    def test_a_gif_of_a_transparent_colour(self) -> None:
        image = PICTURE.quantize(8)
        clear = image.getpixel((0, 0))
        pixels = decode(encode(image, "GIF", transparency=clear)).pixels
        expected = np.asarray(image.convert("RGB")).copy()
        expected[np.asarray(image) == clear] = 255
        np.testing.assert_array_equal(pixels, expected)

    def test_a_gif_with_comments_and_many_frames(self) -> None:
        frames = [Image.new("P", (9, 7), index) for index in range(5)]
        for frame in frames:
            frame.putpalette([10, 20, 30, 200, 100, 50] + [0] * 750)
        whole = encode(
            frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"x" * 3000
        )
        assert (decode(whole).pixels == [10, 20, 30]).all()

    def test_the_primary_image_of_a_heic(self) -> None:
        first, second = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 96), "blue")
        data = encode(first, "HEIF", save_all=True, append_images=[second], primary_index=1)
        photo = decode(data)
        assert (photo.width, photo.height) == (64, 96)
        assert photo.pixels.reshape(-1, 3).mean(axis=0).argmax() == 2


@pytest.mark.parametrize(
    "name", ["exif-rational-8965.jpg", "exif-short-as-long.jpg", "jpeg-no-eoi.jpg", "icc-p3.jpg"]
)
def test_cases_of_the_border_terrier(name: str) -> None:
    photo = decode(shared("photos/n02093754_Border_terrier.JPEG").read_bytes())
    case = decode(shared(f"cases/{name}").read_bytes())
    assert (case.width, case.height) == (photo.width, photo.height) == (500, 375)
    assert np.abs(case.pixels.astype(int) - photo.pixels).mean() < 5


def test_case_of_a_wrong_checksum() -> None:
    photo = decode(shared("photos/n02093754_Border_terrier.JPEG").read_bytes())
    case = decode(shared("cases/png-bad-ancillary-crc.png").read_bytes())
    np.testing.assert_array_equal(case.pixels, photo.pixels)


def test_case_of_much_text() -> None:
    photo = decode(shared("cases/png-large-text.png").read_bytes())
    assert (photo.width, photo.height) == (250, 188)


@pytest.mark.parametrize("name", ["png-4bit-grey-trns.png", "png-16bit-rgb-trns.png"])
def test_cases_of_transparency(name: str) -> None:
    pixels = decode(shared(f"cases/{name}").read_bytes()).pixels
    white = (pixels == 255).all(axis=-1)
    assert white.mean() == pytest.approx(0.5, abs=0.01)
    assert white.all(axis=0).sum() + white.all(axis=1).sum() == 128
