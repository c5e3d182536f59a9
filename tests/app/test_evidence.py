from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import heatmaps
from app.bundle import Foreground, Fused, Input, Label, Layer, Method, ModelCard, Rule
from app.errors import MethodUnavailable, RequestError
from app.evidence import MethodAtLayers, enlarged, find, foreground_of, fused_rule, heatmap_of

SIZE = 8
"""Of the input: twice that of the last layer's maps, as is that of `fine`."""


def card(foreground: Foreground | None = None, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "toy",
        "version": 1,
        "architecture": "resnet50",
        "head": "gap_dense",
        "input": Input(size=SIZE),
        "labels": (Label(index=0, name="beagle"), Label(index=1, name="pug")),
        "layers": (Layer(name="fine", height=8, width=8), Layer(name="late", height=4, width=4)),
        "foreground": foreground or Foreground(rule="boxes", photos=200),
        "thresholds": {Method.GRADCAM: {"last": 0.5}},
    }
    return ModelCard(**fields | changes)


FUSED = {Method.GRADCAM: {"last": Fused(foreground=0.25, threshold=0.3)}}
LAST = MethodAtLayers(Method.GRADCAM, "last", ("late",))
CAM = MethodAtLayers(Method.CAM, "last", ("late",))


def cells(*hot: tuple[int, int, float], size: int = 4) -> npt.NDArray[np.float32]:
    """A map that is zero but at (row, column, value)."""
    values = np.zeros((size, size), np.float32)
    for row, column, value in hot:
        values[row, column] = value
    return values


