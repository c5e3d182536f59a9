"""The machine that the figures were measured on."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.engines import cpu_has_bfloat16

__all__ = ["Others", "describe"]

_PACKAGES = (
    *("openvino", "tensorflow", "keras", "numpy"),
    *("opencv-python-headless", "pillow", "fastapi", "uvicorn"),
)


def describe() -> dict[str, str]:
    """Processor, memory, system and versions, as text."""
    instructions = " with bfloat16" if cpu_has_bfloat16() else " without bfloat16"
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} core(s),"
        + instructions,
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: number for name in _PACKAGES if (number := _version(name))},
    }


class Others:
    """The share of the processor that other processes take: neither this one nor its children."""

    def __init__(self) -> None:
        """Start counting."""
        self._busy, self._all = _ticks()
        self._own = _own_seconds()

    @property
    def share(self) -> float:
        """The share since the start, 0 to 1. Children count as others until they have ended."""
        busy, total = _ticks()
        own = (_own_seconds() - self._own) * os.sysconf("SC_CLK_TCK")
        return min(1.0, max(0.0, (busy - self._busy - own) / max(total - self._all, 1)))


def _ticks() -> tuple[int, int]:
    """Busy ticks and all ticks since the machine's start, summed over cores."""
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    counts = [
        int(count) for count in first.split()[1:9]
    ]  # user, nice, ..., steal; guest is part of user
    return sum(counts) - counts[3] - counts[4], sum(counts)


def _own_seconds() -> float:
    usages = [
        resource.getrusage(processes)
        for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
