"""Which layers' maps make the foreground's heatmap, decided on photos held out from learning.

Each exposed layer is a candidate, and so is each pair, fused. Which gives the best boxes depends on
the network: a last layer that was trained on many classes tells breeds apart well, and the dog from
its surroundings less well.

A set of layers scores its mean IoU at the best threshold t for it:

    score(layers) = max_t  mean over photos  IoU(box of the fused heatmap at t, true box)
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box, scale_box
from training.calibration.boxes import THRESHOLDS
from training.evaluation.metrics import best_iou
from training.export.foreground import Maps, Projection, RidgeRegression, fused_layers

__all__ = ["BoxedForeground", "RawMaps", "best_layers"]

RawMaps = dict[str, npt.NDArray[np.float32]]
"""One photo's raw `foreground` maps `[h, w]`, by layer."""


class BoxedForeground:
    """Ridge regression at each layer, and the choice of layers, batch by batch.

    Directions learnt from the first half of the photos are tried on the second half. So each photo
    runs through the network once, and no photo is scored with directions that it helped to learn:

        photos        1 ......... n/2 | ......... n
        regression    ------------------------------>   final directions, from all photos
                                      |
                      half-way directions, tried on the photos from here on

    A batch that straddles the middle is learnt from, not tried.
    """

    def __init__(self, photos: int, size: int) -> None:
        """Start without photos.

        Args:
            photos: number of photos that will be added, in an order that makes the halves alike.
            size: side of the model's square input in pixels, at which boxes are located.
        """
        self._first_half = (photos + 1) // 2
        self._size = size
        self._photos = 0
        self._regressions: dict[str, RidgeRegression] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._halfway: dict[str, Projection] = {}
        self._raw: list[RawMaps] = []
        self._boxes: list[Sequence[Box]] = []

    def add(self, maps: Mapping[str, Maps], boxes: Sequence[Sequence[Box]]) -> None:
        """Add photos.

        Args:
            maps: activations `[n, h, w, C]` by layer, first to last.
            boxes: of each photo, as shares of its width and height.
        """
        if not self._sizes:
            self._sizes = {name: activations.shape[1:] for name, activations in maps.items()}
            self._regressions = {name: RidgeRegression() for name in maps}
        if self._photos >= self._first_half:
            self._try(maps, boxes)
        for name, activations in maps.items():
            self._regressions[name].add(activations, boxes)
        self._photos += len(boxes)

    def _try(self, maps: Mapping[str, Maps], boxes: Sequence[Sequence[Box]]) -> None:
        """Keep the raw maps of photos, by the half-way directions."""
        if not self._halfway:
            self._halfway = {
                name: regression.projection() for name, regression in self._regressions.items()
            }
        # [n, h, w, C] @ [C] -> [n, h, w]
        raw = {
            name: maps[name] @ projection.direction - np.float32(projection.offset)
            for name, projection in self._halfway.items()
        }
        self._raw += [{name: raw[name][row] for name in raw} for row in range(len(boxes))]
        self._boxes += boxes

    def projections(self) -> dict[str, Projection]:
        """Each layer's projection, learnt from all photos."""
        return {name: regression.projection() for name, regression in self._regressions.items()}

    def layers(self) -> tuple[str, ...]:
        """The best layer or pair; `fused_layers` if no photo was left to try them on."""
        if not self._raw:
            return fused_layers(self._sizes)
        return best_layers(self._raw, self._boxes, tuple(self._sizes), self._size)


def best_layers(
    raw: Sequence[RawMaps], boxes: Sequence[Sequence[Box]], candidates: Sequence[str], size: int
) -> tuple[str, ...]:
    """The layer or pair whose heatmap scores best; of equal scores, a single one's wins.

    Args:
        raw: each photo's maps.
        boxes: of each photo, as shares of its width and height.
        candidates: the layers, first to last.
        size: side of the square at which boxes are located, in pixels.
    """
    layer_sets = [*combinations(candidates, 1), *combinations(candidates, 2)]
    scores = []
    for layers in layer_sets:
        ious = [
            _ious(photo_maps, photo_boxes, layers, size)
            for photo_maps, photo_boxes in zip(raw, boxes, strict=True)
        ]  # [photos, thresholds]
        scores.append(np.mean(ious, axis=0).max())
    return layer_sets[int(np.argmax(scores))]  # the first of equal ones


def _ious(
    raw: RawMaps, boxes: Sequence[Box], layers: Sequence[str], size: int
) -> npt.NDArray[np.float64]:
    """One photo's IoU at each threshold, `[thresholds]`."""
    heatmap = heatmaps.from_maps([raw[layer] for layer in layers], signed=False)
    values = heatmaps.resize(heatmap.values, size, size)
    true_boxes = [scale_box(box, (1, 1), (size, size)) for box in boxes]
    predicted_boxes = heatmaps.locate_all(values, THRESHOLDS)
    return np.array([best_iou(box, true_boxes) for box in predicted_boxes])
