"""Whether heatmaps depend on what the model has learnt: the model randomisation check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app import heatmaps
from app.bundle import Bundle, ModelCard
from app.evidence import MethodAtLayers, heatmap_of
from app.heatmaps import Heatmap
from app.progress import bar
from training.data.dataset import Example
from training.evaluation.inference import BATCH, squashed
from training.evaluation.similarity import rank_correlation, structural_similarity

__all__ = ["Cascade", "Similarities", "randomization", "stages"]

Arrays = dict[str, npt.NDArray[Any]]
Similarities = dict[MethodAtLayers, npt.NDArray[np.float64]]
"""Rank correlation and SSIM of each photo, `[N, 2]`; NaN where a heatmap is blank or constant."""


class Cascade:
    """A model version in TensorFlow, float32, whose layers forget from the head down.

    A layer forgets by having each of its weights' values in a random order: what they add up to
    and how they are distributed stays, so that activations neither vanish nor explode.
    """

    def __init__(self, path: Path) -> None:
        """Load the SavedModel at `path`; nothing is written there."""
        self._loaded = tf.saved_model.load(str(path))
        self._serve = self._loaded.signatures["serving_default"]
        self._weights = self._loaded._weights
        self.layers = [name for name, weights in self._weights.items() if weights][::-1]
        """Layers with weights, the head first."""
        self.forgotten = 0

    def forget(self, count: int, rng: np.random.Generator) -> None:
        """Let the first `count` of `layers` forget, but for those that have already."""
        for layer in self.layers[self.forgotten : count]:
            for variable in self._weights[layer].values():
                value = variable.numpy()
                variable.assign(rng.permutation(value.ravel()).reshape(value.shape))
        self.forgotten = max(count, self.forgotten)

    def run(self, image: npt.NDArray[np.uint8], class_index: npt.NDArray[np.int32]) -> Arrays:
        """Every output; see `Engine.run`."""
        none = np.full(len(image), -1, np.int32)
        outputs = self._serve(
            image=tf.constant(image),
            class_index=tf.constant(class_index),
            versus_index=tf.constant(none),
        )
        return {name: value.numpy() for name, value in outputs.items()}


def stages(layers: int) -> list[int]:
    """How many layers have forgotten at each stage: the head; 4 and 16, where there are; all."""
    return sorted({count for count in (1, 4, 16) if count < layers} | {layers})


def randomization(
    bundle: Bundle, examples: Sequence[Example], sets: Sequence[MethodAtLayers], *, seed: int
) -> dict[str, Similarities]:
    """How alike heatmaps stay to those of the model as it is, when more and more of it forgets.

    Adebayo et al., Sanity checks for saliency maps, 2018 (cascading model parameter
    randomisation): a heatmap that stays as it is shows the photo, not what the model has learnt.
    Theirs draws new weights; here the old ones are put in a random order. The class is the top-1 of
    the model as it is, at every stage. A constant box, which looks at nothing, stays at 1.

    Args:
        bundle: the model version.
        examples: the photos.
        sets: what to compare; rank correlation at the maps' size, SSIM at the model's input size.
        seed: of the random orders.

    Returns:
        By stage, under the name of the layer down to which all have forgotten.
    """
    cascade, rng = Cascade(bundle.path), np.random.default_rng(seed)
    card = bundle.card
    counts = stages(len(cascade.layers))
    images = np.stack([squashed(card, example)[1] for example in examples])
    similarities: dict[str, Similarities] = {}
    with bar("randomisation", total=len(images) * (1 + len(counts))) as progress:
        top1 = np.full(len(images), -1, np.int32)
        before, targets = _heatmaps(card, cascade, images, top1, sets, progress)
        for count in counts:
            cascade.forget(count, rng)
            after, _ = _heatmaps(card, cascade, images, targets, sets, progress)
            similarities[cascade.layers[count - 1]] = {
                layers: _similarities(before[layers], after[layers], card.input.size)
                for layers in sets
            }
    return similarities


def _heatmaps(
    card: ModelCard,
    cascade: Cascade,
    images: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int32],
    sets: Sequence[MethodAtLayers],
    progress: Any,
) -> tuple[dict[MethodAtLayers, list[Heatmap]], npt.NDArray[np.int32]]:
    """Every photo's heatmap, by layer set, and the class it explains, `[N]`."""
    by_set: dict[MethodAtLayers, list[Heatmap]] = {layers: [] for layers in sets}
    classes = []
    for begin in range(0, len(images), BATCH):
        part = slice(begin, begin + BATCH)
        arrays = cascade.run(images[part], targets[part])
        classes.append(arrays["target_index"])
        for row in range(len(arrays["target_index"])):
            outputs = {name: array[row] for name, array in arrays.items()}
            for layers in sets:
                by_set[layers].append(heatmap_of(card, outputs, layers))
            progress.update()
    return by_set, np.concatenate(classes)


def _similarities(
    before: Sequence[Heatmap], after: Sequence[Heatmap], size: int
) -> npt.NDArray[np.float64]:
    """Rank correlation and SSIM of every photo, `[N, 2]`.

    Both are NaN where a heatmap is blank, rank correlation where one is constant too.
    """

    def enlarged(heatmap: Heatmap) -> npt.NDArray[np.float32]:
        return heatmaps.resize(heatmap.values, size, size)

    return np.array(
        [
            (
                rank_correlation(trained.values, random.values),
                structural_similarity(enlarged(trained), enlarged(random)),
            )
            if trained.status == random.status == "ok"
            else (np.nan, np.nan)
            for trained, random in zip(before, after, strict=True)
        ]
    )
