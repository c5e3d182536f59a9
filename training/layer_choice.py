"""Which layers' maps make the foreground's heatmap, tried on photos that did not teach it.

Two layers are candidates: the last, and the last one with a finer map. Which of them, or whether
both together, gives the best boxes depends on the network: descriptors of a last stage that was
trained on many classes tell breeds apart, and less well where the dog ends.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box, scale_box
from training.calibration import THRESHOLDS
from training.foreground import Maps, Projection, RidgeRegression, fused_layers
from training.metrics import best_iou

__all__ = ["BoxedForeground", "Raw", "best_layers"]

Raw = dict[str, npt.NDArray[np.float32]]
"""One photo's raw `foreground` maps `[h, w]`, by layer."""


class BoxedForeground:
    """Ridge regression at each layer, and a trial of the layers; batch by batch.

    Directions learnt from the first half of the photos are tried on the second half, so that each
    photo is run once and no photo is tried with directions that it taught. The final directions
    are learnt from all photos.
    """

    def __init__(self, photos: int, size: int) -> None:
        """Begin with no photos.

        Args:
            photos: how many there will be, in an order in which either half is like the other.
            size: pixels of the model's square input, at which boxes are located.
        """
        self._teaching = (photos + 1) // 2
        self._size = size
        self._photos = 0
        self._regressions: dict[str, RidgeRegression] = {}
        self._candidates: tuple[str, ...] = ()
        self._half: dict[str, Projection] = {}
        self._raw: list[Raw] = []
        self._boxes: list[Sequence[Box]] = []

    def add(self, maps: Mapping[str, Maps], boxes: Sequence[Sequence[Box]]) -> None:
        """Take in photos.

        Args:
            maps: activations `[n, h, w, C]` by layer, first to last.
            boxes: of each photo, as shares of its width and height.
        """
        if not self._candidates:
            self._candidates = fused_layers({name: of.shape[1:] for name, of in maps.items()})
            self._regressions = {name: RidgeRegression() for name in maps}
        if self._photos >= self._teaching and len(self._candidates) > 1:
            self._try(maps, boxes)
        for name, of_layer in maps.items():
            self._regressions[name].add(of_layer, boxes)
        self._photos += len(boxes)

    def _try(self, maps: Mapping[str, Maps], boxes: Sequence[Sequence[Box]]) -> None:
        """Keep the candidates' raw maps of photos, by the first half's directions."""
        if not self._half:
            self._half = {name: self._regressions[name].projection() for name in self._candidates}
        # [n, h, w, C] @ [C] -> [n, h, w]
        raw = {
            name: maps[name] @ projection.direction - np.float32(projection.offset)
            for name, projection in self._half.items()
        }
        self._raw += [{name: raw[name][row] for name in raw} for row in range(len(boxes))]
        self._boxes += boxes

    def projections(self) -> dict[str, Projection]:
        """Each layer's direction, from all photos."""
        return {name: regression.projection() for name, regression in self._regressions.items()}

    def layers(self) -> tuple[str, ...]:
        """The best of the candidates; all of them where no photo was left to try them on."""
        if not self._raw:
            return self._candidates
        return best_layers(self._raw, self._boxes, self._candidates, self._size)


def best_layers(
    raw: Sequence[Raw], boxes: Sequence[Sequence[Box]], candidates: Sequence[str], size: int
) -> tuple[str, ...]:
    """The layers whose fused heatmap gives the best boxes; the more layers, of equal ones.

    Sets are compared by mean IoU, each at the threshold that is best for it.

    Args:
        raw: maps of each photo.
        boxes: of each photo, as shares of its width and height.
        candidates: the layers, first to last.
        size: pixels of the square at which boxes are located.
    """
    sets = [tuple(candidates), *((layer,) for layer in candidates)]
    scores = [
        np.mean([_ious(row, of, layers, size) for row, of in zip(raw, boxes, strict=True)], axis=0)
        for layers in sets
    ]  # [thresholds] each
    return sets[int(np.argmax([score.max() for score in scores]))]


def _ious(
    raw: Raw, boxes: Sequence[Box], layers: Sequence[str], size: int
) -> npt.NDArray[np.float64]:
    """One photo's IoU at each threshold."""
    heatmap = heatmaps.from_maps([raw[layer] for layer in layers], signed=False)
    values = heatmaps.resize(heatmap.values, size, size)
    true = [scale_box(box, (1, 1), (size, size)) for box in boxes]
    return np.array([best_iou(box, true) for box in heatmaps.locate_all(values, THRESHOLDS)])
