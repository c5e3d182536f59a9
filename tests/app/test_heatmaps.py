from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from app.heatmaps import (
    Box,
    Heatmap,
    blend,
    boxes_at,
    energy_in_box,
    from_maps,
    fuse,
    iou,
    locate,
    locate_all,
    min_max,
    overlap,
    peak,
    peak_in_box,
    relu_max,
    resize,
)

Map = npt.NDArray[np.float32]
Normalise = Callable[[Map], Heatmap]


def as_map(rows: list[list[float]]) -> Map:
    return np.array(rows, np.float32)


def heat(rows: list[list[float]]) -> Heatmap:
    return Heatmap(as_map(rows), "ok")


FIVE = as_map(
    [
        [-4, -2, 0, 0, 0],
        [-2, 0, 2, 4, 0],
        [0, 2, 12, 8, 0],
        [0, 4, 8, 4, 0],
        [0, 0, 0, 0, -4],
    ]
)

raw_maps = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


class TestNormalise:
    def test_relu_max_by_hand(self) -> None:
        expected: list[list[float]] = [
            [0, 0, 0, 0, 0],
            [0, 0, 1 / 6, 1 / 3, 0],
            [0, 1 / 6, 1, 2 / 3, 0],
            [0, 1 / 3, 2 / 3, 1 / 3, 0],
            [0, 0, 0, 0, 0],
        ]
        heatmap = relu_max(FIVE)
        assert heatmap.status == "ok"
        assert heatmap.values.dtype == np.float32
        np.testing.assert_allclose(heatmap.values, expected, rtol=1e-6)

    def test_min_max_by_hand(self) -> None:
        expected: list[list[float]] = [
            [0, 1 / 8, 1 / 4, 1 / 4, 1 / 4],
            [1 / 8, 1 / 4, 3 / 8, 1 / 2, 1 / 4],
            [1 / 4, 3 / 8, 1, 3 / 4, 1 / 4],
            [1 / 4, 1 / 2, 3 / 4, 1 / 2, 1 / 4],
            [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0],
        ]
        heatmap = min_max(FIVE)
        assert heatmap.status == "ok"
        assert heatmap.values.dtype == np.float32
        np.testing.assert_allclose(heatmap.values, expected, rtol=1e-6)

    @pytest.mark.parametrize("normalise", [min_max, relu_max])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_one_value_that_is_not_finite_spoils_the_map(
        self, normalise: Normalise, bad: float
    ) -> None:
        raw = FIVE.copy()
        raw[4, 0] = bad
        heatmap = normalise(raw)
        assert heatmap.status == "nonfinite"
        assert not heatmap.values.any()

    @pytest.mark.parametrize("normalise", [min_max, relu_max])
    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            ([[0, 0], [0, 0]], "empty"),
            ([[-1, -2], [-3, -4]], "empty"),
            ([[0, -2], [-3, 0]], "empty"),
            ([[3, 3], [3, 3]], "constant"),
            ([[3, 3], [3, 3.00001]], "constant"),
            ([[5]], "constant"),
            ([[3, 3], [3, 3.001]], "ok"),
            ([[-1, 1e-30]], "ok"),
        ],
    )
    def test_status(self, normalise: Normalise, raw: list[list[float]], status: str) -> None:
        heatmap = normalise(as_map(raw))
        assert heatmap.status == status
        assert heatmap.values.shape == np.shape(raw)
        assert heatmap.values.any() == (status == "ok")

    @given(raw=raw_maps)
    def test_a_heatmap_is_in_0_to_1_and_reaches_1(self, raw: Map) -> None:
        for heatmap in (relu_max(raw), min_max(raw)):
            assert heatmap.values.min() >= 0
            assert heatmap.values.max() == (1 if heatmap.status == "ok" else 0)

    @given(raw=raw_maps)
    def test_what_is_hotter_stays_hotter(self, raw: Map) -> None:
        order = np.argsort(raw, axis=None, kind="stable")
        for heatmap in (relu_max(raw), min_max(raw)):
            assert (np.diff(heatmap.values.ravel()[order]) >= 0).all()

    @given(raw=raw_maps, power=st.integers(-20, 20))
    def test_the_scale_of_a_map_does_not_matter(self, raw: Map, power: int) -> None:
        # By powers of two, which float32 multiplies without rounding.
        raw = raw.clip(-(2.0**80), 2.0**80)
        raw[np.abs(raw) < 2.0**-80] = 0
        for normalise in (relu_max, min_max):
            plain, scaled = normalise(raw), normalise(raw * np.float32(2.0**power))
            assert plain.status == scaled.status
            np.testing.assert_array_equal(plain.values, scaled.values)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_each_float_type(self, kind: npt.DTypeLike) -> None:
        np.testing.assert_allclose(
            relu_max(FIVE.astype(kind)).values, np.maximum(FIVE, 0) / 12, rtol=1e-6
        )


