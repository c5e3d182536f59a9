"""Similarity of two heatmaps: rank correlation and SSIM."""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["rank_correlation", "structural_similarity"]

Map = npt.NDArray[np.float32]


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's rank correlation of two heatmaps, -1..1; NaN if either is constant: undefined.

    With x and y the ranks, each minus its mean: `x . y / sqrt((x . x) (y . y))`.

    Args:
        a: `[h, w]`.
        b: `[h, w]`.
    """
    x, y = (_ranks(values.ravel()) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def _ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Each value's rank, from 0; equal values share the mean of their ranks.

    Args:
        values: `[n]`.
    """
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The c values that end at cumulative count e have ranks e - c to e - 1: their mean is
    # e - (c + 1) / 2.
    return (np.cumsum(counts) - (counts + 1) / 2)[index]


def structural_similarity(a: Map, b: Map) -> float:
    """Mean SSIM of two heatmaps; 1 for equal ones, and never more.

    With means m, variances v and covariance c in a Gaussian window of 11 pixels, sigma 1.5, and
    C1 = 0.01^2, C2 = 0.03^2 for a range of 0..1:

        SSIM = (2 m_x m_y + C1) (2 c + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))

    Edges are mirrored. Wang et al., Image quality assessment: from error visibility to structural
    similarity, IEEE Transactions on Image Processing, 2004.

    Args:
        a: 0..1, `[h, w]`.
        b: 0..1, `[h, w]`.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)

    def blur(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return cv2.GaussianBlur(values, (11, 11), 1.5)  # type: ignore[return-value]

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(numerator / denominator))
