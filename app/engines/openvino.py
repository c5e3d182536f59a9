"""The CPU engine: OpenVINO reads the SavedModel itself, so TensorFlow is not needed."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from app.bundle import INT8_PATH, Bundle
from app.engines.base import (
    SAVED_MODEL,
    Arrays,
    Batch,
    Cut,
    EngineInfo,
    LocalEngine,
    Port,
    check_ports,
    check_weights,
    cpu_has_int8,
    input_names,
    output_names,
    usable_cores,
)
from app.errors import BundleError, EngineUnavailable

__all__ = ["CORE", "OpenVINOEngine"]

CORE = ov.Core()
"""The only one of the process, as OpenVINO recommends.

A core's CPU plugin lends an alternate signal stack to the thread that loads it, and unmaps it at
its end. Cores that end in another order than the reverse of their start, or on another thread,
leave that thread with an unmapped stack: its next signal (Ctrl-C) is a segmentation fault. So it
is in OpenVINO 2026.4.
"""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_INT8_GRAPH = "graph in 8-bit integers"

_MOST_STREAMS = 8

_MOST_ROWS = 4
"""Photos of a stream in one call. More take as long each, and more memory: with 64 photos in a call
of two streams, over 300 MB. Of `explain_deep`, two would take 34 MB less, but 20 % more time for
eight; eight in two streams would take over 150 MB more."""


class OpenVINOEngine(LocalEngine):
    """A model version on the CPU, cut to need from one graph.

    The graph is the SavedModel's, or with the precision `int8` the one beside it, whose forward
    pass is in 8-bit integers; the rest of it is computed in bfloat16 where the CPU has it.

    Photos are shared out among streams, each with as many cores, which takes up to 10 % less time
    than all cores on all photos (docs/performance.md). Few of them, or few that are left over from
    even shares, have all cores. No row is padding. On two cores, with a stream each:

        1 photo     1 on all cores
        3 photos    1 + 1, then 1 on all cores
        8 photos    4 + 4
        9 photos    4 + 4, then 1 on all cores

    A compiled cut holds weights in an order of its own, and as much memory for what lies between
    layers as its largest call needs: `_MOST_ROWS` a stream. `explain_deep`, which has the most of
    both and the fewest requests, is compiled once, without streams.
    """

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int = 0) -> None:
        """Read the model; each cut is compiled at its first use.

        Args:
            bundle: the model version.
            precision: `float32`, `bfloat16`, `int8`, `float` (bfloat16 where the CPU has it and the
                model bears it) or `auto` (int8 where the version has it and the CPU is fast at it,
                else `float`).
            threads: 0 for one a core.

        Raises:
            BundleError: OpenVINO cannot read the graph, or it does not fit the version's card, or
                its weights are not finite.
            EngineUnavailable: the CPU lacks the precision, or the version has no graph in it.
        """
        super().__init__(bundle)
        precision, arithmetic = self._choose_precision(precision)
        path, graph = bundle.path, SAVED_MODEL
        if precision == "int8":
            path, graph = bundle.path / INT8_PATH, _INT8_GRAPH
        try:
            self._model = CORE.read_model(str(path))
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot read the {graph} at {path}.") from error
        check_ports(bundle, _ports(self._model), graph)
        check_weights(bundle, _weights(self._model), graph)
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[arithmetic]}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        # A power of two that leaves no core over.
        self._streams = math.gcd(threads or usable_cores(), _MOST_STREAMS)
        self._models: dict[tuple[Cut, int], ov.CompiledModel] = {}
        self._requests: dict[tuple[Cut, int], _Bound] = {}
        self._used: dict[tuple[Cut, int], bool] = {}
        self._precision = precision

    def _choose_precision(self, requested: str) -> tuple[str, str]:
        """The precision to compute in, and that of what is not in 8-bit integers."""
        has_bfloat16 = "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if requested == "float16":
            raise EngineUnavailable("BREEDCAM_PRECISION=float16 is for GPUs.")
        if requested == "bfloat16" and not has_bfloat16:
            raise EngineUnavailable("BREEDCAM_PRECISION=bfloat16, and this CPU has no bfloat16.")
        if requested == "int8" and not cpu_has_int8():
            raise EngineUnavailable(
                "BREEDCAM_PRECISION=int8, and this CPU has none of AVX-512 VNNI, AVX-VNNI and AMX, "
                "which multiply 8-bit integers."
            )
        if requested == "int8" and not self._bundle.has_int8:
            raise EngineUnavailable(
                f"BREEDCAM_PRECISION=int8, and {self._bundle.path} has no graph in 8-bit integers: "
                "docs/own-model.md says how to add one, and `auto` serves it without."
            )
        fastest = arithmetic = "bfloat16" if has_bfloat16 else "float32"
        if requested == "auto" and self._bundle.has_int8 and cpu_has_int8():
            fastest = "int8"
        chosen = self.choose_precision(requested, fastest)
        return chosen, arithmetic if chosen == "int8" else chosen

    @property
    def info(self) -> EngineInfo:
        """See `Engine`."""
        return EngineInfo(
            name="openvino",
            version=ov.__version__.split("-")[0],
            device=str(CORE.get_property("CPU", "FULL_DEVICE_NAME")),
            precision=self._precision,
            warnings=list(self._warnings),
        )

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        """See `Engine`.

        Raises:
            ValueError: an array of another shape or dtype than `Batch` has.
        """
        for array in batch.inputs(cut):
            if len(array) != len(batch):
                raise _no_batch(array, len(batch))
        calls = self._calls(cut, len(batch))
        if len(calls) == 1:
            return self._run(cut, batch)
        ends = list(accumulate(calls))
        starts = [0, *ends[:-1]]
        parts = [
            self._run(cut, batch.rows(slice(start, end)))
            for start, end in zip(starts, ends, strict=True)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _calls(self, cut: Cut, rows: int) -> list[int]:
        """How many photos of a batch are in each call, most first."""
        calls = []
        for size in sorted(self._sizes(cut, rows), reverse=True):
            count, rows = divmod(rows, size)
            calls += [size] * count
        return calls

    def _run(self, cut: Cut, batch: Batch) -> Arrays:
        """Run a batch in one call."""
        rows = len(batch)
        bound = self._bound(cut, rows)
        self._used[cut, self._streams_for(cut, rows)] = True
        # The arrays that the requests read are filled in place.
        for array, source in zip(bound.inputs, batch.inputs(cut), strict=True):
            if (source.dtype, source.shape) != (array.dtype, array.shape):
                raise _no_batch(source, rows)
            array[:] = source
        bound.run()
        # The next call of this size overwrites the outputs: the caller gets copies.
        return {name: array.copy() for name, array in bound.outputs.items()}

    def release_memory(self) -> bool:
        """See `Engine`: what lies between layers, of the models that have not run meanwhile.

        To take it anew costs the next run of eight photos some 8 % more time.
        """
        for key in [key for key, used in self._used.items() if not used]:
            self._models[key].release_memory()
            del self._used[key]
        self._used = dict.fromkeys(self._used, False)
        return bool(self._used)

    def close(self) -> None:
        """See `Engine`."""
        self._requests.clear()
        self._used.clear()
        self._models.clear()

    def _sizes(self, cut: Cut, max_batch: int) -> set[int]:
        if cut is Cut.EXPLAIN_DEEP:
            # Each size costs some 7 MB: three photos are rare, and little slower as two and one.
            sizes = {1, 2, _MOST_ROWS}
        else:
            streams = self._streams
            sizes = {  # few, or as many as streams share without leaving few over
                rows
                for rows in range(1, streams * _MOST_ROWS + 1)
                if self._is_few(rows) or not self._is_few(rows % streams or streams)
            }
        return {rows for rows in sizes if rows <= max_batch}

    def _is_few(self, rows: int) -> bool:
        """Whether all cores for each photo in turn are faster than a stream for each."""
        return 2 * rows <= self._streams

    def _streams_for(self, cut: Cut, rows: int) -> int:
        """How many streams a call's photos are shared out among: all there are, or one."""
        return 1 if cut is Cut.EXPLAIN_DEEP or self._is_few(rows) else self._streams

    def _bound(self, cut: Cut, rows: int) -> "_Bound":
        if (cut, rows) not in self._requests:
            streams = self._streams_for(cut, rows)
            model, names = self._compiled(cut, streams), output_names(self._card, cut)
            self._requests[cut, rows] = _Bound.of(model, names, streams, rows)
        return self._requests[cut, rows]

    def _compiled(self, cut: Cut, streams: int) -> ov.CompiledModel:
        if (cut, streams) not in self._models:
            options = {"PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT"}
            options |= self._options | {"NUM_STREAMS": streams}
            self._models[cut, streams] = CORE.compile_model(self._cut(cut), "CPU", options)
        return self._models[cut, streams]

    def _cut(self, cut: Cut) -> ov.Model:
        """A copy of the full graph without what the cut's outputs do not need.

        Its inputs and outputs have the order of `input_names` and `output_names`.
        """
        full = self._model.clone()
        results = [full.output(name).get_node() for name in output_names(self._card, cut)]
        parameters = {node.output(0).any_name: node for node in full.get_parameters()}
        return ov.Model(results, [parameters[name] for name in input_names(cut)], cut.value)


