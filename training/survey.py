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
from training.foreground import DescriptorTransform, Projection, RidgeRegression
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
        rule: how they were found.
        photos: on how many photos.
        surveyed: photos in all.
        residual: of the features that the last Dense layer reads; None where there are too few.
    """

    projections: dict[str, Projection]
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
    these photos alone, by ridge regression; with fewer, from all, by descriptor transforming.

    Args:
        network: takes what `preprocessing` makes.
        layers: names of the nodes to find projections for.
        examples: training photos, see `choose`.
        size: pixels of the square input.
        preprocessing: what the network wants done to photos.
    """
    boxed = [example for example in examples if example.boxes]
    learns = len(boxed) >= ENOUGH_BOXES
    ridge = {name: RidgeRegression() for name in layers}
    transform = {name: DescriptorTransform() for name in layers}
    run = _forward(network, layers, size, preprocessing)
    features: list[npt.NDArray[np.float32]] = []
    batches = inference_batches(examples, size=size, batch_size=BATCH)
    for number, (photos, _) in enumerate(bar("survey", batches, unit="batch")):
        boxes = [example.boxes for example in examples[BATCH * number : BATCH * (number + 1)]]
        with_box = np.array([bool(each) for each in boxes])
        # maps: [N, h, w, C] of each layer; of_batch: [N, D], what the last Dense layer reads
        *maps, of_batch = (value.numpy() for value in run(photos))
        features.append(of_batch)
        for name, of_layer in zip(layers, maps, strict=True):
            if not learns:
                transform[name].add(of_layer)
            elif with_box.any():
                ridge[name].add(of_layer[with_box], [each for each in boxes if each])
    found = ridge if learns else transform
    return Survey(
        projections={name: found[name].projection() for name in layers},
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
