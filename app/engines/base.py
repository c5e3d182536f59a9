"""What an engine is: one model version, cut to need, fed batches."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from app.bundle import Bundle, Method, ModelCard
from app.errors import BundleError

__all__ = [
    "BATCH_SIZES",
    "Batch",
    "Cut",
    "Engine",
    "EngineInfo",
    "LocalEngine",
    "Port",
    "check_ports",
    "check_weights",
    "cpu_flags",
    "cpu_has_bfloat16",
    "cpu_has_int8",
    "gpu_precision",
    "input_names",
    "layer_output",
    "output_names",
    "usable_cores",
]

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

SAVED_MODEL = "SavedModel"
"""What messages call the graph that every version has."""

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Marks on the scale of batch sizes. The last is the largest size; TensorFlow's batches have no
other size than these."""


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


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output of the full graph.

    Attributes:
        dtype: as numpy names it.
        shape: None for what is not fixed, as the number of rows in front is not.
    """

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """For example `float32 [N, 8, 8]`."""
        rows, *rest = ("N" if length is None else str(length) for length in self.shape)
        return f"{self.dtype} [{', '.join([rows, *rest])}]"

    def fits(self, other: "Port") -> bool:
        """Whether what is fixed here is what the other has, and the number of rows is not fixed."""
        pairs = zip(self.shape, other.shape, strict=False)
        return (
            self.dtype == other.dtype
            and len(self.shape) == len(other.shape)
            and self.shape[0] is None
            and all(length in (None, expected) for length, expected in pairs)
        )


class EngineInfo(BaseModel):
    """What runs the model."""

    model_config = ConfigDict(frozen=True)

    name: Literal["openvino", "tensorflow"]
    version: str
    device: str
    precision: str
    warnings: list[str] = []


class Engine(Protocol):
    """Four verbs: `warm_up`, `run`, `release_memory`, `close`. Used from one thread at a time."""

    @property
    def info(self) -> EngineInfo:
        """Name, device and precision in use, and what the operator should know."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is in use."""
        ...

    def warm_up(self, max_batch: int) -> None:
        """Compile what the service runs, and run it with every size that batches are run in.

        Raises:
            BundleError: the model's answer is not finite.
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

    def release_memory(self) -> bool:
        """Give back what only runs before the last call of this method needed.

        The next run that needs it takes it anew.

        Returns:
            Whether there is more to give back once it is idle too.
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


_CPU_INFO = Path("/proc/cpuinfo")


def cpu_flags() -> frozenset[str]:
    """Instruction sets of an x86 CPU, as Linux names them; none elsewhere."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has AVX-512 with bfloat16, as Linux reports."""
    return "avx512_bf16" in cpu_flags()


def cpu_has_int8() -> bool:
    """Whether the CPU multiplies and adds 8-bit integers in one instruction, as Linux reports.

    Without it, OpenVINO's sums of 16 bits overflow, and 8-bit integers are hardly faster.
    """
    return not cpu_flags().isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8"})


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


def check_ports(bundle: Bundle, actual: Mapping[str, Port], graph: str = SAVED_MODEL) -> None:
    """Check that a graph's inputs and outputs are what its card says.

    Args:
        bundle: the model version.
        actual: by name; others than the service uses may be among them.
        graph: what the messages call it.

    Raises:
        BundleError: one is missing, or has another shape or dtype; the message says what differs.
    """
    for name, (expected, origin) in _expected_ports(bundle.card).items():
        if name not in actual:
            problem = f"has no {name!r}, which its {origin} in model.json promise: {expected}"
        elif not actual[name].fits(expected):
            problem = (
                f"has {name!r} as {actual[name]}; by its {origin} in model.json it is {expected}"
            )
        else:
            continue
        raise BundleError(f"The {graph} at {bundle.path} {problem}.")


def _expected_ports(card: ModelCard) -> dict[str, tuple[Port, str]]:
    """Inputs and outputs by name, each with the card's entry that it follows from."""
    size, index = card.input.size, Port("int32", (None,))
    per_class = Port("float32", (None, len(card.labels)))
    ports = {
        "image": (Port("uint8", (None, size, size, 3)), "input"),
        "class_index": (index, "input"),
        "versus_index": (index, "input"),
        "logits": (per_class, "labels"),
        "probabilities": (per_class, "labels"),
        "target_index": (index, "labels"),
        "novelty": (Port("float32", (None,)), "novelty"),
    }
    for layer in card.layers:
        size_of_map = Port("float32", (None, layer.height, layer.width))
        for kind in ("foreground", *card.methods):
            ports[layer_output(card, kind, layer.name)] = (size_of_map, "layers")
    used = [*input_names(Cut.EXPLAIN_DEEP), *output_names(card, Cut.EXPLAIN_DEEP)]
    return {name: ports[name] for name in used}


def check_weights(
    bundle: Bundle, weights: Iterable[tuple[str, npt.NDArray[Any]]], graph: str = SAVED_MODEL
) -> None:
    """Check that a model's weights are finite.

    Args:
        bundle: the model version.
        weights: with their names; integers and single numbers among them pass (a graph may well
            hold an infinity, such as for padding before a maximum).
        graph: what the message calls the graph that holds them.

    Raises:
        BundleError: some are not; the message names the first.
    """
    for name, array in weights:
        if array.size > 1 and not _is_finite(array):
            raise BundleError(
                f"The {graph} at {bundle.path} holds weights that are not finite: {name!r}, "
                f"{array.dtype} {list(array.shape)}."
            )


def _is_finite(array: npt.NDArray[Any]) -> bool:
    if array.dtype == np.float16:
        # By the bits of the exponent, all of which are set in infinities and NaN: 27 ms for the
        # shipped model's 41 million, `isfinite` takes 74.
        return bool((array.view(np.uint16) & 0x7FFF).max() < 0x7C00)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


class LocalEngine(ABC):
    """What the engines of this process share."""

    on_gpu = False

    def __init__(self, bundle: Bundle) -> None:
        """Remember the model version."""
        self._bundle = bundle
        self._card = bundle.card
        self._warnings: list[str] = []

    def choose_precision(self, requested: str, fastest: str) -> str:
        """The precision to compute in; a warning where the model needs more than was requested.

        Args:
            requested: one that the device has, `auto` or `float`.
            fastest: what these two are here, unless the model needs another.
        """
        needed = self._card.precision
        if requested in ("auto", "float"):
            return needed or fastest
        if needed not in (None, requested):
            self.warn(
                f"BREEDCAM_PRECISION={requested}, and the model predicts what it was trained to "
                f"only in {needed} (`precision` in model.json)."
            )
        return requested

    def warn(self, message: str) -> None:
        """Log a warning and show it in `info`."""
        log.warning(message)
        self._warnings.append(message)

    def warm_up(self, max_batch: int) -> None:
        """See `Engine`."""
        size = self._card.input.size
        for cut in (Cut.EXPLAIN, Cut.EXPLAIN_DEEP):
            for rows in sorted(self._sizes(cut, max_batch)):
                black = Batch.of(np.zeros((rows, size, size, 3), np.uint8))
                if not np.isfinite(self.run(cut, black)["logits"]).all():
                    raise BundleError(
                        f"The SavedModel at {self._bundle.path} gives logits that are not finite."
                    )

    @abstractmethod
    def _sizes(self, cut: Cut, max_batch: int) -> set[int]:
        """The sizes in which batches of up to `max_batch` photos are run."""

    @abstractmethod
    def run(self, cut: Cut, batch: Batch) -> Arrays:
        """See `Engine`."""

    def release_memory(self) -> bool:
        """See `Engine`; here, nothing can be given back."""
        return False
