import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from app import colour
from app.colour import to_srgb, transform_from
from app.images import decode
from tests.app.encoded import END, NOISE, encode, ihdr, png, smooth
from tests.needs import shared

Floats = npt.NDArray[np.float64]

# Primaries and white as x, y.
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
SWAPPED = (SRGB[1], SRGB[2], SRGB[0])
D65 = (0.3127, 0.3290)
D50 = np.array([0.9642, 1.0, 0.8249])

PICTURE = smooth(96, 64)
SRGB_PIXELS = np.asarray(PICTURE).astype(int)


def _xyz(point: Sequence[float]) -> Floats:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_d50(primaries: Sequence[Sequence[float]], white: Sequence[float] = D65) -> Floats:
    """From linear RGB to XYZ under D50, by Bradford's adaptation: the columns of a profile."""
    columns = np.stack([_xyz(point) for point in primaries], axis=1)
    columns *= np.linalg.solve(columns, _xyz(white))
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    gain = np.diag((cone @ D50) / (cone @ _xyz(white)))
    adapted: Floats = np.linalg.solve(cone, gain @ cone @ columns)
    return adapted


def matrix_profile(matrix: Floats, gamma: float) -> bytes:
    """An ICC profile (version 2) of a matrix and one curve."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(4 + 4 + 2 + 1 + 67 + 1)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": b"", b"rTRC": curve}
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), b"gTRC": curve, b"bTRC": curve}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + fixed(*column)
    place = 128 + 4 + 12 * len(tags)
    table, values = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(values), len(value))
        values += value + bytes(-len(value) % 4)
    size = place + len(values)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(*D50)
    return header.ljust(128, b"\0") + table + values


def stored(primaries: Sequence[Sequence[float]], gamma: float = 2.2) -> npt.NDArray[np.uint8]:
    """PICTURE's sRGB colours as a file with these primaries stores them, by hand."""
    light = SRGB_PIXELS / 255
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    other = linear @ np.linalg.solve(to_d50(primaries), to_d50(SRGB)).T
    pixels: npt.NDArray[np.uint8] = np.rint(255 * other.clip(0, 1) ** (1 / gamma)).astype(np.uint8)
    return pixels


PROFILES = {
    name: matrix_profile(to_d50(primaries), gamma)
    for name, primaries, gamma in (
        ("display p3", DISPLAY_P3, 2.2),
        ("prophoto", PROPHOTO, 1.8),
        ("swapped", SWAPPED, 2.2),
    )
}
STORED = {
    "display p3": stored(DISPLAY_P3),
    "prophoto": stored(PROPHOTO, 1.8),
    "swapped": stored(SWAPPED),
}


QUALITY: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 95, "speed": 8},
    "HEIF": {"quality": 95},
}


