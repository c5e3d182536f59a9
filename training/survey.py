"""What is found on training photos once and stored in the graph: foreground and novelty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt

from training.data import Example
from training.feeding import inference_batches
from training.foreground import DescriptorTransform, Projection, RidgeRegression
from training.novelty import Residual, residual
from training.preprocessing import Preprocessing
from training.progress import bar

__all__ = ["ENOUGH_BOXES", "Survey", "choose", "survey"]

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


def choose(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` photos, those with boxes before the others, else drawn at random."""
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    drawn = [examples[index] for index in order]
    return sorted(drawn, key=lambda example: not example.boxes)[:count]


def survey(
    model: keras.Model,
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
        model: takes what `preprocessing` makes, and ends in a Dense layer.
        layers: names of the layers to find projections for.
        examples: training photos, see `choose`.
        size: pixels of the square input.
        preprocessing: what the model wants done to photos.
    """
    boxed = [example for example in examples if example.boxes]
    learns = len(boxed) >= ENOUGH_BOXES
    ridge = {name: RidgeRegression() for name in layers}
    transform = {name: DescriptorTransform() for name in layers}
    outputs = [model.get_layer(name).output for name in layers]
    network = keras.Model(model.input, [*outputs, model.layers[-1].input])
    features: list[npt.NDArray[np.float32]] = []
    batches = inference_batches(examples, size=size, batch_size=BATCH)
    for number, (photos, _) in enumerate(bar("survey", batches, unit="batch")):
        boxes = [example.boxes for example in examples[BATCH * number : BATCH * (number + 1)]]
        with_box = np.array([bool(each) for each in boxes])
        *maps, read = map(np.asarray, network(preprocessing.apply(photos), training=False))
        features.append(read)
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
