"""What is learnt from training photos once and stored in the graph: foreground and novelty."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.bundle import Label
from training import gradients
from training.config import Source
from training.data import Example, load_for_model
from training.errors import DataError
from training.feeding import inference_batches
from training.foreground import DescriptorTransform, Projection, fused_layers
from training.layer_choice import BoxedForeground
from training.network import Network
from training.novelty import Residual, residual
from training.preprocessing import Preprocessing
from training.progress import bar

__all__ = ["ENOUGH_BOXES", "Survey", "TrainingPhotos", "choose", "survey"]

Tensor: TypeAlias = tf.Tensor

BATCH = 16

ENOUGH_BOXES = 100
"""Photos with boxes from which on the foreground's directions are learnt from them."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        projections: the foreground's, by layer.
        layers: whose maps make the foreground's heatmap.
        rule: how they were found.
        photos: on how many photos.
        surveyed: photos in all.
        residual: of the features that the last Dense layer reads; None where there are too few.
    """

    projections: dict[str, Projection]
    layers: tuple[str, ...]
    rule: Literal["boxes", "ddt"]
    photos: int
    surveyed: int
    residual: Residual | None


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos of a model's classes that `survey` may learn from.

    Attributes:
        source: Stanford Dogs, or a folder.
        data_dir: see `stanford_dogs` and `folder`.
        boxes: see `folder`.
        count: photos at most.
    """

    source: Source = "stanford_dogs"
    data_dir: Path | None = None
    boxes: Path | None = None
    count: int = 1000

    def examples(self, labels: Sequence[Label]) -> list[Example]:
        """Draw photos of the training split as `calibrate` and `evaluate` cut it.

        Args:
            labels: the model's.

        Raises:
            DataError: see `load_for_model`; or the data has no training split.
        """
        dataset = load_for_model(self.source, self.data_dir, labels, boxes=self.boxes, config={})
        if not dataset.train:
            raise DataError(f"{self.data_dir} has photos to test with but none to learn from.")
        return choose(dataset.train, self.count, seed=0)


def choose(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw at most `count` photos, evenly by class; those with boxes before the others.

    The photos with boxes are drawn class by class in turn, in random order within each class, until
    a class has no more; then the photos without boxes are, likewise.
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    turns: Counter[tuple[bool, int]] = Counter()
    ranked = []
    for example in [examples[index] for index in order]:
        group = (not example.boxes, example.label)
        ranked.append((not example.boxes, turns[group], example))
        turns[group] += 1
    ranked.sort(key=lambda entry: entry[:2])  # stable: within a turn, the order stays random
    return [example for _, _, example in ranked[:count]]


def survey(
    network: Network,
    layers: Sequence[str],
    examples: Sequence[Example],
    *,
    size: int,
    preprocessing: Preprocessing,
) -> Survey:
    """Run photos through a network once, and learn from their maps, features and boxes.

    Labels play no part. From `ENOUGH_BOXES` photos with boxes on, the projections are learnt from
    these photos alone, by ridge regression, and the heatmap's layers are those that do best by
    `BoxedForeground`; with fewer, from all, by descriptor transforming, and both layers are fused.

    Args:
        network: takes what `preprocessing` makes.
        layers: names of the nodes to find projections for.
        examples: training photos, see `choose`.
        size: pixels of the square input.
        preprocessing: what the network wants done to photos.
    """
    boxed = [example for example in examples if example.boxes]
    learns = len(boxed) >= ENOUGH_BOXES
    ridge = BoxedForeground(len(boxed), size)
    transform = {name: DescriptorTransform() for name in layers}
    run = _forward(network, layers, size, preprocessing)
    features: list[npt.NDArray[np.float32]] = []
    sizes: dict[str, tuple[int, ...]] = {}
    batches = inference_batches(examples, size=size, batch_size=BATCH)
    for number, (photos, _) in enumerate(bar("survey", batches, unit="batch")):
        boxes = [example.boxes for example in examples[BATCH * number : BATCH * (number + 1)]]
        with_box = np.array([bool(of_photo) for of_photo in boxes])
        # arrays: [N, h, w, C] of each layer; of_batch: [N, D], what the last Dense layer reads
        *arrays, of_batch = (value.numpy() for value in run(photos))
        features.append(of_batch)
        maps = dict(zip(layers, arrays, strict=True))
        sizes = {name: activations.shape[1:] for name, activations in maps.items()}
        if not learns:
            for name, activations in maps.items():
                transform[name].add(activations)
        elif with_box.any():
            of_boxed = {name: activations[with_box] for name, activations in maps.items()}
            ridge.add(of_boxed, [of_photo for of_photo in boxes if of_photo])
    if learns:
        projections, chosen = ridge.projections(), ridge.layers()
    else:
        projections = {name: learner.projection() for name, learner in transform.items()}
        chosen = fused_layers(sizes)
    return Survey(
        projections=projections,
        layers=chosen,
        rule="boxes" if learns else "ddt",
        photos=len(boxed) if learns else len(examples),
        surveyed=len(examples),
        residual=residual(np.concatenate(features)),
    )


def _forward(
    network: Network, layers: Sequence[str], size: int, preprocessing: Preprocessing
) -> Callable[[Tensor], list[Tensor]]:
    """From RGB 0..255 `[N, size, size, 3]` to each layer's maps, then the head's features."""
    weights: dict[str, dict[str, Any]] = {
        node.name: {
            name: tf.Variable(array, dtype=tf.float32, trainable=False)
            for name, array in node.weights.items()
        }
        for node in network.nodes
    }
    names = [*layers, network.nodes[-1].inputs[0]]

    def run(photos: Tensor) -> list[Tensor]:
        values = gradients.run(network, weights, preprocessing.apply(photos))
        return [values[name] for name in names]

    photos = tf.TensorSpec((None, size, size, 3), tf.float32)
    forward: Callable[[Tensor], list[Tensor]] = tf.function(
        run, input_signature=[photos], autograph=False
    )
    return forward
