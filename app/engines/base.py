"""What an engine is: one model version, cut to need, fed padded batches."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from app.bundle import Method, ModelCard

__all__ = [
    "BATCH_SIZES",
    "Batch",
    "Cut",
    "Engine",
    "EngineInfo",
    "LocalEngine",
    "cpu_has_bfloat16",
    "gpu_precision",
    "input_names",
    "layer_output",
    "output_names",
    "pad_rows",
    "padded",
    "usable_cores",
]

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""The only batch sizes a model is ever run with, so that no engine grows a cache of shapes."""


class Cut(StrEnum):
    """How much of the full signature a caller needs; each is a model of its own.

    The service runs `explain` even for `/predict`, whose confidence needs the foreground.
    `predict` is for scoring alone, in training, and the measure of what explaining costs.
    """

    PREDICT = "predict"
    EXPLAIN = "explain"
    EXPLAIN_DEEP = "explain_deep"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a model runs on: N photos, and the class to explain in each.

    The attributes bear the names of the graph's inputs.

    Attributes:
        image: uint8 RGB `[N, S, S, 3]`, squashed to the model's input size S.
        class_index: int32 `[N]`, the class to explain; -1 for the row's own top-1.
        versus_index: int32 `[N]`, the class to explain it against; -1 for none.
    """

    image: npt.NDArray[np.uint8]
    class_index: npt.NDArray[np.int32]
    versus_index: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls, image: npt.NDArray[np.uint8], class_index: npt.NDArray[np.int32] | None = None
    ) -> Self:
        """Explain the photos `[N, S, S, 3]` against no class; by default, each for its top-1."""
        none = np.full(len(image), -1, np.int32)
        return cls(image, none if class_index is None else class_index, none)

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, index: slice | Sequence[int]) -> Self:
        """A batch of some of the rows."""
        return type(self)(self.image[index], self.class_index[index], self.versus_index[index])

    def inputs(self, cut: Cut) -> list[npt.NDArray[Any]]:
        """The arrays that a cut takes, in the order of `input_names`."""
        return [getattr(self, name) for name in input_names(cut)]


class EngineInfo(BaseModel):
    """What runs the model."""

    model_config = ConfigDict(frozen=True)

    name: Literal["openvino", "tensorflow"]
    version: str
    device: str
    precision: str
    warnings: list[str] = []


class Engine(Protocol):
    """Three verbs: `warm_up`, `run`, `close`. Used from one thread at a time."""

    @property
    def info(self) -> EngineInfo:
        """Name, device and precision in use, and what the operator should know."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is in use."""
        ...

    def warm_up(self, max_batch: int) -> None:
        """Compile `explain`, which answers `/predict` too, and run it with every padded size.

        On a GPU, `explain_deep` as well: there, compiling would hold up others for long.
        """
        ...

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        """Run a batch.

        Args:
            cut: which outputs; `output_names` lists them.
            batch: N photos, 1 to the greatest of `BATCH_SIZES`.

        Returns:
            float32 (`target_index`: int32) arrays with N rows, by output name.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has AVX-512 with bfloat16, as Linux reports."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def gpu_precision(capability: tuple[int, int]) -> Literal["float32", "bfloat16", "float16"]:
    """The fastest arithmetic of an NVIDIA GPU that a network bears.

    Args:
        capability: CUDA's: bfloat16 came with Ampere, float16's tensor cores with Volta.
    """
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def layer_output(card: ModelCard, name: str, layer: str) -> str:
    """The model output that holds a map at a layer: a method's, or `foreground`."""
    return name if layer == card.layers[-1].name else f"{name}_{layer}"


def input_names(cut: Cut) -> list[str]:
    """The inputs of a cut, in the order of `Batch`'s attributes."""
    return ["image"] if cut is Cut.PREDICT else ["image", "class_index", "versus_index"]


def output_names(card: ModelCard, cut: Cut) -> list[str]:
    """The outputs of a cut.

    `predict`: logits and probabilities. `explain`: those, the target, novelty, every map at the
    last layer, and the foreground's at its layers. `explain_deep`: those, and every map at the
    layers before.
    """
    names = ["logits", "probabilities"]
    if cut is Cut.PREDICT:
        return names
    at_layer = ["foreground", *(method for method in card.methods if method is not Method.CAM)]
    names += ["target_index", *at_layer]
    if card.novelty:
        names.append("novelty")
    if card.has_cam:
        names.append(Method.CAM)
    earlier = [layer_output(card, "foreground", layer) for layer in card.foreground_layers]
    if cut is Cut.EXPLAIN_DEEP:
        earlier += [f"{name}_{layer}" for layer in card.layer_names[:-1] for name in at_layer]
    return list(dict.fromkeys(str(name) for name in (*names, *earlier)))


def padded(rows: int) -> int:
    """The least of `BATCH_SIZES` that so many rows fit into."""
    return next(size for size in BATCH_SIZES if size >= rows)


def pad_rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat the last row until the number of rows is one of `BATCH_SIZES`."""
    rows = len(array)
    missing = padded(rows) - rows
    if not missing:
        return array
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


class LocalEngine(ABC):
    """What the engines of this process share."""

    on_gpu = False

    def __init__(self, card: ModelCard) -> None:
        """Remember the model's card."""
        self._card = card
        self._warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Log a warning and show it in `info`."""
        log.warning(message)
        self._warnings.append(message)

    def warm_up(self, max_batch: int) -> None:
        """See `Engine`."""
        size = self._card.input.size
        cuts = (Cut.EXPLAIN, Cut.EXPLAIN_DEEP) if self.on_gpu else (Cut.EXPLAIN,)
        for rows in [batch for batch in BATCH_SIZES if batch <= padded(max_batch)]:
            black = Batch.of(np.zeros((rows, size, size, 3), np.uint8))
            for cut in cuts:
                self.run(cut, black)

    @abstractmethod
    def run(self, cut: Cut, batch: Batch) -> Arrays:
        """See `Engine`."""
