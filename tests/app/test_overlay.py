import io
import struct
import zlib
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app import schemas
from app.images import decode
from app.overlay import (
    COLORMAPS,
    MAX_SIDES,
    MEDIA_TYPES,
    Box,
    draw_boxes,
    encode,
    levels,
    render,
    row_width,
    side_by_side,
)

Pixels = npt.NDArray[np.uint8]

WHITE, GREEN, BLACK = (255, 255, 255), (64, 255, 64), (0, 0, 0)
GREY = 90

PHOTO = np.random.default_rng(3).integers(0, 256, (16, 16, 3)).astype(np.uint8)
RAMP = np.arange(256, dtype=np.float32).reshape(16, 16) / np.float32(255)

# As published: the first and last colour of each, RGB.
ENDS = {
    "jet": ((0, 0, 128), (128, 0, 0)),
    "turbo": ((48, 18, 59), (122, 4, 3)),
    "viridis": ((68, 1, 84), (253, 231, 37)),
    "inferno": ((0, 0, 4), (252, 255, 164)),
    "magma": ((0, 0, 4), (252, 253, 191)),
    "plasma": ((13, 8, 135), (240, 249, 33)),
    "cividis": ((0, 34, 78), (254, 232, 56)),
    "hot": ((0, 0, 0), (255, 255, 255)),
}


def colours_of(colormap: str) -> Pixels:
    """The 256 colours, `[16, 16, 3]`."""
    return render(np.zeros_like(PHOTO), RAMP, colormap=colormap, alpha=1)


class TestRender:
    @pytest.mark.parametrize("colormap", COLORMAPS)
    def test_cold_and_hot_ends(self, colormap: str) -> None:
        colours = colours_of(colormap).astype(int)
        np.testing.assert_allclose(colours[0, 0], ENDS[colormap][0], atol=1)
        np.testing.assert_allclose(colours[-1, -1], ENDS[colormap][1], atol=1)

    def test_jet_is_blue_then_green_then_red(self) -> None:
        colours = colours_of("jet").reshape(256, 3)
        assert colours[[32, 127, 223]].argmax(axis=1).tolist() == [2, 1, 0]

    def test_every_colormap_on_offer_is_there(self) -> None:
        assert set(get_args(schemas.Colormap)) == set(COLORMAPS)

    def test_alpha_0_is_the_photo(self) -> None:
        picture = render(PHOTO, RAMP, colormap="jet", alpha=0)
        np.testing.assert_array_equal(picture, PHOTO)

    def test_alpha_1_is_the_colours(self) -> None:
        picture = render(PHOTO, RAMP, colormap="magma", alpha=1)
        np.testing.assert_array_equal(picture, colours_of("magma"))

    @given(alpha=st.floats(0, 1), colormap=st.sampled_from(sorted(COLORMAPS)))
    @settings(max_examples=60, deadline=None)
    def test_the_blend_is_the_formula(self, alpha: float, colormap: str) -> None:
        picture = render(PHOTO, RAMP, colormap=colormap, alpha=alpha)
        exact = (1 - alpha) * PHOTO.astype(float) + alpha * colours_of(colormap).astype(float)
        assert np.abs(picture - exact).max() <= 0.5 + 1e-3

    def test_the_hottest_never_wraps_to_cold(self) -> None:
        values = np.array([[1.0, 1.0000001, 2.0, -0.5, 0.0]], np.float32)
        picture = render(np.zeros((1, 5, 3), np.uint8), values, colormap="jet", alpha=1)
        hot, cold = picture[0, 0].tolist(), picture[0, 4].tolist()
        assert hot != cold
        assert picture[0].tolist() == [hot, hot, hot, cold, cold]

    def test_without_a_heatmap_it_is_a_copy_of_the_photo(self) -> None:
        picture = render(PHOTO, None, colormap="jet", alpha=0.5)
        np.testing.assert_array_equal(picture, PHOTO)
        assert not np.shares_memory(picture, PHOTO)

    @pytest.mark.parametrize("values", [None, RAMP])
    def test_a_decoded_photo_can_be_drawn_on_and_stays_as_it_was(
        self, values: npt.NDArray[np.float32] | None
    ) -> None:
        photo = decode(encode(PHOTO)).pixels
        picture = render(photo, values, colormap="jet", alpha=0.5)
        draw_boxes(picture, reference=[], own=(2, 2, 9, 9))
        assert picture[2, 2].tolist() == list(GREEN)
        np.testing.assert_array_equal(photo, PHOTO)


def drawn(
    *, reference: list[Box] | None = None, own: Box | None = None, size: tuple[int, int] = (24, 20)
) -> Pixels:
    """Boxes on grey; `size` is (width, height)."""
    pixels = np.full((size[1], size[0], 3), GREY, np.uint8)
    draw_boxes(pixels, reference=reference or [], own=own)
    return pixels


