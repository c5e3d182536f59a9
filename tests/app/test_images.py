import io
import struct
import warnings
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.errors import (
    BoxOutsideImage,
    TooManyPixels,
    UndecodableImage,
    UnsupportedMediaType,
)
from app.images import Box, Photo, clip_box, decode, enough_for, fit, scale_box, scale_point, squash
from benchmarks import pictures
from tests.app.encoded import END, NOISE, encode, ihdr, oriented, png

Pixels = npt.NDArray[np.uint8]

COLOURS = {
    "a": (255, 0, 0),
    "b": (0, 255, 0),
    "c": (0, 0, 255),
    "d": (255, 255, 0),
    "e": (0, 255, 255),
    "f": (255, 0, 255),
}

STORED = "abc/def"
# How a viewer shows STORED, from the EXIF standard's words for where row 0 and column 0 lie.
UPRIGHT = {
    1: "abc/def",  # top, left
    2: "cba/fed",  # top, right
    3: "fed/cba",  # bottom, right
    4: "def/abc",  # bottom, left
    5: "ad/be/cf",  # left, top
    6: "da/eb/fc",  # right, top
    7: "fc/eb/da",  # right, bottom
    8: "cf/be/ad",  # left, bottom
}


def paint(plan: str, cell: int = 1) -> Pixels:
    """A picture of `cell` x `cell` squares, one a letter."""
    rows = [[COLOURS[letter] for letter in row] for row in plan.split("/")]
    return np.array(rows, np.uint8).repeat(cell, 0).repeat(cell, 1)