@dataclass(frozen=True, slots=True)
class _Bound:
    """Requests with the arrays that they read and write, for calls of one size.

    Attributes:
        requests: one for each stream that has rows.
        inputs: in the order of the model's.
        outputs: by name; a run writes over what the one before has left.
    """

    requests: list[ov.InferRequest]
    inputs: list[npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, model: ov.CompiledModel, names: list[str], streams: int, rows: int) -> "_Bound":
        # One array a port, `[rows, ...]`; each request is bound to views of its share of the rows.
        inputs = [_array(port, rows) for port in model.inputs]
        outputs = {
            name: _array(port, rows) for name, port in zip(names, model.outputs, strict=True)
        }
        requests = [model.create_infer_request() for _ in range(min(rows, streams))]
        for index, request in enumerate(requests):
            own = slice(index * rows // len(requests), (index + 1) * rows // len(requests))
            for place, array in enumerate(inputs):
                request.set_input_tensor(place, ov.Tensor(array[own], shared_memory=True))
            for place, array in enumerate(outputs.values()):
                request.set_output_tensor(place, ov.Tensor(array[own], shared_memory=True))
        return cls(requests, inputs, outputs)

    def run(self) -> None:
        """Run the requests at once; none is left running, even where one fails."""
        with ExitStack() as started:
            for request in self.requests:
                request.start_async()
                started.callback(request.wait)


def _no_batch(array: npt.NDArray[Any], rows: int) -> ValueError:
    return ValueError(f"{array.dtype} {array.shape} is no batch of {rows} photos.")


def _ports(model: ov.Model) -> dict[str, Port]:
    """Inputs and outputs by each of their names."""
    ports: dict[str, Port] = {}
    for port in (*model.inputs, *model.outputs):
        shape = (
            None if length.is_dynamic else length.get_length() for length in port.partial_shape
        )
        spec = Port(port.element_type.to_dtype().name, tuple(shape))
        ports |= dict.fromkeys(port.names, spec)
    return ports


def _weights(model: ov.Model) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Constants of real numbers, which the variables have become, with their names."""
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().is_real():
            yield node.get_friendly_name(), node.data


def _array(port: ov.ConstOutput, rows: int) -> npt.NDArray[Any]:
    _, *shape = port.partial_shape
    if any(length.is_dynamic for length in shape):
        raise BundleError(f"The graph does not fix the shape of {port.any_name!r}.")
    lengths = (length.get_length() for length in shape)
    return np.zeros((rows, *lengths), port.element_type.to_dtype())
