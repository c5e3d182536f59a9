"""The process that decodes photos, and the messages between it and the service.

The decoders are C code on bytes from anyone: nothing interrupts them, they hold the interpreter's
lock, take gigabytes and may crash. So they run here, under limits that the kernel enforces, and
`app.decoding` starts this process anew when one of them has ended it.

A message is the length of its head (4 bytes, big-endian), its head (JSON), and bytes, as many as
the head says. Nothing is pickled: an answer may come from a process that a photo has taken over.

    service -> process   head: `job`, `seconds`, `bytes`                  the encoded photo
    process -> service   head: `width`, `height`, `squashed`, `pixels`    both arrays' pixels
    process -> service   head: `error`, `detail`, `cause`                 nothing

Memory of a photo is kept for the next one, and given back after `IDLE_S` without one.

`seconds` are of the processor's time. Past them the kernel ends the process by SIGPROF. The process
sends `UP` once, when it is ready for its first message.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import heap, images
from app.errors import RequestError, TooCostly

__all__ = ["HEAD", "IDLE_S", "UP", "Decoded", "Job", "decode", "pack"]

HEAD = struct.Struct(">I")
"""The length of a message's head."""

UP = b"+"

IDLE_S = 1.0
"""Without a photo, after which the process gives back the memory of those before."""

_IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

_OOM_SCORE = "800"
"""Where the machine runs out of memory, the kernel ends this process before the service."""

_PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Job:
    """What to make of a photo.

    Attributes:
        max_pixels: the most pixels (width x height) that are decoded.
        size: the model's input size S, pixels.
        resize: how it is squashed: `bilinear` or `bicubic`.
        overlay: the longest side of the pixels to draw on; None where nothing is drawn.
    """

    max_pixels: int
    size: int
    resize: str
    overlay: int | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo.

    Attributes:
        width: pixels across of the upright original.
        height: pixels down of the upright original.
        squashed: the model's input, uint8 RGB `[S, S, 3]`.
        pixels: what is drawn on, uint8 RGB `[h, w, 3]`; None where nothing is drawn.
    """

    width: int
    height: int
    squashed: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.uint8] | None


def decode(data: bytes, job: Job) -> Decoded:
    """The model's input, and the photo with its longer side at most `job.overlay` for drawing.

    The input does not depend on what is drawn: for a large overlay, a JPEG that was decoded at a
    small scale is decoded again.

    Raises:
        RequestError: what `images.decode` raises; TooCostly where memory does not do.
    """
    try:
        side = images.enough_for(job.size)
        photo = images.decode(data, max_pixels=job.max_pixels, side=side)
        squashed = images.squash(photo.pixels, job.size, job.resize)
        pixels = None
        if job.overlay:
            shorter, longer = sorted((photo.width, photo.height))
            # A sixteenth less is scaled up, unseen: 1008 px, a quarter of a telephone's 4032, do
            # for an overlay of 1024, which else would be decoded at a half.
            needed = min(job.overlay * 15 // 16, longer)
            if max(photo.pixels.shape[:2]) < needed:
                # `decode` bounds the shorter side; the longer one has to reach `needed`.
                side = math.ceil(needed * shorter / longer)
                photo = images.decode(data, max_pixels=job.max_pixels, side=side)
            pixels = images.fit(photo, job.overlay)
    except (MemoryError, images.UndecodableImage) as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            raise TooCostly("The photo takes more memory to decode than the limit.") from error
        raise
    return Decoded(photo.width, photo.height, squashed, pixels)


def pack(head: Mapping[str, Any]) -> bytes:
    """The start of a message, up to its bytes."""
    text = json.dumps(head).encode()
    return HEAD.pack(len(text)) + text


def main() -> None:
    """Answer messages on the socket at standard input until its other end is closed.

    Arguments: bytes of memory for data (RLIMIT_DATA), and what to add to the niceness.
    """
    memory, niceness = map(int, sys.argv[1:])
    for name in _IGNORED_SIGNALS:  # the service ends this process, after its last answer
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _end_with_parent()
    Image.init()  # imports every format's module
    channel = socket.socket(fileno=0)
    with channel, channel.makefile("rb") as requests, channel.makefile("wb") as answers:
        _limit(memory, niceness)
        _silence()
        # The service may be gone at any time; so this process ends, too.
        with contextlib.suppress(ConnectionError):
            answers.write(UP)
            answers.flush()
            while start := requests.read(HEAD.size):
                _answer(requests, answers, json.loads(requests.read(*HEAD.unpack(start))))
                if not select.select([channel], [], [], IDLE_S)[0]:
                    heap.trim()


def _limit(memory: int, niceness: int) -> None:
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # there is none but on Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _end_with_parent() -> None:
    """On Linux, die at once with the thread that has started this process: the event loop's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _silence() -> None:
    """From here on, nothing reaches standard error: libraries write there what a photo makes them.

    Until now, it has said why a process does not start.
    """
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    os.close(sink)


def _answer(requests: BinaryIO, answers: BinaryIO, head: dict[str, Any]) -> None:
    """Read the rest of a message, and answer it."""
    try:
        data = _read(requests, head["bytes"])
        signal.setitimer(signal.ITIMER_PROF, head["seconds"])
        decoded = decode(data, Job(**head["job"]))
    except RequestError as error:
        cause = repr(error.__cause__ or error)[:200]
        answers.write(pack({"error": error.code, "detail": str(error), "cause": cause}))
    else:
        arrays = {"squashed": decoded.squashed, "pixels": decoded.pixels}
        shapes = {name: None if array is None else array.shape for name, array in arrays.items()}
        answers.write(pack({"width": decoded.width, "height": decoded.height} | shapes))
        for array in arrays.values():
            if array is not None:
                answers.write(np.ascontiguousarray(array).data)
    signal.setitimer(signal.ITIMER_PROF, 0)
    answers.flush()


def _read(requests: BinaryIO, size: int) -> bytes:
    """The encoded photo.

    Raises:
        TooCostly: there is no memory for it; it is read to its end all the same.
    """
    try:
        return requests.read(size)
    except MemoryError as error:  # before anything was read
        while size and (chunk := requests.read(min(size, _CHUNK))):
            size -= len(chunk)
        raise TooCostly("The photo takes more memory to decode than the limit.") from error


if __name__ == "__main__":
    main()