def outputs(**maps: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
    """What the model says, zeros unless told otherwise."""
    nothing = {name: np.zeros((4, 4), np.float32) for name in ("cam", "gradcam", "foreground")}
    return {**nothing, **maps}


STEPS = np.array([1, 0.75, 0.25, 0, 0, 0, 0, 0])
"""The first of four cells at 1, resized to eight: centres at -1/4, 1/4, 3/4 and on between them."""

# The method sees one corner at 2, the foreground the opposite one at 5.
CORNERS = outputs(gradcam=cells((0, 0, 2)), foreground=cells((3, 3, 5)))


class TestMethodAtLayers:
    def test_is_named_as_the_card_names_it(self) -> None:
        assert MethodAtLayers.of(card(), Method.GRADCAM, ["late"]) == LAST
        assert MethodAtLayers.of(card(), Method.LAYERCAM, ["fine"]).name == "fine"
        both = MethodAtLayers.of(card(), Method.LAYERCAM, ["fine", "late"])
        assert (both.name, both.layer_names) == ("last6", ("fine", "late"))

    @pytest.mark.parametrize(
        ("layers", "expected"),
        [
            ("last", ("late",)),
            ("late", ("late",)),
            ("last6", ("fine", "late")),
            (" late,fine , late", ("fine", "late")),
            ("fine", ("fine",)),
        ],
    )
    def test_as_asked_for_in_the_networks_order(
        self, layers: str, expected: tuple[str, ...]
    ) -> None:
        spec = MethodAtLayers.parse(card(), Method.GRADCAM, layers)
        assert spec == MethodAtLayers.of(card(), Method.GRADCAM, expected)
        assert spec.layer_names == expected

    @pytest.mark.parametrize("layers", ["stem", "late,stem", "", "late,", "last,last6"])
    def test_a_layer_that_is_not_exposed_is_refused(self, layers: str) -> None:
        with pytest.raises(RequestError, match="Its layers are fine, late; or `last`"):
            MethodAtLayers.parse(card(), Method.GRADCAM, layers)

    def test_cam_needs_its_head(self) -> None:
        assert MethodAtLayers.parse(card(), Method.CAM, "last") == CAM
        with pytest.raises(MethodUnavailable, match="Use /gradcam"):
            MethodAtLayers.parse(card(head="other"), Method.CAM, "last")


class TestRule:
    def test_is_fused_where_that_is_calibrated(self) -> None:
        toy = card(fused=FUSED)
        assert fused_rule(toy, LAST, None) == FUSED[Method.GRADCAM]["last"]
        assert fused_rule(toy, LAST, Rule.FUSED) == FUSED[Method.GRADCAM]["last"]
        assert find(toy, CORNERS, LAST).rule is Rule.FUSED

    def test_is_heatmap_where_it_is_not(self) -> None:
        for toy in (card(), card(fused={Method.CAM: FUSED[Method.GRADCAM]})):
            assert fused_rule(toy, LAST, None) is None
            assert find(toy, CORNERS, LAST).rule is Rule.HEATMAP

    def test_is_heatmap_where_that_is_asked_for(self) -> None:
        assert fused_rule(card(fused=FUSED), LAST, Rule.HEATMAP) is None
        assert find(card(fused=FUSED), CORNERS, LAST, rule=Rule.HEATMAP).rule is Rule.HEATMAP

    @pytest.mark.parametrize(
        "layers", [CAM, MethodAtLayers(Method.GRADCAM, "fine", ("fine",))], ids=["method", "layers"]
    )
    def test_fused_that_is_not_calibrated_is_refused(self, layers: MethodAtLayers) -> None:
        toy = card(fused=FUSED)
        with pytest.raises(MethodUnavailable, match=f"{layers.method.value} at these layers"):
            fused_rule(toy, layers, Rule.FUSED)
        with pytest.raises(MethodUnavailable, match="`heatmap`"):
            find(toy, CORNERS, layers, rule=Rule.FUSED)


class TestHeatmapRule:
    def test_the_box_is_around_the_methods_own_heatmap(self) -> None:
        evidence = find(card(fused=FUSED), CORNERS, LAST, rule=Rule.HEATMAP)
        assert evidence.threshold == 0.5
        assert evidence.searched is evidence.values
        # Half of the maximum is reached by 1, 3/4 and their products, the least of them 9/16.
        assert evidence.values is not None
        np.testing.assert_allclose(evidence.values, np.outer(STEPS, STEPS), atol=1e-6)
        assert evidence.box(SIZE, SIZE) == (0, 0, 2, 2)
        # Twice as wide and three times as high a photo.
        assert evidence.box(16, 24) == (0, 0, 4, 6)
        assert evidence.peak(16, 24) == (2, 3)

    def test_a_threshold_that_is_given_counts(self) -> None:
        evidence = find(card(), CORNERS, LAST, threshold=0.9)
        assert evidence.threshold == 0.9
        assert evidence.box(SIZE, SIZE) == (0, 0, 1, 1)

    def test_boxes_are_those_of_each_threshold(self) -> None:
        evidence = find(card(), CORNERS, LAST)
        thresholds = (0.05, 0.2, 0.5, 0.6, 0.8)
        alone = [
            find(card(), CORNERS, LAST, threshold=threshold).box(24, 16) for threshold in thresholds
        ]
        assert evidence.boxes(thresholds, 24, 16) == alone
        assert alone == [(0, 0, 9, 6), (0, 0, 9, 6), (0, 0, 6, 4), (0, 0, 6, 4), (0, 0, 3, 2)]

    def test_layers_are_fused_at_the_finest_of_their_sizes(self) -> None:
        both = MethodAtLayers(Method.GRADCAM, "last6", ("fine", "late"))
        maps = outputs(gradcam=cells((0, 0, 2)), gradcam_fine=cells((7, 7, 9), size=8))
        heatmap = heatmap_of(card(), maps, both)
        mean = np.outer(STEPS, STEPS) / 2
        mean[7, 7] += 1 / 2
        np.testing.assert_allclose(heatmap.values, mean * 2, atol=1e-6)

    def test_cam_is_signed_and_gradcam_is_not(self) -> None:
        raw = np.where(cells((1, 1, 1)) > 0, 3, -1).astype(np.float32)
        raw[2, 2] = 1
        maps = outputs(cam=raw, gradcam=raw)
        assert heatmap_of(card(), maps, CAM).values[2, 2] == pytest.approx(2 / 4)
        assert heatmap_of(card(), maps, LAST).values[2, 2] == pytest.approx(1 / 3)


class TestFusedRule:
    def test_a_foreground_that_the_caller_has_is_not_computed_again(self) -> None:
        foreground = enlarged(card(), foreground_of(card(), CORNERS))
        rest = {name: raw for name, raw in CORNERS.items() if name != "foreground"}
        evidence = find(card(fused=FUSED), rest, LAST, foreground=foreground)
        expected = find(card(fused=FUSED), CORNERS, LAST).searched
        assert evidence.searched is not None
        assert expected is not None
        np.testing.assert_array_equal(evidence.searched, expected)

    def test_by_hand(self) -> None:
        """A mean of the two corners: 3/4 of the method's, 1/4 of the foreground's."""
        evidence = find(card(fused=FUSED), CORNERS, LAST)
        assert evidence.threshold == 0.3
        own, other = np.outer(STEPS, STEPS), np.outer(STEPS, STEPS)[::-1, ::-1]
        assert evidence.searched is not None
        assert evidence.values is not None
        np.testing.assert_allclose(evidence.searched, 0.75 * own + 0.25 * other, atol=1e-6)
        # Heatmap and peak are the method's own, whatever the rule.
        np.testing.assert_allclose(evidence.values, own, atol=1e-6)
        assert evidence.peak(SIZE, SIZE) == (1, 1)
        # 0.3 of the maximum is 0.225: four cells of the own corner reach it (0.3 of their 3/4), and
        # one of the other (0.9 of their 1/4). The largest region is the box.
        assert evidence.box(SIZE, SIZE) == (0, 0, 2, 2)

    def test_the_foreground_can_outweigh_the_method(self) -> None:
        fused = {Method.GRADCAM: {"last": Fused(foreground=0.75, threshold=0.4)}}
        evidence = find(card(fused=fused), CORNERS, LAST)
        # 0.4 of the maximum is 0.3: more than all of the own corner's 1/4.
        assert evidence.box(SIZE, SIZE) == (6, 6, 8, 8)
        assert evidence.peak(SIZE, SIZE) == (1, 1)

    def test_a_threshold_that_is_given_is_a_share_of_the_mean(self) -> None:
        evidence = find(card(fused=FUSED), CORNERS, LAST, threshold=1.0)
        assert evidence.threshold == 1.0
        assert evidence.box(SIZE, SIZE) == (0, 0, 1, 1)

    def test_they_join_to_one_region(self) -> None:
        """What lies between two halves that touch is one box."""
        maps = outputs(gradcam=cells((1, 1, 1)), foreground=cells((1, 2, 1), (2, 2, 1)))
        fused = {Method.GRADCAM: {"last": Fused(foreground=0.5, threshold=0.6)}}
        alone = find(card(fused=fused), maps, LAST, rule=Rule.HEATMAP, threshold=0.6)
        joined = find(card(fused=fused), maps, LAST)
        assert joined.searched is not None
        own = enlarged(card(), heatmap_of(card(), maps, LAST))
        mean = (own + grown(maps["foreground"])) / np.float32(2)
        expected = heatmaps.locate(mean, 0.6)
        assert joined.box(SIZE, SIZE) == expected
        before, after = alone.box(SIZE, SIZE), joined.box(SIZE, SIZE)
        assert before is not None
        assert after is not None
        assert before[2] < after[2]
        assert before[3] < after[3]

    @pytest.mark.parametrize("value", [0.0, np.nan])
    def test_without_a_foreground_the_box_is_the_heatmaps_at_that_threshold(
        self, value: float
    ) -> None:
        nothing = np.full((4, 4), value, np.float32)
        maps = outputs(gradcam=cells((0, 0, 2)), foreground=nothing)
        evidence = find(card(fused=FUSED), maps, LAST)
        alone = find(card(), maps, LAST, threshold=0.3)
        assert evidence.box(SIZE, SIZE) == alone.box(SIZE, SIZE) == (0, 0, 2, 2)


def grown(raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return heatmaps.resize(heatmaps.relu_max(raw).values, SIZE, SIZE)


@pytest.mark.parametrize(
    ("value", "status"), [(0.0, "empty"), (2.5, "constant"), (np.nan, "nonfinite")]
)
@pytest.mark.parametrize("rule", Rule)
def test_without_evidence_there_is_no_box_whatever_the_foreground_shows(
    value: float, status: str, rule: Rule
) -> None:
    maps = outputs(gradcam=np.full((4, 4), value, np.float32), foreground=cells((3, 3, 5)))
    evidence = find(card(fused=FUSED), maps, LAST, rule=rule)
    assert evidence.heatmap.status == status
    assert evidence.rule is rule
    assert evidence.values is evidence.searched is None
    assert evidence.box(10, 10) is None
    assert evidence.peak(10, 10) is None
    assert evidence.boxes((0.1, 0.2), 10, 10) == [None, None]


class TestForeground:
    RAW = np.array([[4, 2], [-4, 0]], np.float32).repeat(2, 0).repeat(2, 1)

    @pytest.mark.parametrize("rule", ["ddt", "channel_sum"])
    def test_signed_by_least_and_greatest(self, rule: Any) -> None:
        toy = card(Foreground(rule=rule, photos=0))
        heatmap = foreground_of(toy, outputs(foreground=self.RAW))
        np.testing.assert_allclose(
            heatmap.values[::2, ::2], [[1.0, 6 / 8], [0.0, 4 / 8]], rtol=1e-6
        )

    def test_learnt_from_boxes_its_zero_is_zero(self) -> None:
        heatmap = foreground_of(card(), outputs(foreground=self.RAW))
        np.testing.assert_allclose(heatmap.values[::2, ::2], [[1.0, 0.5], [0.0, 0.0]], rtol=1e-6)

    def test_the_last_layers_alone_unless_others_are_named(self) -> None:
        maps = outputs(foreground=self.RAW, foreground_fine=cells((7, 7, 1), size=8))
        alone = foreground_of(card(), maps)
        np.testing.assert_array_equal(alone.values, heatmaps.relu_max(self.RAW).values)
        fine = Foreground(rule="boxes", photos=200, layers=("fine",))
        np.testing.assert_array_equal(
            foreground_of(card(fine), maps).values, maps["foreground_fine"]
        )

    def test_several_layers_are_fused_at_the_finest_of_their_sizes(self) -> None:
        toy = card(Foreground(rule="boxes", photos=200, layers=("fine", "late")))
        maps = outputs(foreground=cells((0, 0, 3)), foreground_fine=cells((7, 7, 2), size=8))
        heatmap = foreground_of(toy, maps)
        expected = np.outer(STEPS, STEPS)
        expected[7, 7] = 1
        np.testing.assert_allclose(heatmap.values, expected, atol=1e-6)
