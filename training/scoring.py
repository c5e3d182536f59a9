"""One photo's heatmaps and boxes held against its true boxes: what the figures are means of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import engines, heatmaps, images
from app.bundle import DEFAULT_THRESHOLD, Method, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import CURVE_THRESHOLDS, Evidence, LayerSet, enlarged
from training.data import Example
from training.explanations import FUSED, Explained, explain, layer_sets
from training.figures import BASELINES
from training.localization import (
    SCORE_THRESHOLDS,
    box_hits,
    energy_in_area,
    hits_at_levels,
    pointing_hit,
)
from training.metrics import best_iou

__all__ = ["Score", "Scored", "default", "localize", "main_sets"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One photo's figures for one heatmap and its box.

    Attributes:
        iou: of the box with the best of the true boxes.
        points: whether the heatmap's peak hits, as the pointing game counts.
        energy: of the heatmap in the true box that fits the box best, as the service tells it.
        hits: of the map that the box is searched in; see `box_hits`.
    """

    iou: float
    points: bool
    energy: float
    hits: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scored:
    """A photo's figures.

    Attributes:
        example: the photo, which has boxes.
        plain: by the rule `heatmap`, of every layer set.
        fused: by the rule `fused`, of those of `main_sets` that it is calibrated for.
        customary: of Grad-CAM at the last layer the way it is usually done; see `_customary`.
        baselines: of the guesses that look at no photo.
        curves: IoU at each of `CURVE_THRESHOLDS`, of `main_sets` by each rule that there is.
    """

    example: Example
    plain: dict[LayerSet, Score]
    fused: dict[LayerSet, Score]
    customary: Score
    baselines: dict[str, Score]
    curves: dict[tuple[LayerSet, Rule], Floats]

    def by_default(self, layers: LayerSet) -> Score:
        """By the rule that the service takes unless told otherwise."""
        return self.fused.get(layers, self.plain[layers])


def main_sets(card: ModelCard) -> list[LayerSet]:
    """The last layer and the last six: those whose figures are slow, or many."""
    return [layers for layers in layer_sets(card) if layers.name in FUSED]


def default(card: ModelCard, method: Method) -> LayerSet:
    """What `/cam` and `/gradcam` explain by unless told otherwise: the method at the last layer."""
    return LayerSet.of(card, method, card.layer_names[-1:])


def localize(card: ModelCard, engine: Engine, examples: Sequence[Example]) -> list[Scored]:
    """The figures of photos with boxes, for each one's true class (GT-known)."""
    return list(explain(card, engine, examples, Cut.EXPLAIN_DEEP, _scored, "localisation"))


def _scored(row: Explained) -> Scored:
    every = [(layers, row.evidence(layers, Rule.HEATMAP)) for layers in layer_sets(row.card)]
    found = {(layers, Rule.HEATMAP): evidence for layers, evidence in every}
    for layers in main_sets(row.card):
        if layers.name in row.card.fused.get(layers.method, {}):
            found[layers, Rule.FUSED] = row.evidence(layers, Rule.FUSED)

    def scores(wanted: Rule) -> dict[LayerSet, Score]:
        return {key: _score(row, one) for (key, rule), one in found.items() if rule is wanted}

    return Scored(
        example=row.example,
        plain=scores(Rule.HEATMAP),
        fused=scores(Rule.FUSED),
        customary=_score(row, _customary(row)),
        baselines={name: _score_of_guess(row, share) for name, share in BASELINES.items()},
        curves={key: _curve(row, one) for key, one in found.items() if key[0].name in FUSED},
    )


def _score(row: Explained, evidence: Evidence) -> Score:
    """What the service would say, and how often it would be right at other thresholds."""
    size, boxes = row.card.input.size, row.boxes
    whole = (row.width, row.height)
    inner = [images.scale_box(box, whole, (size, size)) for box in boxes]
    if evidence.values is None:
        return Score(0.0, False, 0.0, box_hits(None, inner))
    found = evidence.box(*whole)
    best = int(np.argmax([best_iou(found, [box]) for box in boxes]))
    return Score(
        iou=best_iou(found, boxes),
        points=pointing_hit(evidence.peak(*whole), boxes),
        energy=heatmaps.energy_in_box(evidence.values, inner[best]),
        hits=box_hits(evidence.searched, inner),
    )


def _customary(row: Explained) -> Evidence:
    """Grad-CAM at the last layer the way it is usually done, at a threshold that is not calibrated.

    Normalised by its least and greatest value, at or over 15 % of the maximum: the threshold of
    Selvaraju et al., Grad-CAM, 2017.
    """
    output = engines.layer_output(row.card, Method.GRADCAM.value, row.card.layer_names[-1])
    heatmap = heatmaps.min_max(row.outputs[output])
    values = enlarged(row.card, heatmap) if heatmap.status == "ok" else None
    return Evidence(heatmap, values, Rule.HEATMAP, DEFAULT_THRESHOLD, values)


def _score_of_guess(row: Explained, share: images.Box) -> Score:
    guess, boxes = images.scale_box(share, (1, 1), (row.width, row.height)), row.boxes
    ious = [heatmaps.iou(guess, box) for box in boxes]
    middle = ((guess[0] + guess[2]) / 2, (guess[1] + guess[3]) / 2)
    return Score(
        iou=max(ious),
        points=pointing_hit(middle, boxes),
        energy=energy_in_area(guess, boxes[int(np.argmax(ious))]),
        hits=np.tile(hits_at_levels(max(ious)), (len(SCORE_THRESHOLDS), 1)),
    )


def _curve(row: Explained, evidence: Evidence) -> Floats:
    boxes = row.boxes
    found = evidence.boxes(CURVE_THRESHOLDS, row.width, row.height)
    return np.array([best_iou(box, boxes) for box in found])
