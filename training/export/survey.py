"""What is learnt from training photos once and stored in the graph: foreground and novelty.

    photos --network--> activations of each layer   [N, h, w, C]  --> foreground: a direction and
                                                                      an offset for each layer
                   '--> features before the head    [N, F]        --> novelty: the residual

Foreground directions come from `foreground.RidgeRegression` where enough photos have boxes, else
from `foreground.DescriptorTransform`; the residual from `novelty.residual`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.bundle import Label
from app.progress import bar
from training.config import Source
from training.data.batches import inference_batches
from training.data.dataset import Example
from training.data.loading import load_for_model
from training.errors import DataError
from training.export.foreground import DescriptorTransform, Projection, fused_layers
from training.export.layer_choice import BoxedForeground
from training.export.novelty import Residual, residual
from training.graph import gradients
from training.graph.network import Network
from training.networks.preprocessing import Preprocessing

__all__ = ["ENOUGH_BOXES", "Survey", "TrainingPhotos", "choose", "survey"]

Tensor: TypeAlias = tf.Tensor

BATCH = 16

ENOUGH_BOXES = 100
"""The least number of photos with boxes for the foreground to be learnt from boxes."""


@dataclass(frozen=True)
class Survey:
    """What the photos taught.

    Attributes:
        projections: the foreground's, by layer.
        layers: the layers whose maps make the foreground's heatmap.
        rule: `boxes` for ridge regression, `ddt` for deep descriptor transforming.
        photos: number of photos that the projections were learnt from.
        surveyed: number of photos that the residual was learnt from: all.
        residual: of the features that the last Dense layer reads; None if there are too few photos
            or features.
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
        count: the most photos to draw.
    """

    source: Source = "stanford_dogs"
    data_dir: Path | None = None
    boxes: Path | None = None
    count: int = 1000

    def examples(self, labels: Sequence[Label]) -> list[Example]:
        """Draw photos of the training split, which is the one that `calibrate` and `evaluate` use.

        Args:
            labels: the model's.

        Raises:
            DataError: see `load_for_model`; or the data has no training split.
        """
        dataset = load_for_model(self.source, self.data_dir, labels, boxes=self.boxes, config={})
        if not dataset.train:
            raise DataError(f"{self.data_dir} has test photos but no training photos.")
        return choose(dataset.train, self.count, seed=0)


def choose(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw at most `count` photos, evenly by class; those with boxes before the others.

    Photos with boxes are drawn in rounds: in each round one photo of every class that has one left,
    at random within the class. Once they are used up, photos without boxes are drawn likewise.
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    rounds: Counter[tuple[bool, int]] = Counter()
    ranked = []
    for example in [examples[index] for index in order]:
        unboxed = not example.boxes
        group = (unboxed, example.label)
        ranked.append((unboxed, rounds[group], example))
        rounds[group] += 1
    ranked.sort(key=lambda entry: entry[:2])  # stable: within a round, the order stays random
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

    Labels play no part. If `ENOUGH_BOXES` photos or more have boxes, the projections are learnt
    from these photos alone, by ridge regression, and the heatmap's layers are those that do best in
    `BoxedForeground`. Otherwise they are learnt from all photos, by deep descriptor transforming,
    and the layers of `fused_layers` are used.

    Args:
        network: takes what `preprocessing` returns.
        layers: names of the nodes to find projections for, first to last.
        examples: training photos, see `choose`.
        size: side of the square input in pixels.
        preprocessing: what the network expects to be done to photos.
    """
    boxed_photos = sum(bool(example.boxes) for example in examples)
    by_boxes = boxed_photos >= ENOUGH_BOXES
    regression = BoxedForeground(boxed_photos, size)
    transforms = {name: DescriptorTransform() for name in layers}
    run = _forward(network, layers, size, preprocessing)
    features: list[npt.NDArray[np.float32]] = []
    sizes: dict[str, tuple[int, ...]] = {}
    batches = inference_batches(examples, size=size, batch_size=BATCH)
    for number, (photos, _) in enumerate(bar("survey", batches, unit="batch")):
        boxes = [example.boxes for example in examples[BATCH * number : BATCH * (number + 1)]]
        # [n, h, w, C] for each layer, then [n, F], what the last Dense layer reads
        *arrays, batch_features = (value.numpy() for value in run(photos))
        features.append(batch_features)
        maps = dict(zip(layers, arrays, strict=True))
        sizes = {name: activations.shape[1:] for name, activations in maps.items()}
        has_box = np.array([bool(photo_boxes) for photo_boxes in boxes])
        if not by_boxes:
            for name, activations in maps.items():
                transforms[name].add(activations)
        elif has_box.any():
            boxed_maps = {name: activations[has_box] for name, activations in maps.items()}
            regression.add(boxed_maps, [photo_boxes for photo_boxes in boxes if photo_boxes])
    if by_boxes:
        projections, heatmap_layers = regression.projections(), regression.layers()
    else:
        projections = {name: transform.projection() for name, transform in transforms.items()}
        heatmap_layers = fused_layers(sizes)
    return Survey(
        projections=projections,
        layers=heatmap_layers,
        rule="boxes" if by_boxes else "ddt",
        photos=boxed_photos if by_boxes else len(examples),
        surveyed=len(examples),
        residual=residual(np.concatenate(features)),
    )


def _forward(
    network: Network, layers: Sequence[str], size: int, preprocessing: Preprocessing
) -> Callable[[Tensor], list[Tensor]]:
    """A function from RGB 0..255 to each layer's activations, then the head's features.

    From float32 `[N, size, size, 3]` to `[N, h, w, C]` for each layer and `[N, F]`.
    """
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
