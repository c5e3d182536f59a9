"""Scores one photo's heatmaps and boxes against its true boxes; figures are means of these."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import engines, heatmaps, images
from app.bundle import DEFAULT_THRESHOLD, Method, ModelCard, Rule
from app.evidence import CURVE_THRESHOLDS, Evidence, MethodAtLayers, enlarged
from training.data.dataset import Example
from training.evaluation.inference import FUSED, Explained, layer_sets
from training.evaluation.localization import (
    SCORE_THRESHOLDS,
    box_hits,
    energy_in_area,
    hits_at_levels,
    ious,
    is_flat,
    levels,
    pointing_hit,
)
from training.evaluation.statistics import BASELINES

__all__ = ["Score", "Scored", "default", "main_sets", "score_of_guess", "scored"]

Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Score:
    """One photo's figures for one heatmap and its box.

    Attributes:
        iou: of the box with the best of the true boxes.
        points: whether the heatmap's peak hits, as the pointing game counts.
        energy: of the heatmap in the true box that fits the box best, as in the service's answer.
        hits: of the map that the box is searched in, see `box_hits`; None for layer sets other
            than those of `main_sets`: a hundred boxes more for each would double the time.
    """

    iou: float
    points: bool
    energy: float
    hits: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A photo's figures.

    Attributes:
        example: the photo, which has boxes.
        plain: by the rule `heatmap`, of every layer set.
        fused: by the rule `fused`, of those of `main_sets` that it is calibrated for.
        customary: of Grad-CAM at the last layer the way it is usually done; see `_customary`.
        baselines: of the boxes that ignore the photo.
        curves: IoU at each of `CURVE_THRESHOLDS`, of `main_sets` by every rule that there is.
    """

    example: Example
    plain: dict[MethodAtLayers, Score]
    fused: dict[MethodAtLayers, Score]
    customary: Score
    baselines: dict[str, Score]
    curves: dict[tuple[MethodAtLayers, Rule], Floats]

    def by_default(self, layers: MethodAtLayers) -> Score:
        """By the service's default rule."""
        return self.fused.get(layers, self.plain[layers])


def main_sets(card: ModelCard) -> list[MethodAtLayers]:
    """The last layer and the last six: those whose figures are slow, or many."""
    return [layers for layers in layer_sets(card) if layers.name in FUSED]


def default(card: ModelCard, method: Method) -> MethodAtLayers:
    """The default layers of `/cam` and `/gradcam`: the method at the last layer."""
    return MethodAtLayers.of(card, method, card.layer_names[-1:])


def scored(row: Explained) -> Scored:
    """The figures of a photo with boxes, by all layer sets, rules and baselines (GT-known).

    Args:
        row: with the outputs of `Cut.EXPLAIN_DEEP`.
    """
    keys = [(layers, Rule.HEATMAP) for layers in layer_sets(row.card)]
    keys += [
        (layers, Rule.FUSED)
        for layers in main_sets(row.card)
        if layers.name in row.card.fused.get(layers.method, {})
    ]
    evidence = {key: row.evidence(*key) for key in keys}
    search = _Search(row.boxes_in_input)
    # The sweep over thresholds is slow: only at the last layer and the last six.
    regions = {
        (layers, rule): search.regions(evidence[layers, rule], sweep=layers.name in FUSED)
        for layers, rule in keys
    }

    def scores(by: Rule) -> dict[MethodAtLayers, Score]:
        return {
            layers: _score(row, evidence[layers, rule], regions[layers, rule])
            for layers, rule in keys
            if rule is by
        }

    customary = _customary(row)
    return Scored(
        example=row.example,
        plain=scores(Rule.HEATMAP),
        fused=scores(Rule.FUSED),
        customary=_score(row, customary, search.regions(customary, sweep=True)),
        baselines={name: score_of_guess(row, share) for name, share in BASELINES.items()},
        curves={key: regions[key].curve for key in keys if key[0].name in FUSED},
    )