class TestFuse:
    def test_one_is_returned_as_it_is(self) -> None:
        heatmap = heat([[0, 0.5], [0.25, 1]])
        assert fuse([heatmap]) is heatmap

    def test_mean_scaled_to_one_by_hand(self) -> None:
        fused = fuse([heat([[1, 0.5], [0, 0]]), heat([[0.5, 1], [0.25, 0]])])
        assert fused.status == "ok"
        np.testing.assert_allclose(fused.values, [[1.0, 1.0], [1 / 6, 0.0]], rtol=1e-6)

    def test_at_the_finest_size(self) -> None:
        # [0, 1] to 4 columns: centres at -1/4, 1/4, 3/4, 5/4 between its own at 0 and 1.
        coarse = heat([[0, 1], [0, 1]])
        fine = heat([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
        stretched = np.array([[0, 0.25, 0.75, 1]] * 4)
        total = stretched + fine.values
        np.testing.assert_allclose(fuse([coarse, fine]).values, total / 1.25, rtol=1e-6)
        np.testing.assert_allclose(fuse([fine, coarse]).values, total / 1.25, rtol=1e-6)

    def test_a_layer_without_evidence_counts_as_zero(self) -> None:
        heatmap = heat([[0, 0.5], [0.25, 1]])
        nothing = Heatmap(np.zeros((2, 2), np.float32), "empty")
        fused = fuse([heatmap, nothing])
        assert fused.status == "ok"
        np.testing.assert_array_equal(fused.values, heatmap.values)

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            (["empty", "empty"], "empty"),
            (["constant", "constant"], "constant"),
            (["nonfinite", "empty"], "nonfinite"),
            (["ok", "nonfinite"], "nonfinite"),
            (["constant", "empty"], "empty"),
        ],
    )
    def test_status(self, statuses: list[str], expected: str) -> None:
        sources = {
            "ok": FIVE,
            "empty": -np.ones((5, 5), np.float32),
            "constant": np.ones((5, 5), np.float32),
            "nonfinite": np.full((5, 5), np.nan, np.float32),
        }
        for order in (statuses, statuses[::-1]):
            fused = from_maps([sources[status] for status in order], signed=False)
            assert fused.status == expected
            assert not fused.values.any()

    def test_from_maps_normalises_each_layer_before_the_mean(self) -> None:
        # Without that, the layer with the large values would drown the other.
        weak, strong = as_map([[-1, 0, 0, 1]]), as_map([[0, 1000, 0, 0]])
        np.testing.assert_array_equal(
            from_maps([weak, strong], signed=False).values, [[0, 1, 0, 1]]
        )
        signed = from_maps([weak, strong], signed=True)
        # Means: 0, 3/4, 1/4, 1/2.
        np.testing.assert_allclose(signed.values, [[0.0, 1.0, 1 / 3, 2 / 3]], rtol=1e-6)


class TestBlend:
    def test_by_hand(self) -> None:
        blended = blend(as_map([[1, 0, 0.5]]), as_map([[0, 1, 1]]), 0.25)
        assert blended.dtype == np.float32
        np.testing.assert_allclose(blended, [[0.75, 0.25, 0.625]], rtol=1e-6)

    @pytest.mark.parametrize("weight", [0.0, 1.0])
    def test_all_of_one_is_that_one(self, weight: float) -> None:
        first, second = as_map([[0.1, 0.7]]), as_map([[0.9, 0.3]])
        np.testing.assert_array_equal(blend(first, second, weight), [first, second][int(weight)])

    @given(
        weight=st.floats(0, 1),
        values=arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32)),
    )
    def test_of_a_heatmap_with_itself_it_is_the_heatmap(self, weight: float, values: Map) -> None:
        np.testing.assert_allclose(blend(values, values, weight), values, atol=1e-6)


class TestResize:
    def test_by_hand(self) -> None:
        wide = resize(as_map([[0, 8]]), 4, 1)
        np.testing.assert_allclose(wide, [[0, 2, 6, 8]], rtol=1e-6)

    def test_the_same_size_is_the_same_array(self) -> None:
        assert resize(FIVE, 5, 5) is FIVE

    @given(
        raw=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=2, max_side=7),
            elements=st.floats(0, 1, width=32),
        ),
        width=st.integers(7, 24),
        height=st.integers(7, 24),
    )
    def test_against_bilinear_written_out(self, raw: Map, width: int, height: int) -> None:
        np.testing.assert_allclose(
            resize(raw, width, height), bilinear(raw, width, height), atol=1e-5
        )


