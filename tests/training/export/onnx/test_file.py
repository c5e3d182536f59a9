"""The ONNX file of a model version: what it says of itself, and what is refused."""

import platform
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from app import confidence, evidence, heatmaps
from app.bundle import DEFAULT_THRESHOLD, Bundle, Method, ModelCard, Rule, load
from app.engines import Batch, Cut
from app.engines.tensorflow import freeze
from app.evidence import MethodAtLayers
from app.settings import PROJECT
from tests.drawing import DRAWING
from tests.training.export.onnx.run import converted
from tests.training.small_networks import branched
from training.errors import ExportError
from training.export.from_keras import export_keras
from training.export.onnx import file
from training.export.onnx.file import CARD, OPSET, difference, relative_errors, write


def _damaged(bundle: Bundle, value: float) -> onnx.ModelProto:
    """The version's ONNX model with a value added to its biases."""
    model = onnx.ModelProto()
    model.CopyFrom(converted(bundle.path).model)
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype == np.float32 and array.ndim:
            initializer.CopyFrom(
                numpy_helper.from_array(array + np.float32(value), initializer.name)
            )
    return model


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("models/new/new.onnx", None),
        ("models/new.onnx", None),
        ("new.onnx", None),
        ("models/new/1/new.onnx", "lies in the model version"),
        ("models/other/new.onnx", "other is no directory"),
        ("models/new/onnx/new.onnx", "onnx is no directory"),
        ("a file/new.onnx", "a file is no directory"),
    ],
)
def test_destination_may_lie_where_the_version_will(
    tmp_path: Path, path: str, problem: str | None
) -> None:
    (tmp_path / "a file").touch()
    outcome = nullcontext() if problem is None else pytest.raises(ExportError, match=problem)
    with outcome:
        file.check_destination(tmp_path / path, tmp_path / "models" / "new" / "1")


def test_file_says_what_it_is(small_bundle: Bundle) -> None:
    model = converted(small_bundle.path).model
    card = small_bundle.card

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert ModelCard.model_validate_json(metadata[CARD]) == card.replace(checksums={})
    assert (model.producer_name, model.model_version) == ("breedcam", card.version)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_inputs_and_outputs_are_those_of_the_saved_model(small_bundle: Bundle) -> None:
    graph = converted(small_bundle.path).model.graph
    shapes = {
        port.name: [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim]
        for port in (*graph.input, *graph.output)
    }

    assert [port.name for port in graph.input] == ["image", "class_index", "versus_index"]
    assert shapes["image"] == ["N", 32, 32, 3]
    assert {port.name for port in graph.output} == set(freeze(small_bundle)[1])
    assert shapes["gradcam_early_out"] == ["N", 8, 8]
    assert shapes["logits"] == ["N", 5]


def test_weights_are_stored_once(shipped_bundle: Bundle) -> None:
    """Though half of them are needed forwards and backwards."""
    model = converted(shipped_bundle.path).model
    (variables,) = (shipped_bundle.path / "variables").glob("*.data-*")

    assert model.ByteSize() < 1.05 * variables.stat().st_size


def test_file_is_written_and_replaced(small_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"old")

    change = write(small_bundle, path)

    assert change.predictions.probability < 1e-5
    assert 0 < change.outputs[change.greatest] < 1e-3
    assert onnx.load(path) == converted(small_bundle.path).model
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_into_the_version(small_bundle: Bundle) -> None:
    with pytest.raises(ExportError, match="lies in the model version"):
        write(small_bundle, small_bundle.path / "assets.extra" / "model.onnx")


