"""One photo's figures, against the loops that their definitions say."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Fused, Method, ModelCard, Rule
from app.evidence import CURVE_THRESHOLDS, Evidence, MethodAtLayers, find
from training.data.dataset import Example
from training.evaluation.inference import Explained
from training.evaluation.localization import SCORE_THRESHOLDS
from training.evaluation.scoring import Score, main_sets, scored

Array = npt.NDArray[Any]

BOXES = ((0.1, 0.2, 0.6, 0.7), (0.3, 0.1, 0.9, 0.8))
"""Two dogs; the photo has 50 x 80 pixels, the model's input 32 x 32."""


def _row(card: ModelCard, seed: int) -> Explained:
    """Noise, some of which is over zero everywhere; CAM's is as Grad-CAM's at the last layer."""
    rng = np.random.default_rng(seed)
    outputs = {
        engines.layer_output(card, name, layer.name): rng.normal(
            0.3 if name != Method.LAYERCAM else 6, 1, (layer.height, layer.width)
        ).astype(np.float32)
        for name in [*card.methods, "foreground"]
        for layer in card.layers
    }
    outputs["gradcam"] = np.maximum(outputs["gradcam"], 0)
    outputs["hirescam"] = outputs["gradcam"]
    image = np.zeros((32, 32, 3), np.uint8)
    return Explained(card, Example("noise", b"", 0, BOXES), 50, 80, image, outputs)


def _straight(row: Explained, evidence: Evidence) -> tuple[float, list[float], list[list[bool]]]:
    """IoU, curve and hits: a threshold at a time, each in the whole map, in the photo's pixels."""
    searched = evidence.searched
    assert searched is not None

    def iou(mask: npt.NDArray[np.bool_]) -> float:
        box = heatmaps.locate(mask.astype(np.float32), 0.5)
        assert box is not None
        placed = images.scale_box(box, (32, 32), (50, 80))
        return max(heatmaps.iou(placed, true) for true in row.boxes)

    top, low = searched.max(), searched.min()
    curve = [iou(searched >= np.float32(share) * top) for share in CURVE_THRESHOLDS]
    shares = ((searched - low) / (top - low)).astype(np.float64)
    best = [iou(shares >= share - 1e-7) for share in SCORE_THRESHOLDS]
    hits = [[value >= level for level in (0.3, 0.5, 0.7)] for value in best]
    return iou(searched >= np.float32(evidence.threshold) * top), curve, hits


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_straight_loop(small_bundle: Bundle, seed: int) -> None:
    fused = {
        Method.GRADCAM: {"last": Fused(foreground=0.5, threshold=0.33)},
        Method.LAYERCAM: {"last6": Fused(foreground=0.25, threshold=0.7)},
    }
    thresholds = {Method.GRADCAM: {"last": 0.4}, Method.HIRESCAM: {"last": 0.62}}
    card = small_bundle.card.replace(fused=fused, thresholds=thresholds)
    row = _row(card, seed)

    photo = scored(row)

    def check(score: Score, layers: MethodAtLayers, rule: Rule) -> None:
        evidence = find(card, row.outputs, layers, rule=rule)
        expected, curve, hits = _straight(row, evidence)
        assert score.iou == pytest.approx(expected)
        if layers in main_sets(card):
            assert score.hits is not None
            assert score.hits.tolist() == hits
            assert photo.curves[layers, rule].tolist() == pytest.approx(curve)
        else:
            assert score.hits is None
        box = evidence.box(50, 80)
        assert box is not None
        best = max(row.boxes, key=lambda true: heatmaps.iou(box, true))
        assert evidence.values is not None
        scaled = images.scale_box(best, (50, 80), (32, 32))
        assert score.energy == pytest.approx(heatmaps.energy_in_box(evidence.values, scaled))

    for layers, score in photo.plain.items():
        check(score, layers, Rule.HEATMAP)
    for layers, score in photo.fused.items():
        check(score, layers, Rule.FUSED)
    assert {(layers.method, layers.name) for layers in photo.fused} == {
        (Method.GRADCAM, "last"),
        (Method.LAYERCAM, "last6"),
    }
    assert len({score.iou for score in photo.plain.values()}) > 5


def test_a_map_is_searched_once(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """HiResCAM's and Grad-CAM's map is the same here, and so is that of the customary rule."""
    searches: list[bytes] = []
    real = heatmaps.boxes_at

    def counted(values: Array, levels: Array) -> list[images.Box]:
        searches.append(values.tobytes())
        return real(values, levels)

    monkeypatch.setattr(heatmaps, "boxes_at", counted)
    row = _row(small_bundle.card, 0)

    photo = scored(row)

    assert len(searches) == len(set(searches)) == len(photo.plain) - 1