class TestProfilesOfFiles:
    @pytest.mark.parametrize("name", PROFILES)
    @pytest.mark.parametrize(
        ("kind", "tolerance"),
        [("PNG", 4), ("TIFF", 4), ("WEBP", 4), ("JPEG", 12), ("AVIF", 18), ("HEIF", 26)],
    )
    def test_the_srgb_colours_come_back(self, kind: str, tolerance: int, name: str) -> None:
        options = QUALITY.get(kind, {})
        data = encode(STORED[name], kind, icc_profile=PROFILES[name], **options)
        pixels = decode(data).pixels.astype(int)
        error = np.abs(pixels - SRGB_PIXELS)
        assert np.percentile(error, 99) <= tolerance
        assert error.mean() < tolerance / 4
        plain = decode(encode(STORED[name], kind, **options)).pixels.astype(int)
        assert np.abs(plain - SRGB_PIXELS).mean() > 2 * error.mean()

    def test_transparency_is_laid_over_white_after_the_conversion(self) -> None:
        rgba = np.dstack([STORED["swapped"], np.full((64, 96), 128, np.uint8)])
        pixels = decode(encode(rgba, "PNG", icc_profile=PROFILES["swapped"])).pixels
        expected = SRGB_PIXELS * (128 / 255) + 255 * (127 / 255)
        np.testing.assert_allclose(pixels, expected, atol=4)

    def test_a_palette(self) -> None:
        palette = Image.new("P", (2, 1))
        palette.putpalette([200, 30, 30, 30, 200, 30])
        palette.putpixel((1, 0), 1)
        pixels = decode(encode(palette, "PNG", icc_profile=PROFILES["swapped"])).pixels
        # Stored red stands for green, and stored green for blue.
        assert pixels.argmax(axis=-1).tolist() == [[1, 2]]

    def test_greys_with_a_profile_of_greys(self) -> None:
        grey = NOISE[..., 0]
        pixels = decode(encode(grey, "PNG", icc_profile=grey_profile())).pixels
        light = (grey / 255) ** 1.5
        srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(pixels[..., 0], 255 * srgb, atol=2.5)
        np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])

    def test_greys_with_a_profile_of_colours_stay_grey(self) -> None:
        pixels = decode(encode(NOISE[..., 0], "PNG", icc_profile=PROFILES["swapped"])).pixels
        assert np.ptp(pixels.astype(int), axis=-1).max() <= 1

    def test_a_profile_of_another_colour_space_is_ignored(self) -> None:
        plain = decode(encode(NOISE, "PNG")).pixels
        grey = decode(encode(NOISE, "PNG", icc_profile=grey_profile())).pixels
        np.testing.assert_array_equal(grey, plain)

    def test_an_srgb_profile_changes_nothing(self) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for kind in ("PNG", "JPEG"):
            plain, tagged = encode(NOISE, kind), encode(NOISE, kind, icc_profile=profile)
            np.testing.assert_array_equal(decode(tagged).pixels, decode(plain).pixels)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_a_broken_profile_is_ignored(self, kind: str) -> None:
        plain = decode(encode(NOISE, kind)).pixels
        whole = PROFILES["swapped"]
        rng = np.random.default_rng(1)
        broken = [b"", b"garbage" * 50, whole[:200], whole[:-40], whole[:16] + b"Lab " + whole[20:]]
        for _ in range(8):
            noise = rng.integers(0, 256, 300, np.uint8).tobytes()
            broken.append(whole[:128] + noise + whole[428:])
        for profile in broken:
            pixels = decode(encode(NOISE, kind, icc_profile=profile)).pixels
            assert pixels.shape == plain.shape
        for profile in broken[:3]:
            np.testing.assert_array_equal(
                decode(encode(NOISE, kind, icc_profile=profile)).pixels, plain
            )

    def test_a_profile_that_inflates_without_end_is_ignored(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in NOISE)
        body = b"x\0\0" + zlib.compress(PROFILES["swapped"] + bytes(100_000_000))
        data = png(ihdr(48, 64), (b"iCCP", body), (b"IDAT", zlib.compress(rows)), END)
        np.testing.assert_array_equal(decode(data).pixels, NOISE)


def grey_profile() -> bytes:
    """An ICC profile of greys, lighter than sRGB's."""
    whole = matrix_profile(to_d50(SRGB), 1.5)
    grey = whole[:16] + b"GRAY" + whole[20:]
    return grey.replace(b"rTRC", b"kTRC")


class TestToSrgb:
    def test_cmyk_without_a_profile(self) -> None:
        ink = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
        assert to_srgb(ink, None).getpixel((0, 0)) == (0, 255, 255)

    def test_nothing_is_copied_without_a_profile(self) -> None:
        image = Image.new("RGB", (2, 2))
        assert to_srgb(image, None) is image

    def test_the_profile_of_the_library_is_read_as_ours_is(self) -> None:
        # The writer of this test against LittleCMS's own.
        profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES["display p3"]))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        expected = ImageCms.applyTransform(Image.fromarray(STORED["display p3"]), transform)
        assert expected is not None
        ours = transform_from(PROFILES["display p3"])
        converted = to_srgb(Image.fromarray(STORED["display p3"]), ours)
        np.testing.assert_allclose(np.asarray(converted), np.asarray(expected), atol=1)


class TestCache:
    def test_transforms_of_common_profiles_are_kept(self) -> None:
        assert transform_from(PROFILES["swapped"]) is transform_from(PROFILES["swapped"])

    def test_few_are_kept(self) -> None:
        for number in range(100):
            assert transform_from(PROFILES["swapped"] + bytes(number + 1))
        assert len(colour._cache) <= 32

    @pytest.mark.parametrize(
        "profile",
        [
            PROFILES["swapped"] + bytes(4_000_000),
            PROFILES["swapped"][:128] + bytes(30_000),
        ],
        ids=["large", "unusable"],
    )
    def test_large_and_unusable_profiles_are_not_kept(self, profile: bytes) -> None:
        before = set(colour._cache)
        transform_from(profile)
        assert set(colour._cache) == before


def test_display_p3_in_the_wild_case() -> None:
    photo = decode(shared("photos/n02093754_Border_terrier.JPEG").read_bytes()).pixels.astype(int)
    tagged = decode(shared("cases/icc-p3.jpg").read_bytes()).pixels.astype(int)
    # Encoded twice: what is left is the noise of JPEG, not a cast.
    difference = tagged - photo
    assert np.abs(difference.mean(axis=(0, 1))).max() < 1
    assert np.abs(difference).mean() < 6