def bilinear(raw: Map, width: int, height: int) -> npt.NDArray[np.float64]:
    """By definition, one pixel at a time."""
    rows, columns = raw.shape
    out = np.zeros((height, width))
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        top = int(y)
        bottom = min(top + 1, rows - 1)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            left = int(x)
            right = min(left + 1, columns - 1)
            upper = raw[top, left] * (left + 1 - x) + raw[top, right] * (x - left)
            lower = raw[bottom, left] * (left + 1 - x) + raw[bottom, right] * (x - left)
            out[i, j] = upper * (top + 1 - y) + lower * (y - top)
    return out


def flood_fill(mask: npt.NDArray[np.bool_]) -> list[tuple[int, Box]]:
    """Size and box of each 8-connected region."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        border, region = deque([left.pop()]), []
        while border:
            row, column = border.popleft()
            region.append((row, column))
            for near in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    border.append(near)
        rows, columns = zip(*region, strict=True)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        regions.append((len(region), tuple(float(edge) for edge in box)))
    return regions  # type: ignore[return-value]


class TestLocate:
    def test_by_hand(self) -> None:
        values = relu_max(FIVE).values
        assert locate(values, 0.9) == (2, 2, 3, 3)
        assert locate(values, 0.5) == (2, 2, 4, 4)
        assert locate(values, 0.3) == (1, 1, 4, 4)
        assert locate(values, 0.1) == (1, 1, 4, 4)

    def test_the_threshold_itself_counts(self) -> None:
        values = as_map([[0, 0.15, 1, 0.1499]])
        assert locate(values, 0.15) == (1, 0, 3, 1)

    def test_a_corner_connects(self) -> None:
        assert locate(np.eye(4, dtype=np.float32), 0.5) == (0, 0, 4, 4)

    def test_the_largest_region_wins_not_the_hottest(self) -> None:
        values = as_map(
            [
                [1.0, 0.0, 0.0, 0.0, 0.0],
                [0.0, 0.0, 0.0, 0.0, 0.0],
                [0.0, 0.0, 0.6, 0.6, 0.0],
                [0.0, 0.0, 0.0, 0.6, 0.0],
                [0.0, 0.0, 0.0, 0.0, 0.0],
            ]
        )
        assert locate(values, 0.5) == (2, 2, 4, 4)
        assert locate(values, 0.7) == (0, 0, 1, 1)

    def test_the_largest_by_cells_not_by_the_box(self) -> None:
        values = np.zeros((7, 7), np.float32)
        values[range(5), range(5)] = 1  # 5 cells in a box of 25
        values[4:7, 0:2] = 1  # 6 cells in a box of 6
        assert locate(values, 0.5) == (0, 4, 2, 7)

    def test_no_box_where_there_is_nothing(self) -> None:
        assert locate(np.zeros((5, 5), np.float32), 0.1) is None

    def test_the_threshold_is_a_share_of_the_maximum(self) -> None:
        values = as_map([[0.1, 0.2, 0.4, 0.3]])
        assert locate(values, 0.5) == (1, 0, 4, 1)
        assert locate(values, 1.0) == (2, 0, 3, 1)

    def test_everything_reaches_it(self) -> None:
        assert locate(np.ones((3, 5), np.float32), 1.0) == (0, 0, 5, 3)

    @settings(max_examples=200)
    @given(
        values=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=2, max_side=12),
            elements=st.floats(0, 1, width=32),
            fill=st.just(np.float32(0)),
        ),
        threshold=st.floats(0.01, 1),
    )
    def test_against_a_flood_fill(self, values: Map, threshold: float) -> None:
        self.check(values, threshold)

    @pytest.mark.parametrize("seed", range(20))
    def test_against_a_flood_fill_on_speckles(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.check(rng.random((25, 30)).astype(np.float32), float(rng.uniform(0.4, 0.9)))

    @staticmethod
    def check(values: Map, threshold: float) -> None:
        top = values.max()
        regions = flood_fill(values >= np.float32(threshold) * top) if top > 0 else []
        largest = max((size for size, _ in regions), default=0)
        expected: list[Box | None] = [box for size, box in regions if size == largest]
        assert locate(values, threshold) in (expected or [None])


THRESHOLDS = (0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


class TestLocateAll:
    @settings(deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
    def test_its_boxes_are_those_of_locate(
        self, seed: int, height: int, width: int, levels: int
    ) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, levels + 1, (height, width)).astype(np.float32)  # many alike
        smooth = resize(rng.random((3, 4), np.float32), width, height)
        for values in (coarse, smooth):
            assert locate_all(values, THRESHOLDS) == [
                locate(values, threshold) for threshold in THRESHOLDS
            ]

    def test_a_large_map_with_more_regions_than_16_bits_number(self) -> None:
        values = np.zeros((514, 514), np.float32)
        values[::2, ::2] = 1  # 66,049 single pixels
        values[512, 511:513] = 1
        assert locate_all(values, (0.5,)) == [locate(values, 0.5)] == [(510.0, 512.0, 513.0, 513.0)]

    @settings(deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.95))
    def test_regions_are_those_of_labelling_every_pixel(
        self, seed: int, height: int, width: int, share: float
    ) -> None:
        """Rings, holes with regions in them, lines and single pixels, by OpenCV's labels."""
        values = np.random.default_rng(seed).random((height, width), np.float32)
        level = np.float32(np.quantile(values, share))
        count, _, stats, _ = cv2.connectedComponentsWithStats(
            (values >= level).view(np.uint8), connectivity=8
        )
        regions = stats[1:count]
        x, y, w, h, _ = min(regions.tolist(), key=lambda region: (-region[4], region[1], region[0]))
        assert boxes_at(values, np.array([level])) == [(x, y, x + w, y + h)]

    def test_a_region_within_a_hole_of_another(self) -> None:
        values = np.zeros((9, 9), np.float32)
        values[0, :] = values[-1, :] = values[:, 0] = values[:, -1] = 1  # 32 pixels
        values[2:7, 2:7] = 1  # 25
        assert locate_all(values, (0.5,)) == [(0, 0, 9, 9)]
        values[8, 1:] = 0  # 24 left of the frame
        assert locate_all(values, (0.5,)) == [(2, 2, 7, 7)]

    def test_no_box_where_there_is_nothing(self) -> None:
        assert locate_all(np.zeros((4, 4), np.float32), THRESHOLDS) == [None] * 6

    def test_a_threshold_of_zero_keeps_the_whole_frame(self) -> None:
        assert locate_all(relu_max(FIVE).values, (0.0, 0.9)) == [(0, 0, 5, 5), (2, 2, 3, 3)]


