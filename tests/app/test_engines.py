import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heap
from app.bundle import INT8_PATH, Bundle, Foreground, Input, Layer, ModelCard
from app.engines import base, cpu_has_bfloat16, cpu_has_int8
from app.engines import openvino as openvino_engine
from app.engines.base import (
    Batch,
    Cut,
    Port,
    check_ports,
    check_weights,
    input_names,
    layer_output,
    output_names,
)
from app.engines.openvino import CORE, OpenVINOEngine, _Bound, _ports
from app.errors import BundleError, EngineUnavailable
from app.model import Model
from app.settings import PROJECT, Settings
from benchmarks import pictures
from tests import needs
from tests.app.services import footprint_mb

ENGINES_THAT_COME_AND_GO = """
import signal, sys, threading
from pathlib import Path
from app import bundle, engines

model = bundle.load(Path(sys.argv[1]))
held = [engines.create(model, engine="openvino") for _ in range(2)]
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
del held[0], held[0]
signal.raise_signal(signal.SIGINT)
held = [engines.create(model, engine="openvino") for _ in range(2)]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
"""


def test_a_cpu_is_served_by_openvino(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: False)

    info = engines.create(shipped_bundle).info

    assert info.name == "openvino"
    assert info.warnings == []
    assert info.precision in ("int8", "bfloat16", "float32")


def test_precision_that_the_model_needs(shipped_bundle: Bundle) -> None:
    bundle = Bundle(shipped_bundle.path, shipped_bundle.card.replace(precision="float32"))

    engine = OpenVINOEngine(bundle)

    assert (engine.info.precision, engine.info.warnings) == ("float32", [])
    assert engine.choose_precision("float", "bfloat16") == "float32"
    assert engine.choose_precision("bfloat16", "bfloat16") == "bfloat16"
    [warning] = engine.info.warnings
    assert warning.startswith("BREEDCAM_PRECISION=bfloat16, and the model predicts")


# -- 8-bit integers


@pytest.mark.parametrize(
    ("flags", "int8", "bfloat16"),
    [
        ("fpu avx2 avx512f avx512_vnni", True, False),
        ("fpu avx2 avx_vnni", True, False),
        ("fpu avx512_bf16 amx_bf16 amx_int8", True, True),
        ("fpu avx2 avx512f avx512_bf16", False, True),
        ("fpu avx2 avx512f", False, False),
    ],
)
def test_what_a_cpu_is_fast_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, int8: bool, bfloat16: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"model name\t: avx512_vnni avx512_bf16\nflags\t\t: {flags}\n", "utf-8")
    monkeypatch.setattr(base, "_CPU_INFO", path)

    assert (cpu_has_int8(), cpu_has_bfloat16()) == (int8, bfloat16)


def test_a_cpu_of_which_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base, "_CPU_INFO", tmp_path / "absent")

    assert (cpu_has_int8(), cpu_has_bfloat16()) == (False, False)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("has_graph", [True, False])
def test_auto_is_int8_where_the_model_has_it_and_the_cpu_is_fast_at_it(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fast: bool, has_graph: bool
) -> None:
    monkeypatch.setattr(openvino_engine, "cpu_has_int8", lambda: fast)
    monkeypatch.setattr(Bundle, "has_int8", has_graph)

    auto, own = (
        OpenVINOEngine(shipped_bundle, precision=name).info.precision for name in ("auto", "float")
    )

    assert own in ("bfloat16", "float32")
    assert auto == ("int8" if fast and has_graph else own)


def test_int8_is_not_chosen_for_a_model_that_needs_float32(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "cpu_has_int8", lambda: True)
    bundle = Bundle(shipped_bundle.path, shipped_bundle.card.replace(precision="float32"))

    assert OpenVINOEngine(bundle).info.precision == "float32"


