"""Deep descriptor transforming: the direction in which objects differ from their surroundings.

Wei et al., Unsupervised object discovery and co-localization by Deep Descriptor Transforming, 2019:
the first principal direction of a layer's descriptors over many photos of one kind of thing. It is
found once, on training photos, and stored in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data import Example
from training.feeding import inference_batches
from training.preprocessing import Preprocessing

__all__ = ["Projection", "channel_sum", "find_projections", "principal_direction"]

BATCH = 16


@dataclass(frozen=True)
class Projection:
    """What `foreground` measures at a layer: `(descriptor - mean) . direction`.

    Attributes:
        direction: float32 `[C]`, of unit length.
        mean: float32 `[C]`, of the descriptors it was found on.
    """

    direction: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


def channel_sum(channels: int) -> Projection:
    """The projection to use where no training photos are at hand."""
    direction = np.full(channels, 1 / np.sqrt(channels), np.float32)
    return Projection(direction, np.zeros(channels, np.float32))


def find_projections(
    model: keras.Model,
    layers: Sequence[str],
    examples: Sequence[Example],
    *,
    size: int,
    preprocessing: Preprocessing,
) -> dict[str, Projection]:
    """The projection for each layer, from photos without regard to their labels.

    Args:
        model: takes what `preprocessing` makes.
        layers: names of the layers.
        examples: training photos.
        size: pixels of the square input.
        preprocessing: what the model wants done to photos.
    """
    features = keras.Model(model.input, [model.get_layer(name).output for name in layers])
    totals = {name: _Moments() for name in layers}
    batches = inference_batches(examples, size=size, batch_size=BATCH)
    for photos, _ in tqdm(batches, desc="foreground", unit="batch", mininterval=1.0):
        image = preprocessing.apply(photos)
        outputs = keras.tree.flatten(features(image, training=False))  # one is no list
        for name, output in zip(layers, outputs, strict=True):
            totals[name].add(np.asarray(output))
    return {name: total.projection() for name, total in totals.items()}


class _Moments:
    """Mean and covariance of descriptors, and how their middles differ from their borders."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._squares: npt.NDArray[np.float64] | float = 0.0
        self._contrast: npt.NDArray[np.float64] | float = 0.0

    def add(self, maps: npt.NDArray[np.float32]) -> None:
        """Take in activations `[N, h, w, C]`."""
        height, width, channels = maps.shape[1:]
        flat = maps.reshape(-1, channels)
        self._count += len(flat)
        self._sum += flat.sum(axis=0, dtype=np.float64)
        self._squares += (flat.T @ flat).astype(np.float64)
        top, left = _margin(height), _margin(width)
        inner = maps[:, top : height - top, left : width - left]
        self._contrast += len(maps) * (inner.mean(axis=(0, 1, 2)) - maps.mean(axis=(0, 1, 2)))

    def projection(self) -> Projection:
        """The first principal direction, turned so that photos' middles score above their whole.

        Maps too small to have a middle give no contrast; then the mean descriptor scores above 0.
        """
        mean = self._sum / self._count
        covariance = self._squares / self._count - np.outer(mean, mean)
        direction = principal_direction(covariance)
        if (direction @ self._contrast or direction @ mean) < 0:
            direction = -direction
        return Projection(direction.astype(np.float32), np.asarray(mean, np.float32))


def _margin(extent: int) -> int:
    """Positions on each side that are not the middle; 0 where there is none."""
    return max(1, extent // 4) if extent >= 3 else 0


def principal_direction(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The unit eigenvector of a symmetric matrix's greatest eigenvalue."""
    direction: npt.NDArray[np.float64] = np.linalg.eigh(covariance).eigenvectors[:, -1]
    return direction