class TestPeak:
    def test_by_hand(self) -> None:
        assert peak(FIVE) == (2.5, 2.5)
        assert peak(as_map([[0, 0, 0], [0, 0, 9]])) == (2.5, 1.5)

    def test_in_a_box_edges_included(self) -> None:
        box = (2.0, 1.0, 4.0, 3.0)
        inside = [(2, 1), (4, 3), (3, 2), (2, 3)]
        outside = [(1.99, 2), (4.01, 2), (3, 0.99), (3, 3.01)]
        assert all(peak_in_box(point, box) for point in inside)
        assert not any(peak_in_box(point, box) for point in outside)


@st.composite
def cell_boxes(draw: st.DrawFn, side: int = 12) -> Box:
    """A box whose edges are whole numbers."""
    x, y = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
    return x, y, draw(st.integers(x + 1, side)), draw(st.integers(y + 1, side))


@st.composite
def any_boxes(draw: st.DrawFn) -> Box:
    edge = st.floats(-1e6, 1e6)
    xs, ys = sorted([draw(edge), draw(edge)]), sorted([draw(edge), draw(edge)])
    return xs[0], ys[0], xs[1], ys[1]


def painted(box: Box, side: int = 12) -> npt.NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return mask


class TestIoU:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ((0, 0, 10, 10), (0, 0, 10, 10), 1),
            ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
            ((0, 0, 10, 10), (0, 0, 5, 5), 1 / 4),
            ((0, 0, 10, 10), (10, 0, 20, 10), 0),
            ((0, 0, 10, 10), (20, 20, 30, 30), 0),
            ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
            ((5, 5, 5, 9), (0, 0, 10, 10), 0),
            ((5, 5, 5, 5), (5, 5, 5, 5), 0),
        ],
    )
    def test_by_hand(self, a: Box, b: Box, expected: float) -> None:
        assert iou(a, b) == pytest.approx(expected)

    @given(a=cell_boxes(), b=cell_boxes())
    def test_against_counting_pixels(self, a: Box, b: Box) -> None:
        first, second = painted(a), painted(b)
        assert iou(a, b) == pytest.approx((first & second).sum() / (first | second).sum())

    @given(a=any_boxes(), b=any_boxes())
    def test_symmetric_and_bounded(self, a: Box, b: Box) -> None:
        assert iou(a, b) == iou(b, a)
        assert 0 <= iou(a, b) <= 1

    @given(a=any_boxes())
    def test_with_itself_it_is_1_unless_it_has_no_area(self, a: Box) -> None:
        area = (a[2] - a[0]) * (a[3] - a[1])
        assert iou(a, a) == (1 if area > 0 else 0)

    @given(a=cell_boxes(), b=cell_boxes(), x=st.integers(1, 50), y=st.integers(1, 50))
    def test_stretching_both_axes_changes_nothing(self, a: Box, b: Box, x: int, y: int) -> None:
        def stretched(box: Box) -> Box:
            return box[0] * x, box[1] * y, box[2] * x, box[3] * y

        assert iou(stretched(a), stretched(b)) == pytest.approx(iou(a, b))


