"""Photos run through a model version, through the service's own decoder, engine and heatmaps."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app import images
from app.bundle import Method, ModelCard, Rule
from app.engines import Batch, Cut, Engine
from app.evidence import Evidence, MethodAtLayers, enlarged, find, foreground_of
from training import workers
from training.data import Example
from training.progress import bar

__all__ = ["FUSED", "Explained", "explain", "layer_sets", "squashed"]

BATCH = 8

MANY = 100
"""Photos from which on processes are started, which takes them a second or two."""

FUSED = ("last", "last6")
"""The layer sets that the rule `fused` is calibrated for, and those of figures that take long."""

T = TypeVar("T")

Outputs = dict[str, npt.NDArray[Any]]
"""One photo's row of the model's outputs, by name."""

Squashed = tuple[images.Photo, npt.NDArray[np.uint8]]
"""A photo decoded, and the model's input, uint8 RGB `[S, S, 3]`."""


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
        deep: those of `Cut.EXPLAIN_DEEP`, where `explain` ran it beside another cut.
    """

    card: ModelCard
    example: Example
    width: int
    height: int
    image: npt.NDArray[np.uint8]
    outputs: Outputs
    deep: Outputs | None = None

    @property
    def boxes(self) -> list[images.Box]:
        """The true boxes in photo pixels."""
        size = (self.width, self.height)
        return [images.scale_box(box, (1, 1), size) for box in self.example.boxes]

    @property
    def boxes_in_input(self) -> list[images.Box]:
        """The true boxes in pixels of the model's input."""
        size = self.card.input.size
        return [images.scale_box(box, (1, 1), (size, size)) for box in self.example.boxes]

    def evidence(self, layers: MethodAtLayers, rule: Rule | None = None) -> Evidence:
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


def layer_sets(card: ModelCard) -> list[MethodAtLayers]:
    """What is calibrated and evaluated: CAM; the other methods at each layer and the last six."""
    names = card.layer_names
    every = [names[-1:], names[-6:], *([name] for name in names[:-1])]
    sets = [
        MethodAtLayers.of(card, method, layers)
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
    deep: bool = False,
    processes: bool = False,
) -> Iterator[T]:
    """What `work` makes of each photo, in their order, with the progress on standard error.

    Each photo is decoded once. The engine runs batch by batch on this thread; while it does, as
    many threads as there are cores decode the next batch and work on the one before. Work that
    holds Python's lock for long is done by as many processes.

    Args:
        card: the model's.
        engine: runs it.
        examples: the photos.
        cut: which outputs.
        work: called on several threads or processes at once.
        title: of the progress.
        top1: whether to explain each photo's likeliest class in place of its true one.
        deep: whether photos with boxes run through `Cut.EXPLAIN_DEEP` as well.
        processes: whether processes do the work, where photos are many enough to make up for their
            start; `work` and what it returns are then pickled.
    """
    batches = [examples[begin : begin + BATCH] for begin in range(0, len(examples), BATCH)]
    with (
        bar(title, total=len(examples)) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        workers.processes() if processes and len(examples) >= MANY else nullcontext(pool) as worker,
    ):
        decoding = [pool.submit(squashed, card, example) for example in examples[:BATCH]]
        working: list[Future[T]] = []
        for number, batch in enumerate(batches):
            photos = [decoded.result() for decoded in decoding]
            following = batches[number + 1] if number + 1 < len(batches) else ()
            decoding = [pool.submit(squashed, card, example) for example in following]
            rows = _run(card, engine, cut, batch, photos, top1=top1, deep=deep)
            done, working = working, [worker.submit(work, row) for row in rows]
            for finished in done:
                yield finished.result()
                progress.update()
        for finished in working:
            yield finished.result()
            progress.update()


def _run(
    card: ModelCard,
    engine: Engine,
    cut: Cut,
    batch: Sequence[Example],
    photos: Sequence[Squashed],
    *,
    top1: bool,
    deep: bool,
) -> list[Explained]:
    """A batch through the model; see `explain`."""
    image = np.stack([pixels for _, pixels in photos])
    target = np.array([-1 if top1 else example.label for example in batch], np.int32)
    inputs = Batch.of(image, target)
    arrays = engine.run(cut, inputs)
    boxed = [row for row, example in enumerate(batch) if deep and example.boxes]
    deeper: dict[int, Outputs] = {}
    if boxed:
        found = engine.run(Cut.EXPLAIN_DEEP, inputs.rows(boxed))
        deeper = {
            row: {name: array[place] for name, array in found.items()}
            for place, row in enumerate(boxed)
        }
    return [
        Explained(
            card,
            example,
            photo.width,
            photo.height,
            pixels,
            {name: array[row] for name, array in arrays.items()},
            deeper.get(row),
        )
        for row, (example, (photo, pixels)) in enumerate(zip(batch, photos, strict=True))
    ]


def squashed(card: ModelCard, example: Example) -> Squashed:
    """The photo decoded, and the model's input `[S, S, 3]`, as the service makes it."""
    photo = images.decode(example.read(), side=images.enough_for(card.input.size))
    return photo, images.squash(photo.pixels, card.input.size, card.input.resize)
