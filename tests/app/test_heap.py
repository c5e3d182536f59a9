import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import PROJECT
from tests import needs

SCRIPT = """
import os, sys
from pathlib import Path
from app import heap

def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

if sys.argv[1] == "bound":
    heap.bound()
start = resident_mb()
for size in (8, 16, 24, 30):  # after each, glibc keeps blocks of that size in its heap
    bytearray(size << 20)
blocks = [bytearray(8 << 20) for _ in range(20)]
kept = []
while blocks:  # what is kept lies where the freed blocks were
    blocks.pop()
    kept.append(bytearray(1000))
large = resident_mb()
blocks = [bytearray(2000) for _ in range(20_000)]
kept.append(bytearray(2000))  # on top of the heap, which glibc shrinks from there by itself
del blocks
small = resident_mb()
heap.trim()
print(large - start, small - large, resident_mb() - start)
"""


def kept_mb(heap: str) -> list[float]:
    """What stays resident of large and small blocks that were freed, and of all after trimming."""
    command = [sys.executable, "-c", SCRIPT, heap]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_is_freed_goes_back_to_the_system() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim") or not Path("/proc/self/statm").exists():
        needs.absent("glibc")
    large, small, trimmed = kept_mb("bound")
    assert large < 16
    assert small > 20
    assert trimmed < 16
    assert kept_mb("as it is")[0] > 50
