from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Method, Rule
from app.evidence import CURVE_THRESHOLDS, Evidence, MethodAtLayers
from app.heatmaps import Heatmap
from app.images import Box
from app.panels import Panel, draw, make
from app.schemas import CompareQuery, ImageInfo, Prediction

Map = npt.NDArray[np.float32]

LAST = MethodAtLayers(Method.GRADCAM, "last", ("late",))


def evidence(values: Map | None, searched: Map | None = None, threshold: float = 0.5) -> Evidence:
    """Of a map that is as large as the model's input; without one, there is none."""
    if values is None:
        nothing = Heatmap(np.zeros((2, 2), np.float32), "empty")
        return Evidence(nothing, None, Rule.HEATMAP, threshold, None)
    rule = Rule.HEATMAP if searched is None else Rule.FUSED
    around = values if searched is None else searched
    return Evidence(Heatmap(values, "ok"), values, rule, threshold, around)


def panel_of(shown: Evidence, photo: tuple[int, int], *boxes: Box, **changes: Any) -> Panel:
    options: dict[str, Any] = {"versus": None, "curve": False} | changes
    size = ImageInfo(width=photo[0], height=photo[1])
    return make(shown, LAST, size, list(boxes), **options)


BLOCK = np.zeros((10, 10), np.float32)
BLOCK[2:5, 1:5] = 0.25
BLOCK[3, 2] = 1
"""12 cells that sum to 3.75; at a threshold of 0.25, in the box (1, 2, 5, 5)."""


class TestFigures:
    def test_explanation(self) -> None:
        other = Prediction(class_index=1, label="pug", synset=None, probability=0.25)
        explanation = panel_of(evidence(BLOCK, threshold=0.25), (20, 30), versus=other).explanation
        assert (explanation.method, explanation.layers) == (Method.GRADCAM, ["late"])
        assert explanation.versus == other
        assert (explanation.rule, explanation.threshold, explanation.status) == (
            Rule.HEATMAP,
            0.25,
            "ok",
        )
        assert explanation.box == (2, 6, 10, 15)
        assert explanation.peak == (5, 10.5)

    def test_without_boxes_there_is_nothing_to_agree_with(self) -> None:
        assert panel_of(evidence(BLOCK), (10, 10), curve=True).localization is None

    def test_localization_is_of_the_best_box(self) -> None:
        far, half, near = (7.0, 7.0, 9.0, 9.0), (1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0, 4.0)
        localization = panel_of(
            evidence(BLOCK, threshold=0.25), (10, 10), far, half, near
        ).localization
        assert localization is not None
        assert [entry.box for entry in localization.all] == [far, half, near]
        assert [entry.iou for entry in localization.all] == pytest.approx([0, 6 / 12, 8 / 12])
        assert localization.box == near
        assert localization.iou == pytest.approx(8 / 12)
        # Its two rows of four hold the 1 and seven quarters.
        assert localization.energy_in_box == pytest.approx(2.75 / 3.75)
        assert localization.peak_in_box is True
        assert localization.curve is None

    def test_the_first_of_equals_is_the_best(self) -> None:
        left, right = (0.0, 0.0, 1.0, 1.0), (9.0, 9.0, 10.0, 10.0)
        localization = panel_of(evidence(BLOCK), (10, 10), right, left).localization
        assert localization is not None
        assert (localization.box, localization.iou) == (right, 0)
        assert (localization.energy_in_box, localization.peak_in_box) == (0, False)

    def test_energy_and_peak_are_of_the_heatmap_and_the_box_of_what_is_searched(self) -> None:
        searched = BLOCK[::-1].copy()
        panel = panel_of(evidence(BLOCK, searched, 0.25), (10, 10), (1, 5, 5, 8), (0, 0, 10, 5))
        assert panel.explanation.rule is Rule.FUSED
        assert panel.explanation.box == (1, 5, 5, 8)
        assert panel.explanation.peak == (2.5, 3.5)
        assert panel.localization is not None
        assert panel.localization.iou == 1
        assert panel.localization.energy_in_box == 0
        assert panel.localization.peak_in_box is False

    def test_without_evidence(self) -> None:
        panel = panel_of(evidence(None), (10, 10), (1, 2, 5, 5), (0, 0, 9, 9), curve=True)
        assert panel.explanation.status == "empty"
        assert panel.explanation.box is None
        assert panel.explanation.peak is None
        assert panel.localization is not None
        assert [entry.iou for entry in panel.localization.all] == [0, 0]
        assert panel.localization.energy_in_box == 0
        assert panel.localization.peak_in_box is False
        assert panel.localization.curve is not None
        assert set(panel.localization.curve.ious) == {0.0}
        assert panel.localization.curve.oracle.iou == 0


