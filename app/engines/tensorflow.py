"""The GPU engine, and the CPU's on request: TensorFlow with variables frozen to constants."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from app.bundle import Bundle
from app.engines.base import (
    Arrays,
    Batch,
    Cut,
    EngineInfo,
    LocalEngine,
    Port,
    check_ports,
    check_weights,
    cpu_has_bfloat16,
    gpu_precision,
    input_names,
    output_names,
    pad_rows,
)
from app.errors import BundleError, EngineUnavailable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

__all__ = ["TensorFlowEngine", "finds_gpu", "freeze", "retyped"]


def finds_gpu() -> bool:
    """Whether TensorFlow, as it is installed, can use a GPU of this machine."""
    return bool(tf.config.list_physical_devices("GPU"))


class TensorFlowEngine(LocalEngine):
    """A model version on a GPU where there is one, else on the CPU."""

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", precision: str = "auto", threads: int = 0
    ) -> None:
        """Load and freeze the model; each cut is pruned out at its first use.

        Args:
            bundle: the model version.
            device: `auto`, `cpu` or `gpu`; a GPU that is absent is a warning.
            precision: `auto`, `float32`, `bfloat16` (on a CPU, oneDNN's) or `float16`.
            threads: 0 for one a core.

        Raises:
            BundleError: TensorFlow cannot read the SavedModel, or it does not fit its card, or its
                weights are not finite.
            EngineUnavailable: the device lacks the precision.
        """
        super().__init__(bundle)
        gpus = tf.config.list_physical_devices("GPU")
        if device == "gpu" and not gpus:
            self.warn("A GPU was requested and TensorFlow finds none: the CPU is used.")
        self.on_gpu = bool(gpus) and device != "cpu"
        self._device = "/GPU:0" if self.on_gpu else "/CPU:0"
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        self._precision = self._choose_precision(precision)
        with tf.device(self._device):
            self._graph, self._tensors = freeze(bundle)
        if self.on_gpu and self._precision != "float32":
            logits = self._tensors["logits"].partition(":")[0]
            self._graph = retyped(self._graph, tf.as_dtype(self._precision), logits)
        self._functions: dict[Cut, Any] = {}

    @property
    def info(self) -> EngineInfo:
        """See `Engine`."""
        kind = "GPU" if self.on_gpu else "CPU"
        details = tf.config.experimental.get_device_details(
            tf.config.list_physical_devices(kind)[0]
        )
        return EngineInfo(
            name="tensorflow",
            version=tf.__version__,
            device=details.get("device_name", kind),
            precision=self._precision,
            warnings=list(self._warnings),
        )

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        """See `Engine`."""
        if cut not in self._functions:
            self._functions[cut] = self._prune(cut)
        with tf.device(self._device):
            inputs = [tf.constant(pad_rows(array)) for array in batch.inputs(cut)]
            results = self._functions[cut](*inputs)
        names = output_names(self._card, cut)
        rows = len(batch)
        return {name: result.numpy()[:rows] for name, result in zip(names, results, strict=True)}

    def close(self) -> None:
        """See `Engine`."""
        self._functions.clear()

    def _prune(self, cut: Cut) -> Any:
        """A function of the cut's inputs alone, giving the cut's outputs in order."""
        imported = tf.compat.v1.wrap_function(
            lambda: tf.compat.v1.import_graph_def(self._graph, name=""), []
        )
        element = imported.graph.as_graph_element
        pruned = imported.prune(
            [element(f"{name}:0") for name in input_names(cut)],
            [element(self._tensors[name]) for name in output_names(self._card, cut)],
        )

        def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
            outputs = pruned(*inputs)
            return [tf.cast(x, tf.float32) if x.dtype.is_floating else x for x in outputs]

        signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in pruned.inputs]
        return tf.function(run, input_signature=signature, jit_compile=self.on_gpu, autograph=False)

    def _choose_precision(self, precision: str) -> str:
        if self.on_gpu:
            return self._choose_gpu_precision(precision)
        has_bfloat16 = cpu_has_bfloat16()
        if precision == "float16":
            raise EngineUnavailable("BREEDCAM_PRECISION=float16 is for GPUs.")
        if precision == "bfloat16" and not has_bfloat16:
            raise EngineUnavailable("BREEDCAM_PRECISION=bfloat16, and this CPU has no bfloat16.")
        chosen = self.choose_precision(precision, "bfloat16" if has_bfloat16 else "float32")
        tf.config.optimizer.set_experimental_options(
            {"auto_mixed_precision_onednn_bfloat16": chosen == "bfloat16"}
        )
        return chosen

    def _choose_gpu_precision(self, precision: str) -> str:
        [gpu, *_] = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpu)
        fastest = gpu_precision(details.get("compute_capability", (0, 0)))
        if precision == "bfloat16" and fastest != "bfloat16":
            raise EngineUnavailable("BREEDCAM_PRECISION=bfloat16, and this GPU has no bfloat16.")
        return self.choose_precision(precision, fastest)


def freeze(bundle: Bundle) -> tuple[Any, dict[str, str]]:
    """The full graph with its variables as constants.

    Returns:
        The `GraphDef`, and by each output's name that of the tensor which gives it. Placeholders
        bear the inputs' names.

    Raises:
        BundleError: TensorFlow cannot read the SavedModel, or it does not fit its card, or its
            weights are not finite.
        OSError, MemoryError: the system cannot give what it takes to read it, which may pass.
    """
    try:
        loaded = tf.saved_model.load(str(bundle.path))  # holds the variables until frozen
        full = loaded.signatures["serving_default"]
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from error
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
        # One without a number is TensorFlow's own: a file that it cannot parse.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BundleError(f"TensorFlow cannot read the SavedModel at {bundle.path}.") from error
    check_ports(bundle, _ports(full))
    check_weights(bundle, _weights(full))
    frozen = convert_variables_to_constants_v2(full)
    names = sorted(full.structured_outputs)  # TensorFlow flattens by sorted key
    tensors = {name: tensor.name for name, tensor in zip(names, frozen.outputs, strict=True)}
    return frozen.graph.as_graph_def(), tensors


def _ports(full: Any) -> dict[str, Port]:
    """Inputs and outputs of a signature by name."""
    specs = full.structured_input_signature[1] | full.structured_outputs
    return {
        name: Port(spec.dtype.name, tuple(spec.shape.as_list())) for name, spec in specs.items()
    }


def _weights(full: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """A signature's variables, with their names."""
    for variable in full.variables:
        yield variable.name, variable.numpy()


def retyped(graph: Any, dtype: tf.DType, logits: str) -> Any:
    """A frozen `GraphDef` with its float32 arithmetic in half precision, but for the logits.

    Rewritten here, since the passes of TensorFlow that would do so leave alone what XLA compiles.
    From the last product of matrices on, logits and probabilities stay float32: half
    precision has too few digits to tell likely classes apart.

    Args:
        graph: without functions or variables; whatever else it has of float32 is kept.
        dtype: float16 or bfloat16.
        logits: name of the node that gives them.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph)
    single, half = tf.float32.as_datatype_enum, dtype.as_datatype_enum
    kept = _head(graph, logits)
    for node in result.node:
        if node.name in kept:
            continue
        if node.op == "Const" and node.attr["dtype"].type == single:
            value = tf.make_ndarray(node.attr["value"].tensor)
            # What pads a map before its maximum becomes -inf in float16, which is as good.
            with np.errstate(over="ignore"):
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        for attribute in node.attr.values():
            if attribute.type == single:
                attribute.type = half
            for index, kind in enumerate(attribute.list.type):
                if kind == single:
                    attribute.list.type[index] = half
    for node in [node for node in result.node if node.name in kept and node.op == "MatMul"]:
        for index, source in enumerate(node.input[:2]):  # what follows is order alone
            cast = result.node.add(name=f"{node.name}/float32_{index}", op="Cast", input=[source])
            cast.attr["SrcT"].type, cast.attr["DstT"].type = half, single
            node.input[index] = cast.name
    return result


def _head(graph: Any, logits: str) -> set[str]:
    """Nodes from the last product of matrices to the logits, and those that they lead to.

    The product is the first on the way back from the logits. What a class's index leads to is the
    gradient's, and no part of the head.
    """
    nodes = {node.name: node for node in graph.node}
    head: set[str] = set()
    # Backward, from the logits to the first product of matrices on each path.
    waiting = [logits]
    while waiting:
        name = waiting.pop()
        head.add(name)
        if nodes[name].op != "MatMul":
            waiting += _sources(nodes[name])
    # Forward, to whatever they lead to, until nothing is added. ArgMax gives a class's index.
    size = 0
    while size != len(head):
        size = len(head)
        leading = {name for name in head if nodes[name].op != "ArgMax"}
        head |= {node.name for node in graph.node if leading.intersection(_sources(node))}
    return head


def _sources(node: Any) -> list[str]:
    """The nodes whose outputs a node takes: inputs are written `name:output`, `^name` is order."""
    return [name.partition(":")[0] for name in node.input if not name.startswith("^")]