def where(pixels: Pixels, colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    matches: npt.NDArray[np.bool_] = (pixels == np.array(colour, np.uint8)).all(axis=2)
    return matches


def frame(
    left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (24, 20)
) -> npt.NDArray[np.bool_]:
    """The border of a box, one pixel thick, `right` and `bottom` exclusive."""
    mask = np.zeros((size[1], size[0]), bool)
    mask[top:bottom, left:right] = True
    mask[top + 1 : bottom - 1, left + 1 : right - 1] = False
    return mask


class TestDrawBoxes:
    def test_the_coloured_line_is_the_boxs_own_border(self) -> None:
        pixels = drawn(reference=[(5, 4, 15, 12)])
        np.testing.assert_array_equal(where(pixels, WHITE), frame(5, 4, 15, 12))

    def test_the_explanations_own_box_is_green(self) -> None:
        pixels = drawn(own=(5, 4, 15, 12))
        np.testing.assert_array_equal(where(pixels, GREEN), frame(5, 4, 15, 12))
        assert not where(pixels, WHITE).any()

    def test_a_black_line_runs_on_both_sides_and_nothing_else_is_touched(self) -> None:
        pixels = drawn(reference=[(5, 4, 15, 12)])
        black, untouched = where(pixels, BLACK), where(pixels, (GREY, GREY, GREY))
        beside = frame(4, 3, 16, 13) | frame(6, 5, 14, 11)
        near = beside | frame(3, 2, 17, 14) | frame(7, 6, 13, 10)
        assert not (black & ~near).any()
        # The outer corners are round.
        assert (beside & ~black).sum() <= 4
        np.testing.assert_array_equal(untouched, ~black & ~frame(5, 4, 15, 12))

    def test_the_whole_frame_shows_inside_the_picture(self) -> None:
        pixels = drawn(reference=[(0, 0, 24, 20)])
        np.testing.assert_array_equal(where(pixels, WHITE), frame(0, 0, 24, 20))

    def test_the_found_one_is_drawn_over_those_given(self) -> None:
        same = (5.0, 4.0, 15.0, 12.0)
        pixels = drawn(own=same, reference=[same, (0, 0, 24, 20)])
        np.testing.assert_array_equal(where(pixels, GREEN), frame(5, 4, 15, 12))
        np.testing.assert_array_equal(where(pixels, WHITE), frame(0, 0, 24, 20))

    @pytest.mark.parametrize("box", [(7.2, 7.2, 7.4, 7.4), (7.0, 7.0, 8.0, 8.0)])
    def test_a_box_within_one_pixel_is_that_pixel(self, box: Box) -> None:
        white = where(drawn(reference=[box]), WHITE)
        assert np.argwhere(white).tolist() == [[7, 7]]

    def test_a_box_at_the_far_corner_is_seen(self) -> None:
        white = where(drawn(reference=[(23.9, 19.9, 24, 20)]), WHITE)
        assert np.argwhere(white).tolist() == [[19, 23]]

    def test_a_picture_of_one_pixel(self) -> None:
        assert drawn(own=(0, 0, 1, 1), size=(1, 1)).tolist() == [[list(GREEN)]]

    def test_the_line_grows_with_the_picture(self) -> None:
        row = drawn(reference=[(200, 200, 800, 800)], size=(1000, 1000))[500]
        white = np.flatnonzero((row == 255).all(axis=1))
        assert 2 * 3 <= len(white) <= 2 * 5
        assert abs(white[white < 500].mean() - 200) <= 1
        assert abs(white[white > 500].mean() - 799) <= 1

    def test_no_boxes_no_change(self) -> None:
        assert (drawn() == GREY).all()


class TestSideBySide:
    def test_one_alone_stays_as_it_is(self) -> None:
        assert side_by_side([PHOTO]) is PHOTO

    # A sixty-fourth of a picture's width, and two pixels at least.
    @pytest.mark.parametrize(("width", "gap"), [(5, 2), (128, 2), (191, 2), (192, 3), (640, 10)])
    def test_in_a_row_with_white_between_and_none_at_the_ends(self, width: int, gap: int) -> None:
        rng = np.random.default_rng(width)
        three = [rng.integers(0, 255, (6, width, 3)).astype(np.uint8) for _ in range(3)]
        row = side_by_side(three)
        assert row.dtype == np.uint8
        assert row.shape == (6, 3 * width + 2 * gap, 3)
        for place, picture in enumerate(three):
            left = place * (width + gap)
            np.testing.assert_array_equal(row[:, left : left + width], picture)
            assert (row[:, left + width : left + width + gap] == 255).all()

    def test_in_greyscale(self) -> None:
        row = side_by_side([PHOTO[..., 0], PHOTO[..., 1]])
        assert row.shape == (16, 2 * 16 + 2)
        assert (row[:, 16:18] == 255).all()
        np.testing.assert_array_equal(row[:, 18:], PHOTO[..., 1])

    @pytest.mark.parametrize(("count", "width"), [(1, 5), (2, 128), (6, 1024)])
    def test_how_wide_a_row_is(self, count: int, width: int) -> None:
        assert (
            row_width(count, width)
            == side_by_side([np.zeros((1, width), np.uint8)] * count).shape[1]
        )


class TestLevels:
    def test_rounded_and_clipped(self) -> None:
        values = np.array([[0, 0.49 / 255, 0.51 / 255, 1, 1.5, -1]], np.float32)
        assert levels(values).tolist() == [[0, 0, 1, 255, 255, 0]]
        assert levels(values).dtype == np.uint8


class TestEncode:
    @pytest.mark.parametrize("shape", [(1, 1), (16, 16), (3, 40), (40, 3)])
    def test_greyscale_is_a_png_of_one_channel(self, shape: tuple[int, int]) -> None:
        pixels = np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)
        with Image.open(io.BytesIO(encode(pixels))) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(image), pixels)

    @pytest.mark.parametrize(("media_type", "mode"), [("image/jpeg", "L"), ("image/webp", "RGB")])
    def test_greyscale_in_other_formats(self, media_type: str, mode: str) -> None:
        pixels = np.tile(np.linspace(0, 255, 64), (64, 1)).astype(np.uint8)
        with Image.open(io.BytesIO(encode(pixels, media_type))) as image:
            assert image.mode == mode
            seen = np.asarray(image.convert("L"))
        assert np.abs(seen.astype(int) - pixels).mean() < 3

    @pytest.mark.parametrize("media_type", MAX_SIDES)
    def test_the_largest_side_that_can_be_encoded(self, media_type: str) -> None:
        row = np.zeros((1, MAX_SIDES[media_type]), np.uint8)
        assert encode(row, media_type)

    @pytest.mark.parametrize("shape", [(1, 1), (16, 16), (3, 40), (40, 3)])
    def test_another_decoder_reads_the_same_pixels(self, shape: tuple[int, int]) -> None:
        pixels = np.random.default_rng(5).integers(0, 256, (*shape, 3)).astype(np.uint8)
        with Image.open(io.BytesIO(encode(pixels))) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            np.testing.assert_array_equal(np.asarray(image), pixels)

    def test_its_window_is_as_large_as_its_header_says(self) -> None:
        """Strict decoders take no more than that; Pillow always takes the largest."""
        tile = np.random.default_rng(7).integers(0, 256, (8, 90, 3)).astype(np.uint8)
        picture = encode(np.tile(tile, (20, 3, 1)))  # repeats within 270 bytes, and far beyond 512
        start = picture.index(b"IDAT")
        [size] = struct.unpack(">I", picture[start - 4 : start])
        data = picture[start + 4 : start + 4 + size]
        window_bits = 8 + (data[0] >> 4)
        assert window_bits == 9
        assert len(zlib.decompressobj(window_bits).decompress(data)) == 160 * (1 + 3 * 270)

    def test_a_view_with_gaps_is_taken(self) -> None:
        view = PHOTO[::2, ::-1]
        with Image.open(io.BytesIO(encode(view))) as image:
            np.testing.assert_array_equal(np.asarray(image), view)

    def test_a_png_is_about_as_small_as_other_encoders_write_it(self) -> None:
        rng = np.random.default_rng(6)
        noise = rng.normal(0, 4, (120, 160, 3))
        ramp = np.linspace(0, 200, 160)[None, :, None]
        pixels = (ramp + noise + 20).clip(0, 255).astype(np.uint8)
        other = io.BytesIO()
        Image.fromarray(pixels).save(other, "PNG")
        assert len(encode(pixels)) < 1.15 * len(other.getvalue())

    @pytest.mark.parametrize("media_type", MEDIA_TYPES)
    def test_each_media_type_is_what_it_says_and_shows_the_picture(self, media_type: str) -> None:
        row = np.linspace(0, 255, 64)
        pixels = np.stack(np.broadcast_arrays(row, row[:, None], 90), axis=-1).astype(np.uint8)
        with Image.open(io.BytesIO(encode(pixels, media_type))) as image:
            assert Image.MIME[str(image.format)] == media_type
            seen = np.asarray(image.convert("RGB"))
        assert np.abs(seen.astype(int) - pixels).mean() < 3
