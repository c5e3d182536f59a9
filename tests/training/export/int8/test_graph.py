"""The small network quantised: what is integer, what is not, and what it predicts."""

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest

from app.bundle import INT8_PATH, Bundle
from app.engines import Batch, Cut, Engine, cpu_has_int8, create, output_names
from app.engines.openvino import OpenVINOEngine
from tests.training.pictures import photo
from training.evaluation.inference import squashed
from training.export.int8 import graph

Photos = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def photos(small_bundle: Bundle) -> Photos:
    return np.stack([squashed(small_bundle.card, photo(i % 2, i))[1] for i in range(24)])


@pytest.fixture(scope="module")
def quantised(
    small_bundle: Bundle, photos: Photos, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The bundle's path, with the graph alone."""
    path = tmp_path_factory.mktemp("int8")
    graph.write(small_bundle, photos[:16], path / INT8_PATH)
    return Bundle(path, small_bundle.card)


def test_kernels_are_stored_once_as_integers(small_bundle: Bundle, quantised: Bundle) -> None:
    full = ov.Core().read_model(str(small_bundle.path))
    model = _read(quantised)

    arrays = [node.data for node in model.get_ops() if node.get_type_name() == "Constant"]
    integers = [array for array in arrays if array.dtype == np.int8]
    kernels = [array for array in arrays if array.ndim == 4 and array.dtype.kind == "f"]
    convolutions = len(graph._forward(full) & _convolutions(full))
    # All but the first one, and not the head's.
    assert len(integers) == convolutions - 1
    assert {array.ndim for array in integers} == {4}
    assert max(map(np.size, kernels)) == 7 * 7 * 3 * 8  # the first one's; the others are biases


def _convolutions(model: ov.Model) -> set[str]:
    nodes = (node for node in model.get_ops() if node.get_type_name() == "Convolution")
    return {node.get_friendly_name() for node in nodes}


def test_every_output_is_there(quantised: Bundle) -> None:
    model = _read(quantised)
    names = {name for port in model.outputs for name in port.names}

    assert names >= set(output_names(quantised.card, Cut.EXPLAIN_DEEP))


@pytest.mark.skipif(not cpu_has_int8(), reason="this CPU is not fast at 8-bit integers")
def test_it_predicts_and_explains_as_float32_does(
    quantised: Bundle, photos: Photos, engine: Engine
) -> None:
    trial = create(quantised, engine="openvino", device="cpu", precision="int8")
    batch = Batch.of(photos[16:], np.zeros(8, np.int32))

    expected = engine.run(Cut.EXPLAIN_DEEP, batch)
    outputs = trial.run(Cut.EXPLAIN_DEEP, batch)

    assert np.abs(outputs["probabilities"] - expected["probabilities"]).max() < 0.1
    # A ReLU may leave nothing of a map.
    maps = {name: array for name, array in expected.items() if array.ndim == 3 and array.std()}
    assert len(maps) > 8
    agreement = {
        name: np.corrcoef(outputs[name].ravel(), array.ravel())[0, 1]
        for name, array in maps.items()
    }
    earlier = {name: value for name, value in agreement.items() if name.endswith("_out")}
    assert min(value for name, value in agreement.items() if name not in earlier) > 0.98
    # The weights of this map nearly cancel out, as the network is not trained.
    assert earlier.pop("gradcam_early_out") > 0.3
    assert min(earlier.values()) > 0.9
    assert not np.array_equal(outputs["logits"], expected["logits"])
    trial.close()


def test_whatever_reads_an_activation_reads_it_rounded(quantised: Bundle) -> None:
    model = _read(quantised)
    roundings, forward = graph._roundings(model), graph._forward(model)
    taps = [node for node in model.get_ops() if node.get_type_name() == "Maximum"]

    assert len(roundings) > 10
    for rounding in roundings:
        assert _kinds(rounding.input_value(0)) == {"FakeQuantize"}
        # Others than the forward pass read it behind a maximum that changes nothing.
        readers = {target.get_node() for target in rounding.output(0).get_target_inputs()}
        outside = {node.get_friendly_name() for node in readers} - forward
        assert outside <= {tap.get_friendly_name() for tap in taps}
    assert len(taps) > len(quantised.card.layers)
    for tap in taps:
        assert tap.input_value(1) == tap.input_value(0).get_node().input_value(3)  # the least value


def test_sums_behind_the_first_tap_are_of_unrounded_results(quantised: Bundle) -> None:
    model = _read(quantised)  # kept: its nodes end with it
    roundings = graph._roundings(model)
    tapped = {node.get_friendly_name() for node in roundings if "Maximum" in _kinds(node.output(0))}
    sums = [node for node in roundings if node.input_value(0).get_node().get_type_name() == "Add"]

    assert tapped
    assert {kind for node in sums for kind in _kinds(node.output(0))} == {"Add"}
    assert not any(tapped & graph._ancestors(node) for node in sums)


def _read(bundle: Bundle) -> ov.Model:
    return ov.Core().read_model(str(bundle.path / INT8_PATH))


def _kinds(value: ov.Output) -> set[str]:
    """Of the nodes that read it."""
    return {target.get_node().get_type_name() for target in value.get_target_inputs()}


@pytest.mark.skipif(not cpu_has_int8(), reason="this CPU is not fast at 8-bit integers")
def test_every_cut_computes_the_forward_pass_in_integers(quantised: Bundle) -> None:
    model = _read(quantised)
    kernels = _convolutions(model) & graph._forward(model)
    engine = OpenVINOEngine(quantised, precision="int8")

    for cut in Cut:
        executed = engine._compiled(cut, 1).get_runtime_model().get_ops()
        precision = {
            node.get_friendly_name(): node.get_rt_info()["runtimePrecision"].value
            for node in executed
            if node.get_friendly_name() in kernels
        }
        floats = [name for name, kind in precision.items() if kind not in ("u8", "i8")]
        assert len(precision) == len(kernels)
        assert len(floats) == 1, cut  # the first one
    engine.close()


@pytest.mark.parametrize(
    ("array", "kernel", "axes"),
    [
        (np.zeros((3, 4)), np.zeros((3, 4)), [0, 1]),
        (np.arange(24.0).reshape(1, 2, 3, 4).transpose(2, 3, 1, 0),) * 2 + ([0, 1, 2, 3],),
        (
            np.arange(24.0).reshape(1, 2, 3, 4).transpose(2, 3, 1, 0),
            np.arange(24.0).reshape(1, 2, 3, 4),
            [2, 3, 1, 0],
        ),
        (np.arange(4.0).reshape(2, 2), np.arange(4.0).reshape(2, 2).T, None),
        (np.zeros(3), np.zeros((3, 1)), None),
        (np.zeros(3), None, None),
    ],
)
def test_how_a_kernel_lies_in_the_backward_pass(
    array: npt.NDArray[np.float64], kernel: npt.NDArray[np.float64] | None, axes: list[int] | None
) -> None:
    assert graph._same(array, kernel) == axes
