"""Processes that work beside the engine: their errors, and their end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from training.evaluation import workers

SCRIPT = """
import os, time
from training.evaluation import workers

if __name__ == "__main__":
    with workers.processes() as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def _fail() -> None:
    raise ValueError("no such photo")


def test_an_error_of_the_work_is_raised_here() -> None:
    with workers.processes() as pool, pytest.raises(ValueError, match="no such photo"):
        pool.submit(_fail).result()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie answers too: where nobody reaps orphans, it has ended all the same.
    with open(f"/proc/{process}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert _runs(worker)
        parent.send_signal(signal.SIGKILL)
    for _ in range(600):
        if not _runs(worker):
            break
        time.sleep(0.1)
    assert not _runs(worker)
