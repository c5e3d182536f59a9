"""The direction along which a layer's descriptors tell the object from its surroundings.

Found once, on training photos, and stored in the graph. From boxes, where enough training photos
have one: ridge regression of the share of each position that lies in a box. Without: deep
descriptor transforming, the first principal direction of descriptors over many photos of one kind
of thing (Wei et al., Unsupervised object discovery and co-localization by Deep Descriptor
Transforming, 2019).
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
"""Of the ridge regression, in times of the descriptors' mean variance."""


@dataclass(frozen=True)
class Projection:
    """What `foreground` measures at a layer: `descriptor . direction - offset`.

    Attributes:
        direction: float32 `[C]`.
        offset: what the direction measures where `foreground` is zero.
    """

    direction: npt.NDArray[np.float32]
    offset: float


def channel_sum(channels: int) -> Projection:
    """The projection to use where no training photos are at hand."""
    return Projection(np.full(channels, 1 / np.sqrt(channels), np.float32), 0.0)


def fused_layers(sizes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The layers whose `foreground` maps may be fused: the last one with a finer map, and the last.

    Args:
        sizes: of the exposed layers' maps, first to last: height and width come first.
    """
    names = list(sizes)
    finer = [name for name in names if sizes[name][0] > sizes[names[-1]][0]]
    return (*finer[-1:], names[-1])


def box_shares(boxes: Sequence[Box], height: int, width: int) -> npt.NDArray[np.float32]:
    """How much of each position of a map lies in a box; in several, in the one that covers most.

    Args:
        boxes: as shares of the photo's width and height.
        height: of the map.
        width: of the map.

    Returns:
        0..1, `[height, width]`.
    """
    shares = np.zeros((height, width), np.float64)
    for xmin, ymin, xmax, ymax in boxes:
        across = overlap(width, xmin * width, xmax * width)
        down = overlap(height, ymin * height, ymax * height)
        shares = np.maximum(shares, np.outer(down, across))
    return shares.astype(np.float32)


class _Moments:
    """Mean and covariance of descriptors, batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._squares: npt.NDArray[np.float64] | float = 0.0

    def add(self, descriptors: npt.NDArray[np.float32]) -> None:
        """Take in descriptors, `[N, C]`."""
        self.count += len(descriptors)
        self._sum += descriptors.sum(axis=0, dtype=np.float64)
        self._squares += (descriptors.T @ descriptors).astype(np.float64)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        return np.asarray(self._sum / self.count)

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        return np.asarray(self._squares / self.count - np.outer(self.mean, self.mean))


class RidgeRegression:
    """Of the share of each position that lies in a box, on its descriptor; batch by batch."""

    def __init__(self) -> None:
        """Begin with no photos."""
        self._moments = _Moments()
        self._products: npt.NDArray[np.float64] | float = 0.0
        self._shares = 0.0

    def add(self, maps: Maps, boxes: Sequence[Sequence[Box]]) -> None:
        """Take in activations and each photo's boxes, as shares of its width and height."""
        height, width, channels = maps.shape[1:]
        descriptors = maps.reshape(-1, channels)
        shares = np.stack([box_shares(of_photo, height, width) for of_photo in boxes]).ravel()
        self._moments.add(descriptors)
        self._products += (descriptors.T @ shares).astype(np.float64)
        self._shares += float(shares.sum(dtype=np.float64))

    def projection(self) -> Projection:
        """The direction and offset with the least squared error, large directions held back."""
        mean, covariance = self._moments.mean, self._moments.covariance
        share = self._shares / self._moments.count
        diagonal = np.diag_indices_from(covariance)
        covariance[diagonal] += PENALTY * covariance[diagonal].mean() + np.finfo(np.float32).tiny
        products = self._products / self._moments.count - mean * share
        direction = np.linalg.solve(covariance, products)
        return Projection(direction.astype(np.float32), float(mean @ direction - share))


class DescriptorTransform:
    """The first principal direction of descriptors; batch by batch."""

    def __init__(self) -> None:
        """Begin with no photos."""
        self._moments = _Moments()
        self._contrast: npt.NDArray[np.float64] | float = 0.0

    def add(self, maps: Maps) -> None:
        """Take in activations."""
        height, width, channels = maps.shape[1:]
        self._moments.add(maps.reshape(-1, channels))
        top, left = _margin(height), _margin(width)
        inner = maps[:, top : height - top, left : width - left]
        self._contrast += len(maps) * (inner.mean(axis=(0, 1, 2)) - maps.mean(axis=(0, 1, 2)))

    def projection(self) -> Projection:
        """The first principal direction, turned so that photos' middles score above their whole.

        Zero is the mean descriptor. Maps too small to have a middle give no contrast; then the mean
        descriptor's own length decides which way is up.
        """
        mean = self._moments.mean
        direction = principal_direction(self._moments.covariance)
        if (direction @ self._contrast or direction @ mean) < 0:
            direction = -direction
        return Projection(direction.astype(np.float32), float(mean @ direction))


def _margin(extent: int) -> int:
    """Positions on each side that are not the middle; 0 where there is none."""
    return max(1, extent // 4) if extent >= 3 else 0


def principal_direction(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The unit eigenvector of a symmetric matrix's greatest eigenvalue."""
    direction: npt.NDArray[np.float64] = np.linalg.eigh(covariance).eigenvectors[:, -1]
    return direction