class TestOrientation:
    @pytest.mark.parametrize("value", UPRIGHT)
    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
    )
    def test_lossless_formats_come_out_upright_to_the_pixel(
        self, kind: str, options: dict[str, Any], value: int
    ) -> None:
        photo = decode(encode(paint(STORED), kind, exif=oriented(value), **options))
        expected = paint(UPRIGHT[value])
        np.testing.assert_array_equal(photo.pixels, expected)
        assert (photo.height, photo.width) == expected.shape[:2]

    @pytest.mark.parametrize("value", UPRIGHT)
    def test_a_jpeg_comes_out_upright(self, value: int) -> None:
        data = encode(paint(STORED, 16), "JPEG", quality=95, subsampling=0, exif=oriented(value))
        photo = decode(data)
        expected = paint(UPRIGHT[value], 16)
        assert (photo.height, photo.width) == expected.shape[:2]
        np.testing.assert_allclose(photo.pixels.astype(int), expected.astype(int), atol=4)

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_a_value_that_does_not_exist_turns_nothing(self, value: int) -> None:
        photo = decode(encode(NOISE, "PNG", exif=oriented(value)))
        np.testing.assert_array_equal(photo.pixels, NOISE)

    def test_an_exif_block_after_the_pixels_counts(self) -> None:
        rows = b"".join(b"\0" + bytes(row) for row in paint(STORED).reshape(2, 9))
        data = png(
            ihdr(3, 2),
            (b"IDAT", zlib.compress(rows)),
            (b"eXIf", oriented(6).tobytes().removeprefix(b"Exif\0\0")),
            END,
        )
        photo = decode(data)
        np.testing.assert_array_equal(photo.pixels, paint(UPRIGHT[6]))
        assert (photo.width, photo.height) == (2, 3)

    @pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
    @pytest.mark.parametrize(
        "body",
        [b"garbage!", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff nothing"],
        ids=["no header", "cut short", "pointer to nowhere", "entries that are not there"],
    )
    def test_a_broken_exif_block_does_not_cost_the_photo(self, body: bytes) -> None:
        intact = decode(encode(NOISE, "JPEG"))
        broken = decode(encode(NOISE, "JPEG", exif=b"Exif\0\0" + body))
        np.testing.assert_array_equal(broken.pixels, intact.pixels)


class TestModes:
    def test_a_cmyk_jpeg_is_shown_in_rgb(self) -> None:
        # Ink: none, cyan, magenta, yellow, black; the light that is left is 255 - ink.
        inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]
        lights = [(255, 255, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)]
        cells = np.array([inks], np.uint8).repeat(16, 0).repeat(16, 1)
        photo = decode(encode(Image.fromarray(cells, "CMYK"), "JPEG", quality=100))
        expected = np.array([lights], np.uint8).repeat(16, 0).repeat(16, 1)
        np.testing.assert_allclose(photo.pixels.astype(int), expected.astype(int), atol=3)

    def test_sixteen_bit_grey_keeps_its_range(self) -> None:
        ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
        photo = decode(encode(ramp * 257, "PNG"))
        np.testing.assert_array_equal(photo.pixels, np.stack([ramp] * 3, axis=-1))

    def test_sixteen_bit_colour_keeps_its_range(self) -> None:
        light = struct.pack(">3H", 0, 40000, 65535)
        data = png(ihdr(1, 1, depth=16), (b"IDAT", zlib.compress(b"\0" + light)), END)
        assert decode(data).pixels.tolist() == [[[0, 40000 // 256, 255]]]

    def test_grey_is_the_same_in_each_channel(self) -> None:
        grey = NOISE[..., 0]
        photo = decode(encode(grey, "PNG"))
        np.testing.assert_array_equal(photo.pixels, np.stack([grey] * 3, axis=-1))

    def test_black_and_white_is_0_and_255(self) -> None:
        bits = np.array([[True, False], [False, True]])
        photo = decode(encode(Image.fromarray(bits), "PNG"))
        assert photo.pixels[..., 0].tolist() == [[255, 0], [0, 255]]

    def test_a_transparent_palette_entry_shows_white(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((1, 0), 1)
        plain = decode(encode(image, "PNG"))
        assert plain.pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
        seen = decode(encode(image, "PNG", transparency=0))
        assert seen.pixels.tolist() == [[[255, 255, 255], [200, 100, 50]]]

    def test_transparency_is_laid_over_white(self) -> None:
        rgba = np.array(
            [[(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51), (0, 0, 0, 128)]], np.uint8
        )
        photo = decode(encode(rgba, "PNG"))
        colour, opacity = rgba[..., :3].astype(float), rgba[..., 3:] / 255
        over_white = colour * opacity + 255 * (1 - opacity)
        assert photo.pixels.shape == (1, 4, 3)
        np.testing.assert_allclose(photo.pixels, over_white, atol=1)
        assert photo.pixels[0, :2].tolist() == [[200, 100, 0], [255, 255, 255]]

    def test_grey_with_transparency_is_laid_over_white(self) -> None:
        photo = decode(encode(Image.new("LA", (1, 1), (40, 0)), "PNG"))
        assert photo.pixels.tolist() == [[[255, 255, 255]]]

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
    def test_of_an_animation_the_first_frame_is_taken(self, kind: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
        if kind == "WEBP":
            options["lossless"] = True
        data = encode(frames[0], kind, **options)
        with Image.open(io.BytesIO(data)) as image:
            assert getattr(image, "n_frames", 1) == 2
        assert decode(data).pixels.reshape(-1, 3).tolist() == [[255, 0, 0]] * 64

    def test_a_telephones_jpeg_of_several_pictures_gives_its_first(self) -> None:
        second = Image.new("RGB", (64, 64), "red")
        data = encode(NOISE, "MPO", save_all=True, append_images=[second])
        np.testing.assert_array_equal(decode(data).pixels, decode(encode(NOISE, "JPEG")).pixels)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_one_pixel_is_a_photo(self, kind: str) -> None:
        photo = decode(encode(Image.new("RGB", (1, 1), (128, 128, 128)), kind))
        assert (photo.width, photo.height) == (1, 1)
        np.testing.assert_allclose(photo.pixels.astype(int), [[[128] * 3]], atol=2)


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "name"), [("PPM", "Netpbm"), ("ICO", "icon"), ("PDF", "PDF"), ("JPEG2000", "2000")]
    )
    def test_other_formats_are_named(self, kind: str, name: str) -> None:
        with pytest.raises(UnsupportedMediaType, match=f"is an? .*{name}.*; JPEG, PNG, WebP, "):
            decode(encode(NOISE, kind))

    @pytest.mark.parametrize(
        "data", [b"", b"\0", b"<svg></svg>", b"garbage " * 1000, b"RIFF\0\0\0\0WAVEfmt "]
    )
    def test_garbage(self, data: bytes) -> None:
        with pytest.raises(UnsupportedMediaType):
            decode(data)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
    def test_a_file_cut_short(self, kind: str, share: float) -> None:
        data = encode(NOISE, kind)
        assert decode(data).pixels.shape == NOISE.shape
        with pytest.raises(UndecodableImage):
            decode(data[: max(12, int(len(data) * share))])

    def test_a_progressive_jpeg_cut_short(self) -> None:
        data = encode(NOISE, "JPEG", progressive=True)
        with pytest.raises(UndecodableImage):
            decode(data[: len(data) // 2])

    def test_pixels_that_fail_their_checksum(self) -> None:
        pixels = zlib.compress(b"\0\1\2\3")
        altered = pixels[:-1] + bytes([pixels[-1] ^ 1])
        assert decode(png(ihdr(1, 1), (b"IDAT", pixels), END)).pixels.tolist() == [[[1, 2, 3]]]
        with pytest.raises(UndecodableImage):
            decode(png(ihdr(1, 1), (b"IDAT", altered), END))

    def test_fewer_pixels_than_announced(self) -> None:
        with pytest.raises(UndecodableImage):
            decode(png(ihdr(100, 100), (b"IDAT", zlib.compress(b"\0\1\2\3")), END))

    def test_no_pixels_at_all(self) -> None:
        with pytest.raises(UndecodableImage):
            decode(png(ihdr(0, 7), (b"IDAT", zlib.compress(b"")), END))

    @pytest.mark.parametrize(
        ("width", "height"), [(20_000, 10_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1)]
    )
    def test_too_many_pixels_by_the_header_alone(self, width: int, height: int) -> None:
        # There is no pixel data: had any been looked for, the image would be undecodable.
        data = png(ihdr(width, height), (b"IDAT", b""), END)
        with pytest.raises(TooManyPixels, match=f"{width} x {height}"):
            decode(data)

    def test_a_jpeg_header_that_announces_too_much(self) -> None:
        data = encode(NOISE, "JPEG")
        frame = data.index(b"\xff\xc0") + 5
        huge = data[:frame] + struct.pack(">HH", 65_500, 65_500) + data[frame + 4 :]
        with pytest.raises(TooManyPixels, match="65500 x 65500"):
            decode(huge)

    def test_the_pixel_limit_is_inclusive(self) -> None:
        data = encode(NOISE, "PNG")
        assert decode(data, max_pixels=64 * 48).width == 48
        with pytest.raises(TooManyPixels):
            decode(data, max_pixels=64 * 48 - 1)

    @pytest.mark.parametrize(
        ("kind", "header"), [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")]
    )
    @pytest.mark.parametrize("late", [False, True])
    def test_a_chunk_that_is_a_decompression_bomb_is_left_out(
        self, kind: bytes, header: bytes, late: bool
    ) -> None:
        pixels = (b"IDAT", zlib.compress(b"\0\1\2\3"))

        def around(text: bytes) -> bytes:
            extra = (kind, header + zlib.compress(text))
            return png(ihdr(1, 1), *([pixels, extra] if late else [extra, pixels]), END)

        assert decode(around(b"a" * 1000)).pixels.tolist() == [[[1, 2, 3]]]
        assert decode(around(b"a" * 20_000_000)).pixels.tolist() == [[[1, 2, 3]]]

    def test_a_refusal_tells_nothing_of_the_decoder(self) -> None:
        with pytest.raises(UndecodableImage) as caught:
            decode(encode(NOISE, "PNG")[:1000])
        assert str(caught.value.__cause__) not in str(caught.value)
        assert "pillow" not in str(caught.value).lower()

    @settings(max_examples=150, deadline=None)
    @given(
        kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
        damage=st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
            min_size=1,
            max_size=12,
        ),
    )
    def test_a_damaged_file_is_a_photo_or_the_clients_error(
        self, kind: str, damage: list[tuple[float, int]]
    ) -> None:
        data = bytearray(DAMAGEABLE[kind])
        for place, value in damage:
            data[int(place * len(data))] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                photo = decode(bytes(data), max_pixels=100_000)
            except (TooManyPixels, UndecodableImage, UnsupportedMediaType):
                return
        assert photo.pixels.dtype == np.uint8
        assert photo.pixels.ndim == 3
        assert photo.pixels.shape[2] == 3


DAMAGEABLE = {
    kind: encode(NOISE, kind, exif=oriented(6), **options)
    for kind, options in {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}}.items()
}


class TestReducedScale:
    @pytest.mark.parametrize("value", UPRIGHT)
    def test_the_originals_size_is_told(self, value: int) -> None:
        data = encode(paint(STORED, 400), "JPEG", exif=oriented(value))
        photo = decode(data, side=100)
        expected = paint(UPRIGHT[value], 400)
        assert (photo.height, photo.width) == expected.shape[:2]
        # 1200 x 800 at an eighth.
        eighth = paint(UPRIGHT[value], 50)
        assert photo.pixels.shape == eighth.shape
        np.testing.assert_allclose(
            photo.pixels[25::50, 25::50].astype(int), eighth[25::50, 25::50].astype(int), atol=4
        )

    @settings(max_examples=40, deadline=None)
    @given(width=st.integers(8, 400), height=st.integers(8, 400), side=st.integers(1, 200))
    def test_the_smallest_scale_that_leaves_enough(
        self, width: int, height: int, side: int
    ) -> None:
        photo = decode(encode(Image.new("RGB", (width, height)), "JPEG"), side=side)
        shorter = min(width, height)
        enough = [scale for scale in (8, 4, 2, 1) if Fraction(shorter, scale) >= side]
        scale = enough[0] if enough else 1
        assert photo.pixels.shape == (-(-height // scale), -(-width // scale), 3)
        assert (photo.width, photo.height) == (width, height)

    def test_a_long_photo_keeps_its_shorter_side(self) -> None:
        photo = decode(encode(Image.new("RGB", (3200, 700)), "JPEG"), side=enough_for(224))
        assert photo.pixels.shape == (350, 1600, 3)

    @pytest.mark.parametrize("size", [(4032, 3024), (4000, 3000)])
    def test_an_eighth_of_12_megapixels_is_enough_for_256(self, size: tuple[int, int]) -> None:
        photo = decode(encode(Image.new("L", size), "JPEG"), side=enough_for(256))
        assert photo.pixels.shape == (size[1] // 8, size[0] // 8, 3)

    @pytest.mark.parametrize("scale", [2, 4, 8])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_the_input_is_that_of_a_full_decode(self, scale: int, progressive: bool) -> None:
        side = enough_for(64)  # so that nothing is reduced more
        picture = pictures.pixels(scale * (side * 4 // 3), scale * side)
        data = encode(picture, "JPEG", quality=90, progressive=progressive)
        photo = decode(data, side=side)
        assert photo.pixels.shape[0] == side
        with Image.open(io.BytesIO(data)) as image:
            expected = squash(np.asarray(image), 64)
        difference = np.abs(squash(photo.pixels, 64).astype(int) - expected)
        assert difference.mean() < 1  # of 255; 2.2 where half a photo has 64 px itself
        assert np.percentile(difference, 99) <= 4

    def test_other_formats_keep_1024_pixels(self) -> None:
        photo = decode(encode(NOISE, "PNG"), side=8)
        np.testing.assert_array_equal(photo.pixels, NOISE)
        for side, edge in ((2047, 2047), (2048, 1024), (4 * 1024 + 1, 1025)):
            photo = decode(encode(Image.new("L", (side, 4200)), "PNG"))
            assert photo.pixels.shape[1] == edge
            assert (photo.width, photo.height) == (side, 4200)

    @pytest.mark.parametrize(("kind", "mode"), [("TIFF", "RGB"), ("TIFF", "RGBA"), ("PNG", "RGB")])
    def test_a_reduced_picture_is_the_mean_of_squares(self, kind: str, mode: str) -> None:
        rng = np.random.default_rng(3)
        # More rows than a band holds, and one that is no multiple of the scale.
        pixels = rng.integers(0, 256, (2301, 2050, len(mode))).astype(np.uint8)
        options = {"compress_level": 1} if kind == "PNG" else {}
        photo = decode(encode(pixels, kind, **options))
        flat = pixels[..., :3].astype(float)
        if mode == "RGBA":
            opacity = pixels[..., 3:] / 255
            flat = flat * opacity + 255 * (1 - opacity)
        squares = flat[:2300].reshape(1150, 2, 1025, 2, 3).mean(axis=(1, 3))
        assert photo.pixels.shape == (1151, 1025, 3)
        np.testing.assert_allclose(photo.pixels[:1150], squares, atol=1.01)
        np.testing.assert_allclose(
            photo.pixels[1150], flat[2300].reshape(1025, 2, 3).mean(axis=1), atol=1.01
        )


class TestSquash:
    @pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
    @pytest.mark.parametrize(("width", "height"), [(400, 40), (40, 400), (90, 90), (5, 3)])
    def test_it_is_not_a_crop(self, width: int, height: int, resample: str) -> None:
        quadrants = np.zeros((height, width, 3), np.uint8)
        down, across = (height + 1) // 2, (width + 1) // 2
        quadrants[:down, :across] = COLOURS["a"]
        quadrants[:down, across:] = COLOURS["b"]
        quadrants[down:, :across] = COLOURS["c"]
        quadrants[down:, across:] = COLOURS["d"]
        squashed = squash(quadrants, 32, resample)
        assert squashed.shape == (32, 32, 3)
        corners = squashed[[0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(
            corners.astype(int), [COLOURS[letter] for letter in "abcd"], atol=2
        )

    def test_a_square_of_the_right_size_is_left_alone(self) -> None:
        square = NOISE[:48]
        np.testing.assert_array_equal(squash(square, 48), square)

    def test_half_size_by_hand(self) -> None:
        # A triangle of half-width 2 around the centre of the first two pixels, 1.0, weighs the
        # pixel centres 0.5, 1.5 and 2.5 by 3/4, 3/4 and 1/4; normalised: 3/7, 3/7, 1/7.
        row = np.array([10, 80, 150, 220], np.uint8)
        pixels = np.broadcast_to(row[None, :, None], (4, 4, 3)).copy()
        left = (3 * 10 + 3 * 80 + 150) / 7
        right = (3 * 220 + 3 * 150 + 80) / 7
        squashed = squash(pixels, 2)
        np.testing.assert_array_equal(squashed[..., 0], np.rint([[left, right]] * 2))

    @given(
        colour=st.tuples(*[st.integers(0, 255)] * 3),
        width=st.integers(1, 60),
        height=st.integers(1, 60),
        resample=st.sampled_from(["bilinear", "bicubic"]),
    )
    @settings(max_examples=50, deadline=None)
    def test_one_colour_stays_that_colour(
        self, colour: tuple[int, int, int], width: int, height: int, resample: str
    ) -> None:
        plain = np.full((height, width, 3), colour, np.uint8)
        assert (squash(plain, 16, resample) == np.array(colour)).all()

    def test_the_two_filters_differ(self) -> None:
        assert (squash(NOISE, 32, "bilinear") != squash(NOISE, 32, "bicubic")).any()

    def test_an_unknown_filter_is_refused(self) -> None:
        with pytest.raises(KeyError):
            squash(NOISE, 32, "nearest")


class TestFit:
    @pytest.mark.parametrize(
        ("width", "height", "side", "expected"),
        [
            (48, 64, 32, (24, 32)),
            (48, 64, 64, (48, 64)),
            (48, 64, 65, (48, 64)),
            (1000, 1, 100, (100, 1)),
            (1, 1000, 100, (1, 100)),
            (300, 200, 100, (100, 67)),
        ],
    )
    def test_sizes(self, width: int, height: int, side: int, expected: tuple[int, int]) -> None:
        fitted = fit(Photo(np.zeros((height, width, 3), np.uint8), width, height), side)
        assert fitted.shape == (expected[1], expected[0], 3)

    def test_colours_stay_where_they_are(self) -> None:
        pixels = paint(STORED, 40)
        fitted = fit(Photo(pixels, pixels.shape[1], pixels.shape[0]), 30)
        np.testing.assert_array_equal(fitted[5::10, 5::10], paint(STORED))

    def test_never_larger_than_the_photo(self) -> None:
        height, width = NOISE.shape[:2]
        assert fit(Photo(NOISE, width, height), 1024) is NOISE

    def test_a_photo_decoded_a_little_too_small_is_scaled_up(self) -> None:
        reduced = np.full((378, 504, 3), 90, np.uint8)
        fitted = fit(Photo(reduced, 4032, 3024), 512)
        np.testing.assert_array_equal(fitted, np.full((384, 512, 3), 90))


finite = st.floats(-1000, 1000)
sizes = st.tuples(st.integers(1, 500), st.integers(1, 500))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(finite), draw(finite)
    width, height = draw(st.floats(0.01, 1000)), draw(st.floats(0.01, 1000))
    return x, y, x + width, y + height


class TestGeometry:
    def test_scale_box_by_hand(self) -> None:
        assert scale_box((1, 2, 3, 4), (10, 10), (20, 50)) == (2, 10, 6, 20)

    def test_scale_point_by_hand(self) -> None:
        assert scale_point((3.5, 3.5), (7, 7), (448, 224)) == (224, 112)

    @given(box=boxes(), source=sizes, target=sizes)
    def test_there_and_back(
        self, box: Box, source: tuple[int, int], target: tuple[int, int]
    ) -> None:
        back = scale_box(scale_box(box, source, target), target, source)
        assert back == pytest.approx(box)
        corner = scale_point(box[:2], source, target)
        assert corner == pytest.approx(scale_box(box, source, target)[:2])

    @given(size=sizes, target=sizes)
    def test_the_whole_frame_stays_the_whole_frame(
        self, size: tuple[int, int], target: tuple[int, int]
    ) -> None:
        assert scale_box((0, 0, *size), size, target) == pytest.approx((0, 0, *target))

    @given(box=boxes(), size=sizes)
    def test_clip_box(self, box: Box, size: tuple[int, int]) -> None:
        width, height = size
        shares = box[0] < width and box[2] > 0 and box[1] < height and box[3] > 0
        if not shares:
            with pytest.raises(BoxOutsideImage):
                clip_box(box, width, height)
            return
        clipped = clip_box(box, width, height)
        for axis, length in ((0, width), (1, height)):
            low, high = clipped[axis], clipped[axis + 2]
            assert 0 <= low < high <= length
            # An edge that was inside has not moved; one that was outside is at the border.
            assert low == (box[axis] if box[axis] > 0 else 0)
            assert high == (box[axis + 2] if box[axis + 2] < length else length)
        assert clip_box(clipped, width, height) == clipped

    @pytest.mark.parametrize("box", [(10, 0, 20, 5), (-5, 0, 0, 5), (0, 8, 5, 9), (0, -3, 5, 0)])
    def test_a_box_that_only_touches_is_outside(self, box: Box) -> None:
        with pytest.raises(BoxOutsideImage, match="10 x 8"):
            clip_box(box, 10, 8)

    def test_a_box_that_is_no_number_is_outside(self) -> None:
        with pytest.raises(BoxOutsideImage):
            clip_box((float("nan"), 0, 5, 5), 10, 8)
