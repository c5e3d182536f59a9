"""Photos run through a model version, through the service's own decoder, engine and heatmaps."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app import images
from app.bundle import Method, ModelCard, Rule
from app.engines import Batch, Cut, Engine
from app.evidence import Evidence, MethodAtLayers, enlarged, find, foreground_of
from app.progress import bar
from training.data.dataset import Example
from training.evaluation import workers

__all__ = ["FUSED", "Explained", "explain", "layer_sets", "squashed"]

BATCH = 8

PROCESS_THRESHOLD = 100
"""The least number of photos for which processes are started, which takes a second or two."""

FUSED = ("last", "last6")
"""Layer sets that the rule `fused` is calibrated for, and that slow metrics are limited to."""

T = TypeVar("T")

Outputs = dict[str, npt.NDArray[Any]]
"""One photo's row of the model's outputs, by name."""

Squashed = tuple[images.Photo, npt.NDArray[np.uint8]]
"""A decoded photo, and the model's input made of it, uint8 RGB `[S, S, 3]`."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A photo and its row of the model's outputs.

    Attributes:
        card: the model's.
        example: the photo.
        width: of the upright photo, in pixels.
        height: of the upright photo, in pixels.
        image: the model's input, uint8 RGB `[S, S, 3]`.
        outputs: by name, without the batch axis.
        deep: outputs of `Cut.EXPLAIN_DEEP`, if `explain` ran it beside another cut.
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
        """The evidence as the service computes it; see `app.evidence.find`."""
        return find(self.card, self.outputs, layers, rule=rule)

    @property
    def foreground(self) -> npt.NDArray[np.float32]:
        """The foreground's heatmap at the model's input size, `[S, S]`."""
        return enlarged(self.card, foreground_of(self.card, self.outputs))


def layer_sets(card: ModelCard) -> list[MethodAtLayers]:
    """Methods at layers that are calibrated and evaluated.

    CAM at the last layer; each other method at the last, over the last six, and at each other one.
    """
    names = card.layer_names
    layer_lists = [names[-1:], names[-6:], *([name] for name in names[:-1])]
    sets = [
        MethodAtLayers.of(card, method, layers)
        for method in card.methods
        for layers in (layer_lists[:1] if method is Method.CAM else layer_lists)
    ]
    return list(dict.fromkeys(sets))  # for a model of one layer, the last is the last six


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
    """Run photos through a model, and yield the result of `work` for each, in their order.

    Each photo is decoded once. The engine runs batch by batch on this thread. While it runs batch
    n, as many threads as there are cores decode batch n + 1 and do the work on batch n - 1:

        threads      decode 0   decode 1   decode 2, work 0   decode 3, work 1   ...
        this thread             run 0      run 1              run 2              ...

    Work that holds Python's global lock for long should be done by processes instead of threads.
    Progress is shown on standard error.

    Args:
        card: the model's.
        engine: runs the model.
        examples: the photos.
        cut: which outputs to compute.
        work: called on several threads or processes at once.
        title: of the progress bar.
        top1: explain each photo's top-1 class instead of its true class.
        deep: run photos with boxes through `Cut.EXPLAIN_DEEP` too.
        processes: do the work in processes if there are `PROCESS_THRESHOLD` photos or more; `work`
            and its results are then pickled, and the examples of rows have no `data`.
    """
    elsewhere = processes and len(examples) >= PROCESS_THRESHOLD
    batches = [examples[begin : begin + BATCH] for begin in range(0, len(examples), BATCH)]
    with (
        bar(title, total=len(examples)) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        workers.processes() if elsewhere else nullcontext(pool) as worker,
    ):
        decoding = [pool.submit(squashed, card, example) for example in examples[:BATCH]]
        working: list[Future[T]] = []
        for number, batch in enumerate(batches):
            photos = [decoded.result() for decoded in decoding]
            next_batch = batches[number + 1] if number + 1 < len(batches) else ()
            decoding = [pool.submit(squashed, card, example) for example in next_batch]
            rows = _run(card, engine, cut, batch, photos, top1=top1, deep=deep)
            if elsewhere:  # without the encoded photos, which would come back as copies
                rows = [replace(row, example=replace(row.example, data=b"")) for row in rows]
            previous, working = working, [worker.submit(work, row) for row in rows]
            for future in previous:
                yield future.result()
                progress.update()
        for future in working:
            yield future.result()
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
    """Run a batch through the model; see `explain`."""
    image = np.stack([pixels for _, pixels in photos])  # uint8 [n, S, S, 3]
    target = np.array([-1 if top1 else example.label for example in batch], np.int32)  # -1: top-1
    inputs = Batch.of(image, target)
    arrays = engine.run(cut, inputs)
    boxed_rows = [row for row, example in enumerate(batch) if deep and example.boxes]
    deep_outputs: dict[int, Outputs] = {}
    if boxed_rows:
        deep_arrays = engine.run(Cut.EXPLAIN_DEEP, inputs.rows(boxed_rows))
        deep_outputs = {
            row: {name: array[index] for name, array in deep_arrays.items()}
            for index, row in enumerate(boxed_rows)
        }
    return [
        Explained(
            card,
            example,
            photo.width,
            photo.height,
            pixels,
            {name: array[row] for name, array in arrays.items()},
            deep_outputs.get(row),
        )
        for row, (example, (photo, pixels)) in enumerate(zip(batch, photos, strict=True))
    ]


def squashed(card: ModelCard, example: Example) -> Squashed:
    """The decoded photo, and the model's input `[S, S, 3]`, as the service makes it."""
    photo = images.decode(example.read(), side=images.enough_for(card.input.size))
    return photo, images.squash(photo.pixels, card.input.size, card.input.resize)
