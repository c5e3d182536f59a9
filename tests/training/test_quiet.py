import os
import subprocess
import sys

import pytest

from app.settings import PROJECT
from training.quiet import filtered, is_noise

BANNER = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
ONEDNN = "I0000 00:00:1795854835.221928    6495 port.cc:153] oneDNN custom operations are on.\n"
WARNING = "W0000 00:00:1795854835.221928  6495 gpu_device.cc:2342] Cannot dlopen some libraries.\n"
CUINIT = (
    "E0000 00:00:1795854839.931370    6495 cuda_platform.cc:52] failed call to cuInit: INTERNAL: "
    "CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)\n"
)
ERROR = "E0000 00:00:1795854839.931370    6495 cuda_dnn.cc:52] Could not create a handle.\n"


def run(
    program: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """In a fresh process: what TensorFlow has started stays so."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "on_cpu", "on_gpu"),
    [
        (BANNER, True, True),
        (ONEDNN, True, True),
        (WARNING, True, True),
        (CUINIT, True, False),
        (ERROR, False, False),
        ("Illegal instruction\n", False, False),
    ],
    ids=["banner", "information", "warning", "no CUDA", "error", "other"],
)
def test_noise(line: str, on_cpu: bool, on_gpu: bool) -> None:
    assert is_noise(line, has_gpu=False) is on_cpu
    assert is_noise(line, has_gpu=True) is on_gpu


def _log(capfd: pytest.CaptureFixture[str]) -> str:
    """What reaches standard error of lines that C++ writes there."""
    with filtered():
        os.write(2, (BANNER + ONEDNN + ERROR).encode())
    os.write(2, ONEDNN.encode())
    return capfd.readouterr().err


def test_errors_are_shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")

    assert _log(capfd) == ERROR + ONEDNN


def test_errors_are_shown_before_an_exception(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")

    def fail() -> None:
        with filtered():
            os.write(2, ERROR.encode())
            raise ImportError

    with pytest.raises(ImportError):
        fail()

    assert capfd.readouterr().err == ERROR


def test_level_of_a_user_shows_all(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")

    assert _log(capfd) == BANNER + ONEDNN + ERROR + ONEDNN


def test_devices_can_be_configured_after_the_start() -> None:
    """So can hosts and memory: only until TensorFlow's first operation."""
    program = """
from training.quiet import start_tensorflow
start_tensorflow()
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
print(len(tf.config.list_logical_devices("CPU")))
"""
    done = run(program)

    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.slow
def test_tensorflow_starts_in_silence() -> None:
    program = "from training.quiet import start_tensorflow as s; s(); import tensorflow; s()"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    done = run(program, environment)

    assert (done.returncode, done.stderr) == (0, "")
