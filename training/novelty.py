"""How far a photo's features lie from what the training photos' features span.

The residual of ViM (Wang et al., Out-of-distribution with virtual-logit matching, 2022): the
length of what is left of a feature, taken from the mean, beside the principal subspace. Classes
play no part in it, so that it sees what is like none of them: noise, a screen, an empty wall.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DIMENSIONS", "Subspace", "principal_subspace"]

DIMENSIONS = 256
"""Of the subspace at most; a quarter of the photos and half of the features are limits too."""


@dataclass(frozen=True)
class Subspace:
    """What the `novelty` output measures distances from.

    Attributes:
        mean: float32 `[F]`.
        basis: float32 `[F, D]`, orthonormal columns.
    """

    mean: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]


def principal_subspace(features: npt.NDArray[np.float32]) -> Subspace | None:
    """The directions in which features vary most.

    Args:
        features: what the last Dense layer reads of each photo, `[N, F]`.

    Returns:
        None where there are too few photos or features for one.
    """
    count, width = features.shape
    dimensions = min(DIMENSIONS, count // 4, width // 2)
    if dimensions < 1:
        return None
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    basis = np.linalg.eigh(centred.T @ centred).eigenvectors[:, -dimensions:]
    return Subspace(mean.astype(np.float32), basis.astype(np.float32))
