"""How much of the machine other processes take, such as the other worker of `pytest -n 2`."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.app.services import Service, family

__all__ = ["Contention"]

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Contention:
    """What a service and its test had left of the processors while a block ran.

    A bound in seconds, multiplied with `slowness`, is the same on a machine of one's own and on a
    busy one. Work of the service itself, and of its clients, does not count.
    """

    service: Service
    slowness: float = field(default=1.0, init=False)
    _before: tuple[float, float, float] = field(default=(0, 0, 0), init=False)

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        total, busy, own = (
            now - before for now, before in zip(self._now(), self._before, strict=True)
        )
        foreign = max(0.0, busy - own)
        # Where others take all that there is, the scheduler still gives each process its share.
        self.slowness = total / max(total - foreign, 0.05 * total) if total else 1.0

    def _now(self) -> tuple[float, float, float]:
        """Processor seconds so far: of the whole machine, of all processes, and of ours."""
        first = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, idle, waiting, *others = (
            int(ticks) / TICKS for ticks in first.split()[1:9]
        )
        busy = user + nice + system + sum(others)  # interrupts, and what the host has stolen
        times = os.times()
        own = times.user + times.system + sum(map(_with_ended, family(self.service.process.pid)))
        return busy + idle + waiting, busy, own


def _with_ended(pid: int) -> float:
    """Processor seconds of a process and of its children that have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has ended meanwhile
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / TICKS