def test_int8_that_cannot_be_had(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = Bundle(tmp_path, shipped_bundle.card)
    monkeypatch.setattr(openvino_engine, "cpu_has_int8", lambda: True)
    with pytest.raises(EngineUnavailable, match=r"no graph in 8-bit integers: docs/own-model\.md"):
        OpenVINOEngine(bare, precision="int8")
    monkeypatch.setattr(openvino_engine, "cpu_has_int8", lambda: False)
    with pytest.raises(EngineUnavailable, match="none of AVX-512 VNNI"):
        OpenVINOEngine(shipped_bundle, precision="int8")
    with pytest.raises(EngineUnavailable, match="int8 is for CPUs, with OpenVINO"):
        engines.create(shipped_bundle, engine="tensorflow", precision="int8")


def test_a_graph_in_8_bit_integers_is_checked_as_the_savedmodel_is(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(openvino_engine, "cpu_has_int8", lambda: True)
    card = shipped_bundle.card
    fewer = card.replace(labels=card.labels[:-1], int8=None)
    with pytest.raises(BundleError, match=r"The graph in 8-bit integers at .* has 'logits' as"):
        OpenVINOEngine(Bundle(shipped_bundle.path, fewer), precision="int8")

    spoilt = tmp_path / INT8_PATH
    spoilt.parent.mkdir(parents=True)
    spoilt.write_bytes((shipped_bundle.path / INT8_PATH).read_bytes()[:-100])
    with pytest.raises(BundleError, match="OpenVINO cannot read the graph in 8-bit integers at"):
        OpenVINOEngine(Bundle(tmp_path, card), precision="int8")


@pytest.mark.skipif(not cpu_has_int8(), reason="this CPU is not fast at 8-bit integers")
def test_int8_predicts_and_explains_as_float32_does(shipped: Model, shipped_bundle: Bundle) -> None:
    """Every output is there. Made pictures are harder than photos: no class is likely."""
    size = shipped.card.input.size
    engine = OpenVINOEngine(shipped_bundle, precision="int8")
    batch = Batch.of(np.stack([pictures.pixels(size, size, seed) for seed in range(4)]))
    expected = shipped.engine.run(Cut.EXPLAIN_DEEP, batch)
    batch = Batch.of(batch.image, expected["target_index"])

    outputs = engine.run(Cut.EXPLAIN_DEEP, batch)
    shallow = engine.run(Cut.EXPLAIN, batch)

    assert engine.info.precision == "int8"
    assert {name: array.shape for name, array in outputs.items()} == {
        name: array.shape for name, array in expected.items()
    }
    assert np.abs(outputs["probabilities"] - expected["probabilities"]).max() < 0.1
    # Compiled apart, with other kernels: they round otherwise.
    np.testing.assert_allclose(shallow["logits"], outputs["logits"], atol=0.3)
    for name in ("cam", "gradcam", "gradcampp", "layercam", "hirescam", "foreground"):
        for ours, theirs in zip(outputs[name], expected[name], strict=True):
            assert np.linalg.norm(ours - theirs) < 0.2 * np.linalg.norm(theirs), name
    np.testing.assert_allclose(outputs["novelty"], expected["novelty"], rtol=0.1)
    engine.close()


# -- runs


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_result_is_the_callers(shipped: Model, rows: int) -> None:
    """The engine writes every batch of a size into the same arrays."""
    engine, size = shipped.engine, shipped.card.input.size
    assert isinstance(engine, OpenVINOEngine)
    rng = np.random.default_rng(rows)
    images = rng.integers(0, 256, (2, rows, size, size, 3), np.uint8)
    first, second = (Batch.of(image, np.arange(rows, dtype=np.int32)) for image in images)
    outputs = engine.run(Cut.EXPLAIN, first)
    kept = {name: array.copy() for name, array in outputs.items()}

    of_second = engine.run(Cut.EXPLAIN, second)

    for name, array in outputs.items():
        np.testing.assert_array_equal(array, kept[name])
    assert not np.array_equal(of_second["logits"], outputs["logits"])
    again = engine.run(Cut.EXPLAIN, first)
    np.testing.assert_allclose(again["cam"], outputs["cam"])


@pytest.mark.parametrize(
    ("channels", "dtype", "class_index"),
    [
        (1, np.uint8, np.zeros(2, np.int32)),
        (3, np.float32, np.zeros(2, np.int32)),
        (3, np.uint8, np.zeros(1, np.int32)),
        (3, np.uint8, np.zeros(2, np.int64)),
    ],
    ids=["channels", "floats", "one index for all", "long index"],
)
def test_what_is_no_batch_is_refused(
    shipped: Model,
    channels: int,
    dtype: npt.DTypeLike,
    class_index: npt.NDArray[Any],
) -> None:
    engine, size = shipped.engine, shipped.card.input.size
    assert isinstance(engine, OpenVINOEngine)
    image: npt.NDArray[Any] = np.zeros((2, size, size, channels), dtype)

    with pytest.raises(ValueError, match="is no batch of 2 photos"):
        engine.run(Cut.EXPLAIN, Batch.of(image, class_index))


@pytest.mark.parametrize("indexes", [1, 2, 4])
def test_a_class_for_each_photo_is_needed_in_several_calls_too(
    shipped: Model, indexes: int
) -> None:
    size = shipped.card.input.size
    batch = Batch.of(np.zeros((3, size, size, 3), np.uint8), np.zeros(indexes, np.int32))
    with pytest.raises(ValueError, match="is no batch of 3 photos"):
        shipped.engine.run(Cut.EXPLAIN, batch)


def test_no_request_is_left_running_where_one_fails() -> None:
    done = []

    class Request:
        def __init__(self, name: str) -> None:
            self.name = name

        def start_async(self) -> None:
            if self.name == "third":
                raise RuntimeError("cannot start")

        def wait(self) -> None:
            done.append(self.name)
            if self.name == "first":
                raise RuntimeError("failed")

    bound = _Bound([Request(name) for name in ("first", "second", "third")], [], {})

    with pytest.raises(RuntimeError, match="failed"):
        bound.run()
    assert sorted(done) == ["first", "second"]


def test_a_gpu_that_is_absent_is_a_warning(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: False)

    engine = engines.create(shipped_bundle, device="gpu")

    assert engine.info.name == "openvino"
    assert "GPU was requested" in engine.info.warnings[0]
    assert not engine.on_gpu


def test_signals_are_handled_after_engines_have_gone(shipped_bundle: Bundle) -> None:
    """The first before the second, and both on another thread."""
    script = [sys.executable, "-c", ENGINES_THAT_COME_AND_GO]

    done = subprocess.run(
        [*script, str(shipped_bundle.path)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=200,
    )

    assert (done.returncode, done.stdout) == (0, "handled\nhandled\n")


def test_a_gpu_that_tensorflow_cannot_use_is_a_warning(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.engines import tensorflow

    monkeypatch.setattr(tensorflow, "finds_gpu", lambda: False)
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: True)

    info = engines.create(shipped_bundle).info

    assert info.name == "openvino"
    assert "cannot use it" in info.warnings[0]


def test_tensorflow_on_request(shipped_bundle: Bundle) -> None:
    from app.engines import tensorflow

    engine = engines.create(shipped_bundle, engine="tensorflow", device="gpu", precision="float32")

    assert engine.info.name == "tensorflow"
    assert engine.on_gpu == tensorflow.finds_gpu()
    assert bool(engine.info.warnings) != tensorflow.finds_gpu()


def test_tensorflow_that_is_not_installed(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else real(name)
    )

    with pytest.raises(
        EngineUnavailable, match=r"TensorFlow is not installed: run `make .venv/.train`"
    ):
        engines.create(shipped_bundle, engine="tensorflow")


# -- whether a SavedModel is what its card says


@pytest.fixture(scope="module")
def ports(shipped_bundle: Bundle) -> dict[str, Port]:
    """Of the shipped SavedModel."""
    return _ports(CORE.read_model(str(shipped_bundle.path)))


def test_ports_of_the_shipped_model(ports: dict[str, Port], shipped_bundle: Bundle) -> None:
    card = shipped_bundle.card
    check_ports(shipped_bundle, ports)
    size, layer = card.input.size, card.layers[0]
    assert str(ports["image"]) == f"uint8 [N, {size}, {size}, 3]"
    assert str(ports["logits"]) == f"float32 [N, {len(card.labels)}]"
    assert str(ports["target_index"]) == "int32 [N]"
    assert str(ports[f"layercam_{layer.name}"]) == f"float32 [N, {layer.height}, {layer.width}]"


@pytest.mark.parametrize("entry", ["labels", "input", "layers", "one more layer"])
def test_a_card_that_its_model_does_not_fit_is_named(
    ports: dict[str, Port], shipped_bundle: Bundle, entry: str
) -> None:
    card = shipped_bundle.card
    *earlier, last = card.layers
    classes, size, width = len(card.labels), card.input.size, last.width
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "labels": (
            {"labels": card.labels[:-1]},
            f"'logits' as float32 [N, {classes}]; by its labels in model.json it is "
            f"float32 [N, {classes - 1}]",
        ),
        "input": (
            {"input": Input(size=size - 32)},
            f"'image' as uint8 [N, {size}, {size}, 3]; by its input in model.json it is uint8 "
            f"[N, {size - 32}, {size - 32}, 3]",
        ),
        "layers": (
            {"layers": (*earlier, last.model_copy(update={"height": 99}))},
            f"by its layers in model.json it is float32 [N, 99, {width}]",
        ),
        "one more layer": (
            {"layers": (Layer(name="stem", height=8, width=8), *card.layers)},
            "no 'foreground_stem', which its layers in model.json promise: float32 [N, 8, 8]",
        ),
    }
    changes, words = cases[entry]
    spoilt = Bundle(shipped_bundle.path, card.replace(**changes))
    with pytest.raises(BundleError, match=re.escape(words)) as error:
        check_ports(spoilt, ports)
    assert str(shipped_bundle.path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("novelty", None),
        ("versus_index", None),
        ("novelty", Port("float32", (None, 1))),
        ("target_index", Port("int64", (None,))),
        ("image", Port("float32", (None, None, None, 3))),
        ("cam", Port("float32", (1, None, None))),
    ],
)
def test_a_model_that_its_card_does_not_fit_is_named(
    ports: dict[str, Port], shipped_bundle: Bundle, name: str, port: Port | None
) -> None:
    others = {key: spec for key, spec in ports.items() if key != name}
    with pytest.raises(BundleError, match=f"'{name}'"):
        check_ports(shipped_bundle, others if port is None else others | {name: port})


def test_what_the_graph_does_not_fix_and_what_nobody_uses_is_let_be(
    ports: dict[str, Port], shipped_bundle: Bundle
) -> None:
    loose = {"cam": Port("float32", (None, None, None)), "more": Port("string", ())}
    check_ports(shipped_bundle, ports | loose)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_are_not_finite_are_named(
    shipped_bundle: Bundle, dtype: npt.DTypeLike, value: float
) -> None:
    greatest = np.full((3, 4), np.finfo(dtype).max, dtype)
    spoilt = -greatest
    spoilt[2, 3] = value
    sound = [("greatest", greatest), ("least", -greatest), ("indexes", np.arange(4))]
    check_weights(shipped_bundle, [*sound, ("padding", np.array(-np.inf, dtype))])
    with pytest.raises(BundleError, match=rf"not finite: 'kernel', {spoilt.dtype} \[3, 4\]"):
        check_weights(shipped_bundle, [*sound, ("kernel", spoilt)])


def test_after_warming_up_nothing_is_left_to_compile(shipped: Model, settings: Settings) -> None:
    engine = shipped.engine
    assert isinstance(engine, OpenVINOEngine)
    warmed = dict(engine._models), dict(engine._requests)
    assert {cut for cut, _ in engine._requests} >= {Cut.EXPLAIN, Cut.EXPLAIN_DEEP}
    size = shipped.card.input.size
    for rows in range(1, settings.max_batch + 1):
        for cut in (Cut.EXPLAIN, Cut.EXPLAIN_DEEP):
            engine.run(cut, Batch.of(np.zeros((rows, size, size, 3), np.uint8)))
    assert (engine._models, engine._requests) == warmed


def test_memory_that_no_call_needs_is_given_back(shipped: Model) -> None:
    if not Path("/proc/self/smaps").exists():
        needs.absent("/proc, where memory is read")
    engine, size, rows = shipped.engine, shipped.card.input.size, 4
    rng = np.random.default_rng(0)
    batch = Batch.of(rng.integers(0, 256, (rows, size, size, 3), np.uint8))
    before = engine.run(Cut.EXPLAIN_DEEP, batch)
    process = [os.getpid()]

    held_mb = footprint_mb(process)
    assert engine.release_memory()  # it has run just now
    engine.run(Cut.EXPLAIN, batch.rows([0]))
    assert engine.release_memory()  # of this, not of the deep layers
    heap.trim()  # what malloc keeps, as the service does
    assert footprint_mb(process) < held_mb - 20
    assert not engine.release_memory()

    after = engine.run(Cut.EXPLAIN_DEEP, batch)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_earlier_layers_take_memory_for_few_photos(shipped: Model) -> None:
    """Each stream and each size of a batch costs some."""
    engine = shipped.engine
    assert isinstance(engine, OpenVINOEngine)
    assert [streams for cut, streams in engine._models if cut is Cut.EXPLAIN_DEEP] == [1]
    assert {rows for cut, rows in engine._requests if cut is Cut.EXPLAIN_DEEP} == {1, 2, 4}


@pytest.mark.parametrize("cut", Cut)
def test_outputs_of_a_batch_of_any_size_are_those_of_its_photos(shipped: Model, cut: Cut) -> None:
    engine, size = shipped.engine, shipped.card.input.size
    images = np.random.default_rng(9).integers(0, 256, (9, size, size, 3), np.uint8)
    batch = Batch.of(images, np.arange(9, dtype=np.int32))
    alone = [engine.run(cut, batch.rows([row])) for row in range(9)]
    expected = {name: np.concatenate([row[name] for row in alone]) for name in alone[0]}
    for rows in range(2, 10):
        together = engine.run(cut, batch.rows(slice(rows)))
        for name, array in together.items():
            # Bit for bit in bfloat16 on AMD's Zen 5; in float32, sums differ in their last digits.
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(
                array, expected[name][:rows], rtol=1e-3, atol=1e-4 * scale, err_msg=f"{name} {rows}"
            )


@pytest.mark.parametrize(
    ("streams", "rows", "calls"),
    [
        (1, 1, [1]),
        (1, 7, [4, 3]),
        (2, 1, [1]),
        (2, 2, [2]),
        (2, 7, [6, 1]),
        (2, 17, [8, 8, 1]),
        (4, 2, [2]),
        (4, 3, [3]),
        (4, 6, [4, 2]),
        (4, 7, [7]),
        (4, 19, [16, 3]),
        (8, 44, [32, 8, 4]),
        (8, 45, [32, 13]),
    ],
)
def test_few_photos_are_left_to_a_call_on_all_cores(
    shipped: Model, monkeypatch: pytest.MonkeyPatch, streams: int, rows: int, calls: list[int]
) -> None:
    engine = shipped.engine
    assert isinstance(engine, OpenVINOEngine)
    monkeypatch.setattr(engine, "_streams", streams)
    assert engine._calls(Cut.EXPLAIN, rows) == calls
    # Large batches add no sizes to those that are warm.
    assert engine._sizes(Cut.EXPLAIN, 64) == engine._sizes(Cut.EXPLAIN, 1000) >= set(calls)


def test_shares_of_streams_that_are_not_even(shipped_bundle: Bundle) -> None:
    """Seven photos in four streams: 1, 2, 2 and 2; three: one each."""
    engine = OpenVINOEngine(shipped_bundle, precision="float32", threads=4)
    size = shipped_bundle.card.input.size
    images = np.random.default_rng(7).integers(0, 256, (7, size, size, 3), np.uint8)
    alone = [engine.run(Cut.PREDICT, Batch.of(image[None]))["logits"] for image in images]
    for rows, shares in ((7, [1, 2, 2, 2]), (3, [1, 1, 1])):
        together = engine.run(Cut.PREDICT, Batch.of(images[:rows]))["logits"]
        requests = engine._bound(Cut.PREDICT, rows).requests
        assert [request.get_input_tensor(0).shape[0] for request in requests] == shares
        scale = np.abs(together).max()
        np.testing.assert_allclose(
            together, np.concatenate(alone[:rows]), rtol=1e-3, atol=1e-4 * scale
        )


MAPS = {"cam", "gradcam", "gradcampp", "layercam", "hirescam", "foreground"}
EXPLAINED = {"logits", "probabilities", "target_index", *MAPS}


class TestOutputs:
    """Of cuts of the shipped model, in each state of its card."""

    @staticmethod
    def names(card: ModelCard, cut: Cut) -> set[str]:
        names = output_names(card, cut)
        assert len(names) == len(set(names))
        assert all(type(name) is str for name in names)
        return set(names)

    def test_of_a_model_without_novelty(self, uncalibrated: ModelCard) -> None:
        assert self.names(uncalibrated, Cut.PREDICT) == {"logits", "probabilities"}
        assert self.names(uncalibrated, Cut.EXPLAIN) == EXPLAINED

    def test_novelty_and_the_foregrounds_layers_are_in_what_explains_the_last(
        self, calibrated: ModelCard
    ) -> None:
        assert self.names(calibrated, Cut.PREDICT) == {"logits", "probabilities"}
        earlier, _ = calibrated.foreground_layers
        outputs = EXPLAINED | {"novelty", f"foreground_{earlier}"}
        assert self.names(calibrated, Cut.EXPLAIN) == outputs

    @pytest.mark.parametrize("measured", [False, True])
    def test_earlier_layers_have_every_method_but_cam(
        self, uncalibrated: ModelCard, calibrated: ModelCard, measured: bool
    ) -> None:
        card = calibrated if measured else uncalibrated
        deep = {f"{name}_{layer}" for layer in card.layer_names[:-1] for name in MAPS - {"cam"}}
        assert len(card.layer_names) > 1
        assert len(deep) == (len(MAPS) - 1) * (len(card.layer_names) - 1)
        expected = EXPLAINED | deep | ({"novelty"} if measured else set())
        assert self.names(card, Cut.EXPLAIN_DEEP) == expected

    def test_the_last_layer_alone_among_the_foregrounds_adds_nothing(
        self, uncalibrated: ModelCard
    ) -> None:
        last = Foreground(rule="boxes", photos=200, layers=tuple(uncalibrated.layer_names[-1:]))
        card = uncalibrated.replace(foreground=last)
        assert self.names(card, Cut.EXPLAIN) == EXPLAINED

    def test_without_a_head_for_it_there_is_no_cam(self, uncalibrated: ModelCard) -> None:
        card = uncalibrated.replace(head="other")
        assert self.names(card, Cut.EXPLAIN) == EXPLAINED - {"cam"}

    def test_only_earlier_layers_are_named(self, uncalibrated: ModelCard) -> None:
        *earlier, last = uncalibrated.layer_names
        assert layer_output(uncalibrated, "foreground", last) == "foreground"
        outputs = [layer_output(uncalibrated, "foreground", name) for name in earlier]
        assert outputs == [f"foreground_{name}" for name in earlier]


class TestBatch:
    IMAGE = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)

    def test_explains_the_top_1_against_nothing_unless_classes_are_named(self) -> None:
        batch = Batch.of(self.IMAGE)
        assert len(batch) == 3
        assert batch.image is self.IMAGE
        for index in (batch.class_index, batch.versus_index):
            assert index.dtype == np.int32
            assert index.tolist() == [-1, -1, -1]
        assert Batch.of(self.IMAGE, np.array([4, 5, 6], np.int32)).class_index.tolist() == [4, 5, 6]

    @pytest.mark.parametrize("index", [slice(1, 3), [1, 2]], ids=["slice", "list"])
    def test_rows_of_all_three(self, index: slice | list[int]) -> None:
        batch = Batch(self.IMAGE, np.array([4, 5, 6], np.int32), np.array([7, 8, 9], np.int32))
        rows = batch.rows(index)
        np.testing.assert_array_equal(rows.image, self.IMAGE[1:])
        assert (rows.class_index.tolist(), rows.versus_index.tolist()) == ([5, 6], [8, 9])

    @pytest.mark.parametrize("cut", Cut)
    def test_inputs_are_in_the_graphs_order(self, cut: Cut) -> None:
        batch = Batch(self.IMAGE, np.array([4, 5, 6], np.int32), np.array([7, 8, 9], np.int32))
        names = {id(batch.image): "image", id(batch.class_index): "class_index"}
        names[id(batch.versus_index)] = "versus_index"
        assert [names[id(array)] for array in batch.inputs(cut)] == input_names(cut)
