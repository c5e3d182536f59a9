"""Whether the model relies on what a heatmap shows: insertion and deletion."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "BLANK",
    "STEPS",
    "area_under_curve",
    "blurred",
    "deletion_frames",
    "in_order",
    "insertion_deletion",
    "insertion_frames",
]

Pixels = npt.NDArray[np.uint8]
Predict = Callable[[Pixels], npt.NDArray[np.floating]]
"""From uint8 RGB `[N, S, S, 3]` to probabilities `[N, classes]`."""

STEPS = 31
"""Steps from the first frame to the last: these 32 frames are a batch that needs no padding."""

BLANK = (124, 116, 104)
"""ImageNet's mean colour, RGB: zero, once an input is normalised as RISE's are."""


def in_order(values: npt.NDArray[np.floating], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Pixels from the heatmap's greatest to its least; equal ones in a random order.

    Args:
        values: a heatmap `[h, w]`.
        rng: draws the order of equal pixels.

    Returns:
        Indices into the flat heatmap, `[h * w]`.
    """
    shuffled = rng.permutation(values.size)
    return shuffled[np.argsort(-values.ravel()[shuffled], kind="stable")]


def _frames(start: Pixels, end: Pixels, order: npt.NDArray[np.intp], steps: int) -> Pixels:
    """From `start` to `end`, pixels in order, in equal steps: `[steps + 1, h, w, 3]`."""
    cuts = np.rint(np.linspace(0, order.size, steps + 1)).astype(np.intp)
    frames = np.empty((steps + 1, order.size, 3), np.uint8)
    frames[0] = start.reshape(-1, 3)
    for step, pixels in enumerate(np.split(order, cuts[1:-1]), 1):
        frames[step] = frames[step - 1]
        frames[step, pixels] = end.reshape(-1, 3)[pixels]
    return frames.reshape(steps + 1, *start.shape)


def blurred(image: Pixels) -> Pixels:
    """What insertion starts from: a Gaussian of 5 pixels in a window of 11, edges mirrored."""
    return cv2.GaussianBlur(image, (11, 11), 5)  # type: ignore[return-value]


def deletion_frames(image: Pixels, order: npt.NDArray[np.intp], steps: int = STEPS) -> Pixels:
    """The image with more and more of its pixels, in order, blank: `[steps + 1, h, w, 3]`."""
    return _frames(image, np.broadcast_to(np.array(BLANK, np.uint8), image.shape), order, steps)


def insertion_frames(image: Pixels, order: npt.NDArray[np.intp], steps: int = STEPS) -> Pixels:
    """The blurred image with more and more of its pixels sharp: `[steps + 1, h, w, 3]`."""
    return _frames(blurred(image), image, order, steps)


def area_under_curve(curve: npt.NDArray[np.floating]) -> float:
    """By trapezoids, over a way of length 1: the mean height of a curve `[steps + 1]`."""
    return float((curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))


def insertion_deletion(
    predict: Predict,
    image: Pixels,
    values: npt.NDArray[np.floating],
    target: int,
    rng: np.random.Generator,
    *,
    steps: int = STEPS,
) -> tuple[float, float]:
    """Insertion and deletion AUC of one heatmap: greater and lesser is better, respectively.

    Petsiuk et al., RISE, 2018: the target's probability as pixels, those of the greatest values
    first, come into a blurred photo, and as they go from the photo.

    As theirs: a blank is ImageNet's mean colour, the blur a Gaussian of sigma 5 in a window of 11,
    the curve's area is by trapezoids. Ours: a step is 1/31 of the pixels (1,619 of 224 x 224; RISE
    takes 224), pixels of equal value go in a random order, and the blur mirrors the edges, where
    RISE's sees black.

    Args:
        predict: gives probabilities of `steps + 1` photos at once.
        image: the model's input, uint8 RGB `[S, S, 3]`.
        values: the heatmap `[S, S]`; all zero for a random order.
        target: the class whose probability is followed; RISE's, and the service's, is the top-1.
        rng: draws the order of equal pixels.
        steps: of each curve.

    Returns:
        Insertion AUC and deletion AUC, 0..1.
    """
    order = in_order(values, rng)
    insertion, deletion = (
        area_under_curve(predict(frames)[:, target].astype(np.float64))
        for frames in (
            insertion_frames(image, order, steps),
            deletion_frames(image, order, steps),
        )
    )
    return insertion, deletion
