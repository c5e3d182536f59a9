"""The direction along which a layer's descriptors tell the object from its surroundings.

A descriptor x is a layer's activations at one position of one photo, `[C]`. `foreground` at that
position is `x . direction - offset`. Direction and offset are learnt once, on training photos, and
stored in the graph:

- With boxes, by ridge regression on y, the share of the position that lies in a box:

      minimise   mean (x . d - o - y)^2 + lambda |d|^2        lambda = PENALTY * mean variance of x
      d = (Cov(x) + lambda I)^-1 Cov(x, y)                    [C]
      o = mean(x) . d - mean(y)

  so that `foreground` estimates y.

- Without, by deep descriptor transforming: the first principal direction of descriptors over many
  photos of similar objects.

      d = the unit eigenvector of Cov(x) with the greatest eigenvalue,  o = mean(x) . d

  Wei et al., Unsupervised object discovery and co-localization by deep descriptor transforming,
  Pattern Recognition, 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.heatmaps import overlap
from app.images import Box

__all__ = [
    "DescriptorTransform",
    "Maps",
    "Projection",
    "RidgeRegression",
    "box_shares",
    "channel_sum",
    "fused_layers",
    "principal_direction",
]

Maps = npt.NDArray[np.float32]
"""A layer's activations, `[N, h, w, C]`."""

PENALTY = 0.1
"""Of the ridge regression, as a multiple of the descriptors' mean variance."""


@dataclass(frozen=True)
class Projection:
    """What `foreground` measures at a layer: `descriptor . direction - offset`.

    Attributes:
        direction: float32 `[C]`.
        offset: `descriptor . direction` where `foreground` is zero.
    """

    direction: npt.NDArray[np.float32]
    offset: float


def channel_sum(channels: int) -> Projection:
    """The projection to use without training photos: the sum over channels, as a unit direction."""
    return Projection(np.full(channels, 1 / np.sqrt(channels), np.float32), 0.0)


def fused_layers(sizes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The layers whose `foreground` maps are fused without photos that have boxes.

    These are the last one with a finer map, and the last.

    Args:
        sizes: of the exposed layers' maps, first to last: (height, width, ...).
    """
    names = list(sizes)
    finer = [name for name in names if sizes[name][0] > sizes[names[-1]][0]]
    return (*finer[-1:], names[-1])


def box_shares(boxes: Sequence[Box], height: int, width: int) -> npt.NDArray[np.float32]:
    """The share of each position of a map that lies in a box; of several, the greatest share.

    Args:
        boxes: as shares of the photo's width and height.
        height: of the map.
        width: of the map.

    Returns:
        0..1, float32 `[height, width]`.
    """
    shares = np.zeros((height, width), np.float64)
    for xmin, ymin, xmax, ymax in boxes:
        across = overlap(width, xmin * width, xmax * width)  # [width], each column's share
        down = overlap(height, ymin * height, ymax * height)  # [height], each row's share
        shares = np.maximum(shares, np.outer(down, across))
    return shares.astype(np.float32)


class _Moments:
    """Mean and covariance of descriptors, batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0  # sum x, [C]
        self._squares: npt.NDArray[np.float64] | float = 0.0  # sum x x^T, [C, C]

    def add(self, descriptors: npt.NDArray[np.float32]) -> None:
        """Add descriptors, `[n, C]`."""
        self.count += len(descriptors)
        self._sum += descriptors.sum(axis=0, dtype=np.float64)
        # A power of two, which rounds nothing: squares of large activations overflow float32.
        scale = 2.0 ** np.frexp(np.abs(descriptors).max(initial=0.0))[1]
        scaled = descriptors / np.float32(scale)
        self._squares += (scaled.T @ scaled).astype(np.float64) * scale**2

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E[x], `[C]`."""
        return np.asarray(self._sum / self.count)

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """E[x x^T] - E[x] E[x]^T, `[C, C]`."""
        return np.asarray(self._squares / self.count - np.outer(self.mean, self.mean))


class RidgeRegression:
    """Ridge regression of each position's share in a box on its descriptor, batch by batch."""

    def __init__(self) -> None:
        """Start without photos."""
        self._moments = _Moments()
        self._products: npt.NDArray[np.float64] | float = 0.0  # sum x y, [C]
        self._shares = 0.0  # sum y

    def add(self, maps: Maps, boxes: Sequence[Sequence[Box]]) -> None:
        """Add photos.

        Args:
            maps: their activations, `[n, h, w, C]`.
            boxes: of each photo, as shares of its width and height.
        """
        height, width, channels = maps.shape[1:]
        descriptors = maps.reshape(-1, channels)  # [n h w, C]
        shares = np.stack(
            [box_shares(photo_boxes, height, width) for photo_boxes in boxes]
        ).ravel()  # [n h w]
        self._moments.add(descriptors)
        self._products += (descriptors.T @ shares).astype(np.float64)
        self._shares += float(shares.sum(dtype=np.float64))

    def projection(self) -> Projection:
        """The direction and offset with the least squared error and penalty."""
        mean, covariance = self._moments.mean, self._moments.covariance
        mean_share = self._shares / self._moments.count
        # Cov(x) + lambda I. The tiny term keeps it invertible where all channels are dead.
        diagonal = np.diag_indices_from(covariance)
        covariance[diagonal] += PENALTY * covariance[diagonal].mean() + np.finfo(np.float32).tiny
        cross_covariance = self._products / self._moments.count - mean * mean_share  # [C]
        direction = np.linalg.solve(covariance, cross_covariance)
        return Projection(direction.astype(np.float32), float(mean @ direction - mean_share))


class DescriptorTransform:
    """The first principal direction of descriptors, batch by batch."""

    def __init__(self) -> None:
        """Start without photos."""
        self._moments = _Moments()
        self._contrast: npt.NDArray[np.float64] | float = 0.0

    def add(self, maps: Maps) -> None:
        """Add photos' activations, `[n, h, w, C]`."""
        height, width, channels = maps.shape[1:]
        self._moments.add(maps.reshape(-1, channels))
        top, left = _margin(height), _margin(width)
        middle = maps[:, top : height - top, left : width - left]
        # sum over photos of mean(middle) - mean(whole), [C]
        self._contrast += len(maps) * (middle.mean(axis=(0, 1, 2)) - maps.mean(axis=(0, 1, 2)))

    def projection(self) -> Projection:
        """The first principal direction and, as its offset, that of the mean descriptor.

        An eigenvector's sign is arbitrary. This one points to the object: photos' middles score
        above the whole. Maps too small to have a middle give no contrast; then the mean descriptor
        is to score above zero.
        """
        mean = self._moments.mean
        direction = principal_direction(self._moments.covariance)
        if (direction @ self._contrast or direction @ mean) < 0:
            direction = -direction
        return Projection(direction.astype(np.float32), float(mean @ direction))


def _margin(extent: int) -> int:
    """Positions on each side that do not belong to the middle; 0 where there is no middle."""
    return max(1, extent // 4) if extent >= 3 else 0


def principal_direction(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The unit eigenvector, `[C]`, of a symmetric matrix's greatest eigenvalue.

    Args:
        covariance: `[C, C]`.
    """
    # eigh returns eigenvalues in ascending order.
    direction: npt.NDArray[np.float64] = np.linalg.eigh(covariance).eigenvectors[:, -1]
    return direction
