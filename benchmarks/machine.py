"""The machine that the figures were measured on."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.engines import cpu_flags

__all__ = ["Others", "describe", "has_amx", "kind"]

_PACKAGES = (
    *("openvino", "tensorflow", "keras", "numpy"),
    *("opencv-python-headless", "pillow", "fastapi", "uvicorn"),
)

_MAKERS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}

_INSTRUCTIONS = {
    "amx_int8": "AMX",
    "avx512_bf16": "AVX-512 and bfloat16",
    "avx512_vnni": "AVX-512 and VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
"""What Linux calls them, and what people do; what is faster for a network comes first."""


def kind() -> str:
    """The kind of CPU: who made it, and the instructions that decide how fast a network is."""
    maker, flags = _field("/proc/cpuinfo", "vendor_id"), cpu_flags()
    instructions = next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), "")
    return f"{_MAKERS.get(maker, platform.machine())} with {instructions or 'other instructions'}"


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of 8-bit integers and bfloat16 in tiles."""
    return "amx_int8" in cpu_flags()


def describe() -> dict[str, str]:
    """Processor, memory, system and versions, as text."""
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} core(s)",
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
