"""Photos run through a model version, through the service's own decoder, engine and heatmaps."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from app import images
from app.bundle import Method, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import Evidence, LayerSet, enlarged, find, foreground_of
from training.data import Example

__all__ = ["FUSED", "Explained", "explain", "layer_sets", "squashed"]

BATCH = 8

FUSED = ("last", "last6")
"""The layer sets that the rule `fused` is calibrated for, and those of figures that take long."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Explained:
    """A photo and its row of the model's outputs.

    Attributes:
        card: the model's.
        example: the photo.
        width: of the upright photo, pixels.
        height: of the upright photo, pixels.
        image: the model's input, uint8 RGB `[S, S, 3]`.
        outputs: by name, without the batch.
    """

    card: ModelCard
    example: Example
    width: int
    height: int
    image: npt.NDArray[np.uint8]
    outputs: dict[str, npt.NDArray[Any]]

    @property
    def boxes(self) -> list[images.Box]:
        """The true boxes in photo pixels."""
        size = (self.width, self.height)
        return [images.scale_box(box, (1, 1), size) for box in self.example.boxes]

    def evidence(self, layers: LayerSet, rule: Rule | None = None) -> Evidence:
        """What the service would find; see `app.evidence.find`."""
        return find(self.card, self.outputs, layers, rule=rule)

    @property
    def foreground(self) -> npt.NDArray[np.float32]:
        """The foreground's heatmap at the model's input size, `[S, S]`."""
        return enlarged(self.card, foreground_of(self.card, self.outputs))

    def in_photo(self, box: images.Box | None) -> images.Box | None:
        """A box at the model's input size, carried to photo pixels."""
        size = self.card.input.size
        return images.scale_box(box, (size, size), (self.width, self.height)) if box else None


def layer_sets(card: ModelCard) -> list[LayerSet]:
    """What is calibrated and evaluated: CAM; the other methods at each layer and the last six."""
    names = card.layer_names
    every = [names[-1:], names[-6:], *([name] for name in names[:-1])]
    sets = [
        LayerSet.of(card, method, layers)
        for method in card.methods
        for layers in (every[:1] if method is Method.CAM else every)
    ]
    return list(dict.fromkeys(sets))  # of one layer, the last is the last six


def explain(
    card: ModelCard,
    engine: Engine,
    examples: Sequence[Example],
    cut: Cut,
    work: Callable[[Explained], T],
    title: str,
    *,
    top1: bool = False,
) -> Iterator[T]:
    """What `work` makes of each photo, in their order, with a progress bar.

    The engine runs batch by batch on this thread; photos are decoded and worked on by as many
    threads as there are cores.

    Args:
        card: the model's.
        engine: runs it.
        examples: the photos.
        cut: which outputs.
        work: called on several threads at once.
        title: of the progress bar.
        top1: whether to explain each photo's likeliest class in place of its true one.
    """
    with (
        tqdm(total=len(examples), desc=title, unit="photo", mininterval=1.0) as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for begin in range(0, len(examples), BATCH):
            batch = examples[begin : begin + BATCH]
            photos = list(pool.map(lambda example: squashed(card, example), batch))
            arrays = engine.run(
                cut,
                np.stack([image for _, image in photos]),
                np.array([-1 if top1 else example.label for example in batch], np.int32),
                np.full(len(batch), -1, np.int32),
            )
            rows = [
                Explained(
                    card,
                    example,
                    photo.width,
                    photo.height,
                    image,
                    {name: array[row] for name, array in arrays.items()},
                )
                for row, (example, (photo, image)) in enumerate(zip(batch, photos, strict=True))
            ]
            for result in pool.map(work, rows):
                yield result
                bar.update()


def squashed(card: ModelCard, example: Example) -> tuple[images.Photo, npt.NDArray[np.uint8]]:
    """The photo decoded, and the model's input `[S, S, 3]`, as the service makes it."""
    photo = images.decode(example.read(), side=images.enough_for(card.input.size))
    return photo, images.squash(photo.pixels, card.input.size, card.input.resize)
