"""How far a photo's features lie from what the training photos' features span.

The residual of ViM (Wang et al., Out-of-distribution with virtual-logit matching, 2022): the
length of what is left of a feature, taken from the mean, beside the principal subspace. Classes
play no part in it, so that it sees what is like none of them: noise, a screen, an empty wall.

The length is measured along some random directions of all that there are beside the subspace
(Johnson & Lindenstrauss, 1984): its square is right in the mean, and the length errs by some 6 %.
The features are then read by one convolution alone, as engines have it cheapest.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DIMENSIONS", "DIRECTIONS", "Residual", "residual"]

DIMENSIONS = 256
"""Of the subspace at most; a quarter of the photos and half of the features are limits too."""

DIRECTIONS = 128
"""That the residual is measured along, at most."""


@dataclass(frozen=True)
class Residual:
    """What the `novelty` output measures: the length of `features @ directions - offset`.

    Attributes:
        dimensions: of the principal subspace.
        directions: float32 `[F, M]`, orthogonal to it and to each other, of equal length: 1, or
            longer by what is not measured along the others that there are.
        offset: float32 `[M]`, what they measure of the mean.
    """

    dimensions: int
    directions: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]


def residual(features: npt.NDArray[np.float32], seed: int = 0) -> Residual | None:
    """Directions beside those in which features vary most.

    Args:
        features: what the last Dense layer reads of each photo, `[N, F]`.
        seed: draws the directions.

    Returns:
        None where there are too few photos or features for a subspace.
    """
    count, width = features.shape
    dimensions = min(DIMENSIONS, count // 4, width // 2)
    if dimensions < 1:
        return None
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    principal = np.linalg.eigh(centred.T @ centred).eigenvectors[:, -dimensions:]
    beside = width - dimensions
    measured = min(DIRECTIONS, beside)
    # Drawn among all directions, so that how rounding turns the eigenvectors does not matter.
    drawn = np.random.default_rng(seed).normal(0, 1, (width, measured))
    drawn -= principal @ (principal.T @ drawn)
    directions = np.linalg.qr(drawn).Q * np.sqrt(beside / measured)
    return Residual(
        dimensions, directions.astype(np.float32), (mean @ directions).astype(np.float32)
    )
