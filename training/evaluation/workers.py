"""Processes for work that holds Python's global lock, such as tracing many small regions."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process

import cv2

from app.engines import usable_cores
from training.errors import TrainingError

__all__ = ["processes"]

MOST = 8
"""Processes at most: as many as a batch has photos."""


@contextmanager
def processes() -> Iterator[ProcessPoolExecutor]:
    """A pool of as many processes as there are cores for this one, `MOST` at most.

    They end with the context, or when this process is killed. They are spawned, not forked: a fork
    would copy locks that threads of TensorFlow or OpenVINO hold.

    Raises:
        TrainingError: a process was ended from outside.
    """
    pool = ProcessPoolExecutor(
        min(usable_cores(), MOST), mp_context=get_context("spawn"), initializer=_initialize
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise TrainingError(
            "A process that scores boxes was ended from outside, perhaps for want of memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize() -> None:
    """Leave Ctrl-C to the parent, use one thread, and end if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent process to end, however it does, and exit at once."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)
