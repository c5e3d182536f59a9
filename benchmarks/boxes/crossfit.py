"""Cross-fitting: what is chosen or learnt on one half of the photos is measured on the other."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.images import Box
from training.export.foreground import DescriptorTransform, Projection, RidgeRegression

__all__ = ["RULES", "Directions", "Half", "cross_fitted", "find_directions", "halves"]

Half = npt.NDArray[np.int_]
"""The half of each photo, 0 or 1: `[N]`."""

Directions = Mapping[tuple[str, str], Projection]
"""The foreground's directions, by rule and layer."""

RULES = ("ddt", "boxes")
"""The ways to find directions; see `training.export.foreground`."""


def halves(count: int, seed: int = 0) -> Half:
    """Assign photos to halves at random. The halves differ by one photo at most."""
    return np.random.default_rng(seed).permutation(count) % 2


def cross_fitted(tables: npt.NDArray[np.float64], half: Half) -> npt.NDArray[np.float64]:
    """The IoU of each photo, with the option that does best on the other half.

    Args:
        tables: IoUs `[2, N, K]` of K options (for example thresholds). `tables[h]` may depend on
            what was learnt from the photos of half h, and on no others.
        half: `[N]`.

    Returns:
        `[N]`.
    """
    measured = np.empty(len(half))
    for chosen_on in (0, 1):
        # Both the directions (`tables[chosen_on]`) and the option come from this half; only photos
        # of the other half are measured with them.
        in_half = half == chosen_on
        best = int(np.argmax(tables[chosen_on, in_half].mean(axis=0)))
        measured[~in_half] = tables[chosen_on, ~in_half, best]
    return measured


def find_directions(
    batches: Iterable[Mapping[str, npt.NDArray[np.float32]]],
    half: Half,
    boxes: Sequence[Sequence[Box]],
) -> tuple[Directions, Directions]:
    """The foreground's directions, learnt from each half alone.

    Args:
        batches: activations `[n, h, w, C]` by layer; all photos once, in order.
        half: `[N]`.
        boxes: of each photo, as fractions of its width and height.
    """
    ridge = [defaultdict[str, RidgeRegression](RidgeRegression) for _ in (0, 1)]
    transform = [defaultdict[str, DescriptorTransform](DescriptorTransform) for _ in (0, 1)]
    begin = 0
    for maps in batches:
        for layer, activations in maps.items():
            photos = np.arange(begin, begin + len(activations))
            for learnt_on in (0, 1):
                in_half = half[photos] == learnt_on
                if in_half.any():
                    half_boxes = [boxes[photo] for photo in photos[in_half]]
                    ridge[learnt_on][layer].add(activations[in_half], half_boxes)
                    transform[learnt_on][layer].add(activations[in_half])
        begin += len(activations)
    first, second = (
        {
            (rule, layer): learners[layer].projection()
            for rule, learners in (("ddt", transform[learnt_on]), ("boxes", ridge[learnt_on]))
            for layer in learners
        }
        for learnt_on in (0, 1)
    )
    return first, second
