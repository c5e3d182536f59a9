"""How alike two heatmaps are."""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["rank_correlation", "structural_similarity"]

Map = npt.NDArray[np.float32]


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's rank correlation of two heatmaps, -1..1; 0 where one is constant.

    Args:
        a: `[h, w]`.
        b: `[h, w]`.
    """
    x, y = (_ranks(values.ravel()) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else 0.0


def _ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Each value's rank, from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


def structural_similarity(a: Map, b: Map) -> float:
    """SSIM of two heatmaps, at most 1, which equal ones have.

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004:
    Gaussian windows of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03; edges are mirrored.

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
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))
