"""TensorFlow's first import, without the messages that tell a user nothing."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["filtered", "is_noise", "start_tensorflow"]

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""0 shows everything, 1 hides information, 2 (the default here) warnings too."""

_UNINITIALISED = "WARNING: All log messages before absl::InitializeLog()"
_BELOW_ERROR = re.compile(r"[IW]\d{4} \S+ +\d+ \S+:\d+\] ")
_NO_DRIVER = re.compile(r"E\d{4} .*failed call to cuInit")


def start_tensorflow() -> None:
    """Import TensorFlow and look for devices, both for the first time.

    While it is imported, TensorFlow logs before it has read `TF_CPP_MIN_LOG_LEVEL`. A level of 0
    or 1, which a user has set, shows these messages too.

    No operation is run: devices, hosts and memory can be configured only before the first.
    """
    if "tensorflow" in sys.modules:
        return
    with filtered():
        import tensorflow as tf

        # A CPU's machine has no CUDA to initialise: TensorFlow calls that an error.
        tf.config.list_physical_devices()


def is_noise(line: str, *, has_gpu: bool) -> bool:
    """Whether a line of TensorFlow's log is below an error, or an error only in name.

    Args:
        line: of the log.
        has_gpu: whether CUDA is expected to work on this machine.
    """
    return (
        line.startswith(_UNINITIALISED)
        or _BELOW_ERROR.match(line) is not None
        or (not has_gpu and _NO_DRIVER.match(line) is not None)
    )


@contextmanager
def filtered() -> Iterator[None]:
    """Hold back what C++ writes to standard error until the end, then write all but the noise."""
    if os.environ.get(_LOG_LEVEL, "0") in ("0", "1"):
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            has_gpu = _has_gpu()
            for line in log.read().decode(errors="replace").splitlines(keepends=True):
                if not is_noise(line, has_gpu=has_gpu):
                    sys.stderr.write(line)
            sys.stderr.flush()


def _has_gpu() -> bool:
    """Whether the kernel shows an NVIDIA GPU; Windows's subsystem for Linux shows it as dxg."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