STAIRS = np.tile(np.array([round(0.02 * step, 2) for step in range(1, 51)], np.float32), (10, 1))
"""Column by column 0.02, 0.04, ... 1: at 0.02 k, all columns from k - 1 on remain."""


class TestCurve:
    def test_thresholds(self) -> None:
        assert CURVE_THRESHOLDS[:3] == (0.02, 0.04, 0.06)
        assert CURVE_THRESHOLDS[-1] == 0.98
        assert len(CURVE_THRESHOLDS) == 49

    def test_by_hand(self) -> None:
        """A box from column 20 on: that at 0.42 is it, and each other is too large or too small."""
        localization = panel_of(
            evidence(STAIRS), (100, 20), (40, 0, 100, 20), curve=True
        ).localization
        assert localization is not None
        assert localization.curve is not None
        assert localization.curve.thresholds == list(CURVE_THRESHOLDS)
        lengths = [50 - first for first in range(49)]
        assert localization.curve.ious == pytest.approx(
            [min(length, 30) / max(length, 30) for length in lengths]
        )
        assert (localization.curve.oracle.threshold, localization.curve.oracle.iou) == (0.42, 1)
        # The answer itself is of the threshold in use: at 0.5, columns 24 to 49.
        assert localization.iou == pytest.approx(26 / 30)

    def test_it_is_of_the_best_box_alone(self) -> None:
        # At 0.5, columns 24 to 49 remain: the second box is nearer, and best at 0.6.
        far, near = (0.0, 0.0, 20.0, 10.0), (29.0, 0.0, 50.0, 10.0)
        localization = panel_of(evidence(STAIRS), (50, 10), far, near, curve=True).localization
        assert localization is not None
        assert localization.curve is not None
        assert localization.box == near
        assert (localization.curve.oracle.threshold, localization.curve.oracle.iou) == (0.6, 1)

    def test_the_least_of_equal_thresholds_is_the_oracles(self) -> None:
        localization = panel_of(evidence(BLOCK), (10, 10), (1, 2, 5, 5), curve=True).localization
        assert localization is not None
        assert localization.curve is not None
        # Up to 0.24 the whole block, then its one hot cell.
        assert localization.curve.ious == pytest.approx([1.0] * 12 + [1 / 12] * 37)
        assert (localization.curve.oracle.threshold, localization.curve.oracle.iou) == (0.02, 1)

    def test_it_is_of_what_is_searched(self) -> None:
        panel = panel_of(evidence(BLOCK, BLOCK[::-1].copy()), (10, 10), (1, 5, 5, 8), curve=True)
        assert panel.localization is not None
        assert panel.localization.curve is not None
        assert panel.localization.curve.oracle.iou == 1


HALF = np.zeros((10, 10), np.float32)
HALF[:, 5:] = 1


class TestDraw:
    PIXELS = np.random.default_rng(1).integers(0, 255, (40, 20, 3)).astype(np.uint8)
    """A photo of 100 x 200, at a fifth."""

    @classmethod
    def drawn(cls, shown: Evidence, *boxes: Box, **query: Any) -> npt.NDArray[np.uint8]:
        panel = panel_of(shown, (100, 200), *boxes)
        photo = ImageInfo(width=100, height=200)
        return draw(panel, cls.PIXELS, CompareQuery(colormap="hot", **query), photo, boxes)

    def test_the_heatmap_grows_to_the_picture(self) -> None:
        picture = self.drawn(evidence(HALF), alpha=1)
        assert (picture[:, :9] == 0).all()
        assert (picture[3:37, 13:17] == 255).all()
        assert (picture[:, 10] == (64, 255, 64)).all()

    def test_what_is_searched_is_not_what_is_shown(self) -> None:
        picture = self.drawn(evidence(HALF, HALF[:, ::-1].copy()), alpha=1)
        assert (picture[3:37, 3:7] == 0).all()
        assert (picture[:, 13:] == 255).all()
        assert (picture[:, 9] == (64, 255, 64)).all()

    def test_boxes_are_drawn_at_the_pictures_scale(self) -> None:
        picture = self.drawn(evidence(BLOCK, threshold=0.25), (60, 120, 95, 190), alpha=0)
        # First and last pixel of (2, 8, 10, 20), and of (12, 24, 19, 38).
        assert picture[8, 2].tolist() == picture[19, 9].tolist() == [64, 255, 64]
        assert picture[24, 12].tolist() == picture[37, 18].tolist() == [255, 255, 255]
        np.testing.assert_array_equal(picture[:6], self.PIXELS[:6])

    def test_without_evidence_it_is_the_photo(self) -> None:
        picture = self.drawn(evidence(None), alpha=1)
        np.testing.assert_array_equal(picture, self.PIXELS)
        assert not np.shares_memory(picture, self.PIXELS)
