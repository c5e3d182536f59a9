import importlib.util
import subprocess
import sys

import pytest

from app import bundle as bundles
from app import engines
from app.bundle import Bundle
from app.engines.base import BATCH_SIZES, pad_rows
from app.errors import EngineUnavailable
from app.settings import PROJECT

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


ENGINES_THAT_COME_AND_GO = """
import signal, sys, threading
from pathlib import Path
from app import bundle, engines

model = bundle.load(Path(sys.argv[1]))
held = [engines.create(model, engine="openvino") for _ in range(2)]
if sys.argv[2] == "first":
    del held[0], held[0]
else:
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture(scope="module")
def shipped_bundle() -> Bundle:
    return bundles.load(PROJECT / "models/dogs10")


def test_a_cpu_is_served_by_openvino(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: False)

    info = engines.create(shipped_bundle).info

    assert info.name == "openvino"
    assert info.warnings == []
    assert info.precision in ("bfloat16", "float32")


def test_a_gpu_that_is_absent_is_a_warning(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: False)

    engine = engines.create(shipped_bundle, device="gpu")

    assert engine.info.name == "openvino"
    assert "GPU was asked for" in engine.info.warnings[0]
    assert not engine.on_gpu


@pytest.mark.parametrize("ended", ["first", "on another thread"])
def test_signals_are_handled_after_engines_have_gone(ended: str) -> None:
    script = [sys.executable, "-c", ENGINES_THAT_COME_AND_GO]

    done = subprocess.run(
        [*script, str(PROJECT / "models/dogs10"), ended],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=200,
    )

    assert (done.returncode, done.stdout) == (0, "handled\n")


@needs_tensorflow
def test_a_gpu_that_tensorflow_cannot_use_is_a_warning(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.engines import tensorflow

    if tensorflow.finds_gpu():
        pytest.skip("TensorFlow can use a GPU here")
    monkeypatch.setattr(engines, "_has_nvidia_gpu", lambda: True)

    info = engines.create(shipped_bundle).info

    assert info.name == "openvino"
    assert "cannot use it" in info.warnings[0]


@needs_tensorflow
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

    with pytest.raises(EngineUnavailable, match="TensorFlow is not installed"):
        engines.create(shipped_bundle, engine="tensorflow")


@pytest.mark.parametrize(("rows", "padded"), [(1, 1), (2, 2), (3, 4), (5, 8), (33, 64)])
def test_rows_are_padded_to_fixed_sizes_with_the_last(rows: int, padded: int) -> None:
    import numpy as np

    array = np.arange(rows * 2).reshape(rows, 2)

    result = pad_rows(array)

    assert padded in BATCH_SIZES
    assert result.shape == (padded, 2)
    np.testing.assert_array_equal(result[:rows], array)
    assert (result[rows:] == array[-1]).all()