class TestOverlap:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0, 4, [1, 1, 1, 1]),
            (1, 3, [0, 1, 1, 0]),
            (0.25, 2.5, [0.75, 1, 0.5, 0]),
            (1.25, 1.75, [0, 0.5, 0, 0]),
            (-3, 0.5, [0.5, 0, 0, 0]),
            (3.5, 9, [0, 0, 0, 0.5]),
            (4, 9, [0, 0, 0, 0]),
            (2, 2, [0, 0, 0, 0]),
        ],
    )
    def test_by_hand(self, low: float, high: float, expected: list[float]) -> None:
        assert overlap(4, low, high).tolist() == expected

    @given(low=st.floats(-5, 15), high=st.floats(-5, 15))
    def test_its_sum_is_the_length_within(self, low: float, high: float) -> None:
        length = max(0, min(high, 10) - max(low, 0))
        assert overlap(10, low, high).sum() == pytest.approx(length, abs=1e-9)


class TestEnergyInBox:
    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((0, 0, 2, 2), 1),
            ((0, 0, 1, 1), 0.1),
            ((1, 0, 2, 2), 0.6),
            ((0, 0.5, 2, 1.5), 0.5),
            # The whole of 1, half of 2 and of 3, a quarter of 4, out of 10.
            ((0, 0, 1.5, 1.5), (1 + 1 + 1.5 + 1) / 10),
            ((0.5, 0.5, 1.5, 1.5), 0.25),
            ((1.25, 1.25, 1.75, 1.75), 4 * 0.25 / 10),
            ((-5, -5, 0.5, 9), (0.5 + 1.5) / 10),
            ((2, 0, 4, 2), 0),
        ],
    )
    def test_by_hand(self, box: Box, expected: float) -> None:
        assert energy_in_box(as_map([[1, 2], [3, 4]]), box) == pytest.approx(expected)

    def test_no_energy_at_all(self) -> None:
        assert energy_in_box(np.zeros((4, 4), np.float32), (0, 0, 4, 4)) == 0

    def test_best_and_worst_case(self) -> None:
        values = np.zeros((8, 8), np.float32)
        values[2:5, 3:6] = 0.7
        assert energy_in_box(values, (3, 2, 6, 5)) == pytest.approx(1)
        assert energy_in_box(1 - painted((3, 2, 6, 5), 8).astype(np.float32), (3, 2, 6, 5)) == 0

    @given(
        values=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=st.floats(0, 1, width=32),
        ),
        edges=st.tuples(*[st.integers(-4, 28)] * 4),
    )
    def test_against_a_drawing_at_four_times_the_scale(
        self, values: Map, edges: tuple[int, int, int, int]
    ) -> None:
        xs, ys = sorted(edges[:2]), sorted(edges[2:])
        fine = values.astype(np.float64).repeat(4, 0).repeat(4, 1)
        inside = fine[max(ys[0], 0) : max(ys[1], 0), max(xs[0], 0) : max(xs[1], 0)]
        expected = inside.sum() / fine.sum() if fine.any() else 0
        box = (xs[0] / 4, ys[0] / 4, xs[1] / 4, ys[1] / 4)
        assert energy_in_box(values, box) == pytest.approx(expected, abs=1e-9)

    @given(
        values=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=2, max_side=9),
            elements=st.floats(0, 1, width=32),
        ),
        box=any_boxes(),
    )
    def test_bounded(self, values: Map, box: Box) -> None:
        assert 0 <= energy_in_box(values, box) <= 1
        height, width = values.shape
        assert 0 <= energy_in_box(values, (0, 0, width, height)) <= 1

    def test_noise_in_the_whole_frame_is_never_over_1(self) -> None:
        for seed in range(20):
            values = np.random.default_rng(seed).random((224, 224)).astype(np.float32)
            assert energy_in_box(values, (0, 0, 224, 224)) <= 1
