"""A model version as an ONNX file: converted, described, checked and written."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import tensorflow as tf
from onnx import helper

import app
from app import engines
from app.bundle import Bundle, ModelCard
from app.engines import Batch, Cut
from app.engines.tensorflow import freeze, retyped
from training.errors import ExportError
from training.export import rounding
from training.export.onnx.translation import translated
from training.export.rounding import BFLOAT16_LIMIT, LIMIT, Change
from training.files import atomic_write

__all__ = ["CARD", "INPUTS", "OPSET", "convert", "difference", "write"]

OPSET, IR_VERSION = 13, 7
"""Of 2020, so that old runtimes read the file too."""

INPUTS = ("image", "class_index", "versus_index")
"""Of the graph, in this order."""

CARD = "model.json"
"""The metadata's key of the model's card."""


def write(bundle: Bundle, path: Path, *, float16: bool = False) -> Change:
    """Write a model version as one ONNX file, and compare it with the SavedModel.

    Args:
        bundle: the model version.
        path: of the file; one that exists is replaced.
        float16: see `convert`.

    Returns:
        By how much the predictions for test images differ.

    Raises:
        ExportError: the file cannot be written there, an operation cannot be converted, or the file
            does not predict what the SavedModel does.
        BundleError: the SavedModel cannot be read.
    """
    if path.resolve().is_relative_to(bundle.path.resolve()):
        raise ExportError(f"{path} lies in the model version, which holds no other files.")
    if not path.parent.is_dir():
        raise ExportError(f"{path} cannot be written: {path.parent} is no directory.")
    content = convert(bundle, float16=float16).SerializeToString()
    change = difference(bundle, content)
    if not change.within(BFLOAT16_LIMIT if float16 else LIMIT):
        raise ExportError(f"As ONNX, the model would not predict what it does: {change}.")
    try:
        atomic_write(path, content)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}.") from error
    return change


def convert(bundle: Bundle, *, float16: bool = False) -> onnx.ModelProto:
    """A model version as an ONNX model, with the inputs and outputs of `serving_default`.

    Weights are stored once, with the type that they have in the SavedModel. Where both passes of
    a convolution need a kernel, each derives its own form from it: ONNX Runtime does so once, when
    it loads the model.

    Args:
        bundle: the model version.
        float16: whether to compute in half precision. Logits, probabilities and all outputs stay
            float32.

    Raises:
        ExportError: an operation cannot be converted; the message names it.
        BundleError: the SavedModel cannot be read.
    """
    frozen, names = freeze(bundle)
    if float16:
        frozen = retyped(frozen, tf.float16, names["logits"].partition(":")[0])
    source = tf.Graph()
    with source.as_default():
        tf.import_graph_def(frozen, name="")
    outputs = {name: source.get_tensor_by_name(names[name]) for name in _in_order(bundle, names)}
    inputs = [source.get_tensor_by_name(f"{name}:0") for name in INPUTS]
    model = _described(translated(inputs, outputs).proto(bundle.card.name), bundle.card)
    onnx.checker.check_model(model, full_check=True)
    return model


def difference(bundle: Bundle, content: bytes) -> Change:
    """By how much predictions by an ONNX file differ from the SavedModel's, on test images.

    Args:
        bundle: the model version, which OpenVINO runs in float32.
        content: of the file, which ONNX Runtime runs.

    Raises:
        ExportError: an output is not finite, but for foreground and novelty; see
            `rounding.check_served`.
    """
    batch = Batch.of(rounding.probes(bundle.card.input.size))
    engine = engines.create(bundle, engine="openvino", device="cpu", precision="float32")
    expected = engine.run(Cut.PREDICT, batch)["logits"]
    engine.close()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {name: getattr(batch, name) for name in INPUTS}
    actual: dict[str, npt.NDArray[Any]] = dict(zip(names, session.run(names, feed), strict=True))
    for name, array in actual.items():
        if not name.startswith(("foreground", "novelty")) and not np.isfinite(array).all():
            raise ExportError(f"As ONNX, the output {name!r} is not finite on a test image.")
    return Change.between(expected, actual["logits"])


def _in_order(bundle: Bundle, names: Iterable[str]) -> list[str]:
    """Outputs as engines list them, then those that are there under a second name."""
    listed = engines.output_names(bundle.card, Cut.EXPLAIN_DEEP)
    return listed + sorted(set(names) - set(listed))


def _described(graph: onnx.GraphProto, card: ModelCard) -> onnx.ModelProto:
    """A model that says what it is, with its card less the checksums of other files."""
    model = helper.make_model(
        graph,
        producer_name="breedcam",
        producer_version=app.__version__,
        model_version=card.version,
        doc_string=f"{card.name} version {card.version}: predictions with explanations. "
        f"{card.licence}".strip(),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {CARD: card.replace(checksums={}).model_dump_json()})
    return model
