"""What the figures were measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.engines import cpu_has_bfloat16

__all__ = ["describe"]

_PACKAGES = (
    *("openvino", "tensorflow", "keras", "numpy"),
    *("opencv-python-headless", "pillow", "fastapi", "uvicorn"),
)


def describe() -> dict[str, str]:
    """Processor, memory, system and versions, ready for print."""
    instructions = " with bfloat16" if cpu_has_bfloat16() else " without bfloat16"
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} core(s),"
        + instructions,
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _field(path: str, name: str) -> str:
    """The value of the first line `name: value` of a file."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
