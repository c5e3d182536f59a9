"""A model version as an ONNX file: converted, described, checked and written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from app.bundle import Bundle, Method, ModelCard
from app.engines import Batch, Cut
from app.engines.tensorflow import freeze, retyped
from training.errors import ExportError
from training.export import rounding
from training.export.onnx.translation import translated
from training.export.rounding import BFLOAT16_LIMIT, LIMIT, Change
from training.files import atomic_write

__all__ = [
    "CARD",
    "INPUTS",
    "OPSET",
    "Difference",
    "check_destination",
    "convert",
    "difference",
    "relative_errors",
    "write",
]

Arrays = Mapping[str, npt.NDArray[Any]]

OPSET, IR_VERSION = 13, 7
"""Of 2020, so that old runtimes read the file too."""

INPUTS = ("image", "class_index", "versus_index")
"""Of the graph, in this order."""

CARD = "model.json"
"""The metadata's key of the model's card."""

_PREDICTIONS = ("logits", "probabilities", "target_index")


@dataclass(frozen=True)
class Difference:
    """How far the outputs of an ONNX file lie from the SavedModel's, on test images.

    Attributes:
        predictions: of logits and probabilities.
        outputs: of each other output, by name; see `relative_errors`.
    """

    predictions: Change
    outputs: Mapping[str, float]

    @property
    def greatest(self) -> str:
        """The name of the output that differs most, predictions aside."""
        return max(self.outputs, key=self.outputs.__getitem__)

    def check(self, limit: float) -> None:
        """Refuse a difference that is greater than rounding explains.

        Args:
            limit: of probabilities, and of other outputs as a share of their size.

        Raises:
            ExportError: something differs by more; the message names it.
        """
        if not self.predictions.within(limit):
            raise ExportError(
                f"As ONNX, the model would not predict what it does: {self.predictions}."
            )
        error = self.outputs[self.greatest]
        if error > limit:
            raise ExportError(
                f"As ONNX, the output {self.greatest!r} would differ by {error:.1%} on test images."
            )


def write(bundle: Bundle, path: Path, *, float16: bool = False) -> Difference:
    """Write a model version as one ONNX file, and compare it with the SavedModel.

    Args:
        bundle: the model version.
        path: of the file; one that exists is replaced.
        float16: see `convert`.

    Returns:
        By how much the outputs for test images differ.

    Raises:
        ExportError: the file cannot be written there, an operation cannot be converted, or the file
            does not predict or explain as the SavedModel does.
        BundleError: the SavedModel cannot be read.
    """
    check_destination(path, bundle.path)
    content = convert(bundle, float16=float16).SerializeToString()
    change = difference(bundle, content)
    # On these images, maps of the shipped ResNet50 differ by 4e-5 at most in float32 and by 0.01 in
    # float16; a map with a wrong mask or a wrong scale differs by a good part of its size.
    change.check(BFLOAT16_LIMIT if float16 else LIMIT)
    try:
        atomic_write(path, content)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}.") from error
    return change


def check_destination(path: Path, version_dir: Path) -> None:
    """Check that a version's ONNX file may be written to `path`.

    Args:
        path: of the file.
        version_dir: of the version. It need not exist yet, and nor need what it lies in.

    Raises:
        ExportError: the path lies in the version, or in a directory that neither exists nor is
            made with the version.
    """
    version, parent = version_dir.resolve(), path.parent.resolve()
    if path.resolve().is_relative_to(version):
        raise ExportError(f"{path} lies in the model version, which holds no other files.")
    will_be_made = not parent.exists() and parent in version.parents
    if not (parent.is_dir() or will_be_made):
        raise ExportError(f"{path} cannot be written: {path.parent} is no directory.")


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


def difference(bundle: Bundle, content: bytes) -> Difference:
    """By how much the outputs of an ONNX file differ from the SavedModel's, on test images.

    Both explain the SavedModel's top-1: in half precision, that of a noisy image may be another.

    Args:
        bundle: the model version, which OpenVINO runs in float32.
        content: of the file, which ONNX Runtime runs.

    Raises:
        ExportError: an output is not finite, but for foreground and novelty; see
            `rounding.check_served`.
    """
    images = rounding.probes(bundle.card.input.size)
    engine = engines.create(bundle, engine="openvino", device="cpu", precision="float32")
    expected = engine.run(Cut.EXPLAIN_DEEP, Batch.of(images))
    engine.close()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    batch = Batch.of(images, expected["target_index"])
    feed = {name: getattr(batch, name) for name in INPUTS}
    actual: dict[str, npt.NDArray[Any]] = dict(zip(names, session.run(names, feed), strict=True))
    for name, array in actual.items():
        if not name.startswith(("foreground", "novelty")) and not np.isfinite(array).all():
            raise ExportError(f"As ONNX, the output {name!r} is not finite on a test image.")
    errors = relative_errors(expected, actual)
    return Difference(
        Change.between(expected["logits"], actual["logits"]),
        {name: error for name, error in errors.items() if name not in _PREDICTIONS},
    )


def relative_errors(expected: Arrays, actual: Arrays) -> dict[str, float]:
    """How far outputs lie from others: `||a - b|| / ||b||` over a batch, by output.

    Where the terms of an output cancel, the norm of the terms takes the place of `||b||`. At an
    earlier layer, HiResCAM's terms cancel almost completely. LayerCAM sums the positive ones alone,
    so its norm is their size. An output whose ReLU has removed the negative part is measured
    against HiResCAM, which keeps it.

    Args:
        expected: b, by name.
        actual: a, by name. Rows where either is not finite are left out.
    """
    return {name: _relative_error(expected, name, actual[name]) for name in expected}


def _relative_error(expected: Arrays, name: str, actual: npt.NDArray[Any]) -> float:
    rows = len(actual)
    finite = np.isfinite(np.stack([actual, expected[name]]).reshape(2, rows, -1)).all(axis=(0, 2))
    error = float(np.linalg.norm(actual[finite] - expected[name][finite]))
    terms = [expected[term][finite] for term in _terms(name) if term in expected]
    size = max(float(np.linalg.norm(term)) for term in terms)
    return error / size if size > 0 else float(np.inf if error > 0 else 0)


def _terms(name: str) -> list[str]:
    """The outputs whose norms tell an output's size; the greatest counts."""
    method, _, layer = name.partition("_")
    at_layer = f"_{layer}" if layer else ""
    if method in (Method.GRADCAM, Method.GRADCAMPP, Method.LAYERCAM):
        return [name, f"{Method.HIRESCAM}{at_layer}"]
    if method == Method.HIRESCAM and layer:
        return [name, f"{Method.LAYERCAM}{at_layer}"]
    return [name]


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
