"""Processes for work that holds Python's global lock, such as tracing many small regions."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process

import cv2

__all__ = ["processes"]


@contextmanager
def processes() -> Iterator[ProcessPoolExecutor]:
    """A pool of as many processes as there are cores.

    They end with the context, or when this process is killed. They are spawned, not forked: a fork
    would copy locks that threads of TensorFlow or OpenVINO hold.
    """
    pool = ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=_initialize
    )
    try:
        yield pool
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
