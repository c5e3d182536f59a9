"""How far a photo's features lie from the subspace that the training photos' features span.

The residual of ViM (Wang et al., ViM: Out-of-Distribution with Virtual-logit Matching, CVPR 2022).
With features x `[F]`, their mean m over the training photos, and P `[F, D]`, whose orthonormal
columns span the principal subspace, the first D principal directions:

    residual(x) = || (I - P P^T) (x - m) ||

Classes play no part, so the residual detects photos that resemble none of them: noise, a screen, an
empty wall.

It is measured along M random orthonormal directions Q `[F, M]` of the F - D that are orthogonal to
the subspace, and scaled up (Johnson & Lindenstrauss, 1984):

    novelty(x) = sqrt((F - D) / M) || Q^T (x - m) ||

Its square is right in expectation. With 128 directions, the length has a standard deviation of
6 %. The features are then read by one small convolution, which is what engines run cheapest.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DIMENSIONS", "DIRECTIONS", "Residual", "residual"]

DIMENSIONS = 256
"""Greatest dimension D of the subspace; it is further limited by photos / 4 and features / 2."""

DIRECTIONS = 128
"""Greatest number M of directions along which the residual is measured."""


@dataclass(frozen=True)
class Residual:
    """What the `novelty` output measures: `||features @ directions - offset||`.

    Attributes:
        dimensions: D, of the principal subspace.
        directions: `sqrt((F - D) / M) Q`, float32 `[F, M]`: orthogonal to the subspace and to each
            other, of equal length.
        offset: the mean's, `m @ directions`, float32 `[M]`.
    """

    dimensions: int
    directions: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]


def residual(features: npt.NDArray[np.float32], seed: int = 0) -> Residual | None:
    """Directions orthogonal to those in which features vary most.

    Args:
        features: what the last Dense layer reads of each photo, `[N, F]`.
        seed: of the random directions.

    Returns:
        None if there are too few photos or features for a subspace.
    """
    count, width = features.shape
    dimensions = min(DIMENSIONS, count // 4, width // 2)
    if dimensions < 1:
        return None
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    # P: eigenvalues ascend, so the last columns are the principal directions. [F, D]
    principal = np.linalg.eigh(centred.T @ centred).eigenvectors[:, -dimensions:]
    codimension = width - dimensions
    measured = min(DIRECTIONS, codimension)
    # Drawn in the whole space and then projected, (I - P P^T) R, rather than drawn from a basis of
    # the complement: rounding turns such a basis at will, and the directions would turn with it.
    random = np.random.default_rng(seed).normal(0, 1, (width, measured))
    random -= principal @ (principal.T @ random)
    directions = np.linalg.qr(random).Q * np.sqrt(codimension / measured)
    return Residual(
        dimensions, directions.astype(np.float32), (mean @ directions).astype(np.float32)
    )