@dataclass(frozen=True, slots=True)
class _Regions:
    """How the regions of one map fit a photo's B true boxes.

    Attributes:
        ious: of the box in use with each true box, `[B]`.
        hits: see `box_hits`, `[100, 3]`; None without a sweep.
        curve: IoU with the best true box at each of `CURVE_THRESHOLDS`; empty without a sweep.
    """

    ious: Floats
    hits: npt.NDArray[np.bool_] | None
    curve: Floats


class _Search:
    """Finds the regions of one photo's maps, once for all figures that need the same region.

    The service's thresholds are shares t of a map's maximum, at the level `t * max`. MaxBoxAccV2's
    are shares of its range, at `min + t * (max - min)`. Where the minimum is 0, as it often is,
    these levels coincide. So do whole maps, where methods agree.
    """

    def __init__(self, boxes: Sequence[images.Box]) -> None:
        """Begin with a photo's B true boxes, in pixels of the model's input."""
        self._boxes = boxes
        self._ious_by_level: dict[bytes, dict[float, Floats]] = {}  # by the map's content

    def regions(self, evidence: Evidence, *, sweep: bool) -> _Regions:
        """How well the box fits the true ones; with a sweep, at all other thresholds as well."""
        searched, thresholds = evidence.searched, CURVE_THRESHOLDS if sweep else ()
        if searched is None:
            hits = box_hits(None, self._boxes) if sweep else None
            return _Regions(np.zeros(len(self._boxes)), hits, np.zeros(len(thresholds)))
        own = np.array([evidence.threshold, *thresholds], np.float32) * searched.max()
        flat = not sweep or is_flat(searched)
        scores = own[:0] if flat else levels(searched, SCORE_THRESHOLDS)
        # Rows: the box in use, the curve's thresholds, MaxBoxAccV2's; columns: the true boxes.
        table = self._ious(searched, [*own.tolist(), *scores.tolist()])
        best = table.max(axis=1)
        if not sweep:
            return _Regions(table[0], None, best[1:1])
        hits = box_hits(None, self._boxes) if flat else hits_at_levels(best[len(own) :])
        return _Regions(table[0], hits, best[1 : len(own)])

    def _ious(self, searched: Map, at: Sequence[float]) -> Floats:
        """IoU of the largest region at each level with each true box, `[levels, B]`."""
        cache = self._ious_by_level.setdefault(searched.tobytes(), {})
        missing = sorted(set(at) - cache.keys())
        if missing:
            regions = heatmaps.boxes_at(searched, np.array(missing, np.float32))
            cache.update(zip(missing, ious(regions, self._boxes), strict=True))
        return np.array([cache[level] for level in at])


def _score(row: Explained, evidence: Evidence, regions: _Regions) -> Score:
    """The service's figures, and whether the box would be right at other thresholds."""
    if evidence.values is None:
        return Score(0.0, False, 0.0, regions.hits)
    best = int(np.argmax(regions.ious))
    return Score(
        iou=float(regions.ious[best]),
        points=pointing_hit(evidence.peak(row.width, row.height), row.boxes),
        energy=heatmaps.energy_in_box(evidence.values, row.boxes_in_input[best]),
        hits=regions.hits,
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


def score_of_guess(row: Explained, share: images.Box) -> Score:
    """The figures of a box that is the same share of every frame."""
    guess, boxes = images.scale_box(share, (1, 1), (row.width, row.height)), row.boxes
    ious = [heatmaps.iou(guess, box) for box in boxes]
    middle = ((guess[0] + guess[2]) / 2, (guess[1] + guess[3]) / 2)
    return Score(
        iou=max(ious),
        points=pointing_hit(middle, boxes),
        energy=energy_in_area(guess, boxes[int(np.argmax(ious))]),
        hits=np.tile(hits_at_levels(max(ious)), (len(SCORE_THRESHOLDS), 1)),
    )
