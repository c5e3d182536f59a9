"""Virtual environments for the peers, made on demand from pinned requirements."""

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.protocol import PROJECT, WorkerFailed

__all__ = ["CACHE", "ensure"]

CACHE = PROJECT / ".bench"
"""Directory for what the benchmarks keep between runs; git ignores it."""

_PINS = Path(__file__).parent / "peers"


def ensure(name: str) -> Path:
    """The Python of an environment with the packages of `peers/<name>.txt`, and no others.

    Raises:
        WorkerFailed: the packages cannot be installed.
    """
    pins = _PINS / f"{name}.txt"
    directory = CACHE / name
    python = directory / "bin" / "python"
    stamp = directory / "pins"
    checksum = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == checksum:
        return python
    print(
        f"installing {pins.relative_to(PROJECT)} into {directory.relative_to(PROJECT)}", flush=True
    )
    install = "-m pip install --quiet --disable-pip-version-check --no-deps -r"
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(python), *install.split(), str(pins)],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise WorkerFailed(f"cannot be installed: {last[:300]}")
    stamp.write_text(checksum, encoding="utf-8")
    return python