def test_directories_are_not_made(small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{tmp_path}/absent is no directory"):
        write(small_bundle, tmp_path / "absent" / "model.onnx")


def test_a_file_that_predicts_otherwise_is_not_written(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = _damaged(small_bundle, 3.0)
    monkeypatch.setattr(file, "convert", lambda _bundle, *, float16: damaged)

    with pytest.raises(ExportError, match="would not predict what it does: probabilities would"):
        write(small_bundle, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def _with_output(bundle: Bundle, name: str, operation: str, **attributes: Any) -> onnx.ModelProto:
    """The version's ONNX model with one operation more in front of an output."""
    model = onnx.ModelProto()
    model.CopyFrom(converted(bundle.path).model)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}_before" if entry == name else entry for entry in names]
    model.graph.node.append(helper.make_node(operation, [f"{name}_before"], [name], **attributes))
    return model


def test_outputs_that_are_not_finite_are_named(small_bundle: Bundle) -> None:
    content = _damaged(small_bundle, np.inf).SerializeToString()

    with pytest.raises(ExportError, match="the output 'logits' is not finite"):
        difference(small_bundle, content)


def test_maps_that_are_not_finite_are_named(small_bundle: Bundle) -> None:
    """Where predictions are right; a logarithm of what a ReLU has set to zero is infinite."""
    content = _with_output(small_bundle, "gradcam_early_out", "Log").SerializeToString()

    with pytest.raises(ExportError, match="the output 'gradcam_early_out' is not finite"):
        difference(small_bundle, content)


@pytest.mark.parametrize("name", ["gradcam", "hirescam_early_out", "cam", "foreground"])
def test_a_file_with_a_wrong_map_is_not_written(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of the right size and with the right values, elsewhere."""
    transposed = _with_output(small_bundle, name, "Transpose", perm=[0, 2, 1])
    monkeypatch.setattr(file, "convert", lambda _bundle, *, float16: transposed)

    with pytest.raises(ExportError, match=f"the output '{name}' would differ by"):
        write(small_bundle, tmp_path / "model.onnx", float16=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs compute in float16"
)
def test_global_max_pooling_in_float16_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime gets its maps wrong on an x86 CPU; predictions are right."""
    labels, version = tmp_path / "labels.txt", tmp_path / "own" / "1"
    labels.write_text("".join(f"dog {index}\n" for index in range(4)), encoding="utf-8")
    branched().save(tmp_path / "own.keras")
    export_keras(tmp_path / "own.keras", labels, version)
    bundle = load(version)

    write(bundle, tmp_path / "float32.onnx")
    with pytest.raises(ExportError, match=r"the output '.*cam.*' (would differ|is not finite)"):
        write(bundle, tmp_path / "float16.onnx", float16=True)


def test_errors_are_shares_of_what_an_output_sums_up() -> None:
    expected = {
        "cam": np.array([[3.0, -4.0]]),
        "gradcam": np.array([[0.0, 0.0]]),
        "hirescam": np.array([[-6.0, -8.0]]),
        "hirescam_early": np.array([[1.0, 0.0]]),
        "layercam_early": np.array([[4.0, 3.0]]),
        "foreground": np.array([[np.inf, 1.0], [3.0, 4.0]]),
        "novelty": np.array([0.0]),
    }
    actual = {name: array + 1 for name, array in expected.items()}

    assert relative_errors(expected, actual) == pytest.approx(
        {
            "cam": 2**0.5 / 5,
            "gradcam": 2**0.5 / 10,
            "hirescam": 2**0.5 / 10,
            "hirescam_early": 2**0.5 / 5,
            "layercam_early": 2**0.5 / 5,
            "foreground": 2**0.5 / 5,
            "novelty": np.inf,
        }
    )
    assert relative_errors(expected, expected) == dict.fromkeys(expected, 0.0)


@pytest.fixture
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[onnx.ModelProto], SimpleNamespace]:
    """The page's example as printed, run on a model and a drawing; returns its variables."""
    page = (PROJECT / "docs" / "onnx.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "photo.jpg").write_bytes(DRAWING.read_bytes())
    monkeypatch.chdir(tmp_path)

    def run(model: onnx.ModelProto) -> SimpleNamespace:
        onnx.save(model, tmp_path / "dogs120.onnx")
        names: dict[str, Any] = {}
        exec(compile(code, "docs/onnx.md", "exec"), names)
        return SimpleNamespace(**names)

    return run


def _overlay(directory: Path) -> npt.NDArray[np.int64]:
    """What the example has drawn, RGB `[360, 480, 3]`."""
    with Image.open(directory / "overlay.png") as overlay:
        return np.asarray(overlay.convert("RGB")).astype(np.int64)


def test_the_example_of_the_page_has_the_figures_of_the_service(
    shipped_bundle: Bundle, tmp_path: Path, example: Callable[[onnx.ModelProto], SimpleNamespace]
) -> None:
    engine, card = converted(shipped_bundle.path), shipped_bundle.card

    names = example(engine.model)

    outputs = engine.run(Cut.EXPLAIN, Batch.of(np.asarray(names.image)))
    row = {name: array[0] for name, array in outputs.items()}
    spec = MethodAtLayers.of(card, Method.GRADCAM, card.layer_names[-1:])
    found = evidence.find(card, row, spec, rule=Rule.HEATMAP)
    box = found.box(480, 360)
    assert found.values is not None
    assert box is not None
    assert names.label == "west highland white terrier"
    np.testing.assert_allclose(names.probabilities, confidence.calibrated(card, row), rtol=1e-5)
    np.testing.assert_allclose(names.values, found.values, atol=1e-5)
    assert heatmaps.iou(tuple(names.box), box) > 0.9
    # Red over the photo, by the heatmap; white along the box.
    overlay, photo = _overlay(tmp_path), np.asarray(names.photo).astype(np.int64)
    opacity = np.asarray(names.opacity)[..., None] / 255
    left, top, right, bottom = np.floor(names.box).astype(int)
    assert (overlay[top, left + 2 : right - 2] == 255).all()
    inside = np.s_[top + 3 : bottom - 3, left + 3 : right - 3]
    expected = opacity * (255, 0, 0) + (1 - opacity) * photo
    np.testing.assert_allclose(overlay[inside], expected[inside], atol=1)
    assert opacity.max() > 0.6


def test_the_example_of_the_page_runs_without_evidence_or_calibration(
    small_bundle: Bundle, tmp_path: Path, example: Callable[[onnx.ModelProto], SimpleNamespace]
) -> None:
    model = _with_output(small_bundle, "gradcam", "ThresholdedRelu", alpha=1e9)  # zero
    card = small_bundle.card.replace(confidence=None, thresholds={}, checksums={})
    helper.set_model_props(model, {CARD: card.model_dump_json()})

    names = example(model)

    logits = converted(small_bundle.path).run(Cut.PREDICT, Batch.of(np.asarray(names.image)))
    expected = confidence.probabilities(logits["logits"][0], 1.0)
    np.testing.assert_allclose(names.probabilities, expected, rtol=1e-5)
    assert names.threshold == DEFAULT_THRESHOLD
    assert names.box is None
    np.testing.assert_array_equal(_overlay(tmp_path), np.asarray(names.photo))
