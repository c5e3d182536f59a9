"""Decoding in processes that can be ended: two lanes, so that costly photos delay no others.

    lane     photos                              processes            a photo may take
    quick    of up to `QUICK_COST` by their      `count`              `QUICK_S`, `QUICK_BYTES`
             header, and up to `QUICK_BYTES`
    slow     the others, and those that exceed   1, of less           `seconds`, and memory by
             the quick lane's limits             priority             `BYTES_PER_PIXEL`

A photo waits for a process of its lane without holding anything but its bytes. What a process may
take, the kernel enforces (`app.decoder`). A process that ends is replaced, and its photo refused;
if the system has killed it, most likely for want of memory, the photo gets a second process first.
"""

import asyncio
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Self

import numpy as np
import numpy.typing as npt

from app.clock import Clock
from app.decoder import HEAD, UP, Decoded, Job, pack
from app.errors import (
    BreedCAMError,
    NotReady,
    QueueFull,
    RequestError,
    StartupError,
    TooCostly,
    TooManyPixels,
    UndecodableImage,
    UnsupportedMediaType,
)
from app.image_header import Header
from app.settings import PROJECT, Settings
from app.threads import outlast

__all__ = ["Decoders"]

log = logging.getLogger(__name__)

QUICK_COST = 70_000_000
"""Cost of a photo in the quick lane, as `app.image_header` has it, at most about 0.7 s: a HEIC of
12 megapixels, as telephones write it, costs 60 million."""

QUICK_S = 1.0
"""Processor time in the quick lane: a photo that is dearer than it looks moves to the other."""

PROCESS_BYTES = 88_000_000
"""A process without a photo: 56 MB, BLAS's buffer among them, and some to spare. The bytes of the
largest file come on top, twice."""

BYTES_PER_PIXEL = 13
"""Memory for a photo in the slow lane, for each pixel that it may have: enough for a progressive
JPEG without subsampling (7 for the picture, 6 for coefficients)."""

QUICK_BYTES = 128_000_000
"""Memory for a photo in the quick lane: a HEIC of 16 megapixels, or a JPEG of 50 in one scan."""

NICENESS = 5
"""Of the slow lane: it gets a quarter of what a busy core gives to others."""

GRACE_S = 0.1
"""What a decode may still take after its request was cancelled; less than a new process costs."""

START_S = 60.0
"""A process that takes longer to start does not start."""

HEAD_BYTES = 4096
"""The longest head of an answer."""

SOCKET_BYTES = 1 << 20
"""In a socket's buffer, where the system allows it: an answer is about as large."""

COMMAND = ("-m", "app.decoder")

INHERITED = frozenset({"HOME", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ"})
INHERITED_PREFIXES = ("DYLD_", "LANG", "LC_", "LD_", "PYTHON")
"""Variables that a process gets from the service: none that may hold a secret."""

ENVIRONMENT = {
    # Where PYTHONSAFEPATH is set, `-m` does not look into the working directory.
    "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
    # BLAS has little to do, and its threads would count as memory.
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of an ordinary photo is kept for the next: to get it anew takes a fifth of a decode.
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}

_ERRORS: dict[str, type[RequestError]] = {
    kind.code: kind for kind in (TooCostly, TooManyPixels, UndecodableImage, UnsupportedMediaType)
}


class Decoders:
    """The processes that decode photos; for use on one event loop at a time.

    Attributes:
        pending_pixels: cost of the photos that the slow lane holds.
        ended: how many processes have ended before they answered.
    """

    def __init__(
        self, *, count: int, seconds: float, max_bytes: int, max_pixels: int, max_pending: int
    ) -> None:
        """Choose the bounds; `start` starts the processes.

        Args:
            count: processes of the quick lane.
            seconds: processor time that a photo may take.
            max_bytes: of a file.
            max_pixels: of a photo.
            max_pending: cost of the photos that the slow lane holds, in pixels.
        """
        self._seconds = seconds
        self._max_pending = max_pending
        self._photo_bytes = max(BYTES_PER_PIXEL * max_pixels, QUICK_BYTES)
        process_bytes = PROCESS_BYTES + 2 * max_bytes
        self._quick = _Lane(count, process_bytes + QUICK_BYTES, 0)
        self._slow = _Lane(1, process_bytes + self._photo_bytes, NICENESS)
        self.pending_pixels = 0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings want them."""
        return cls(
            count=settings.decoders,
            seconds=settings.decode_s,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_pending=settings.max_pending_pixels,
        )

    @property
    def ended(self) -> int:
        """How many processes have ended before they answered."""
        return self._quick.ended + self._slow.ended

    def start(self) -> None:
        """Start the processes that do not run; blocks for less than a second.

        Raises:
            StartupError: they do not start here. None is left then.
        """
        try:
            for lane in (self._quick, self._slow):
                lane.start()
            for lane in (self._quick, self._slow):
                lane.wait_until_up()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes, with what they decode."""
        for lane in (self._quick, self._slow):
            lane.stop()

    def kill(self) -> None:
        """Kill the processes without waiting for anything, from any thread."""
        for lane in (self._quick, self._slow):
            lane.kill()

    async def decode(self, data: bytes, job: Job, header: Header, clock: Clock) -> Decoded:
        """Decode a photo in another process.

        When this is cancelled, what the decode holds is free again before it returns.

        Args:
            data: the encoded photo.
            job: what to make of it.
            header: what its header says of it.
            clock: gets a lap `decode` for each time that a process has the photo.

        Raises:
            QueueFull: the slow lane holds photos of as many pixels as it may.
            TooCostly: it takes more time or memory than it may.
            NotReady: the processes are stopped, or the system has killed two with this photo.
            RequestError: what else `images.decode` raises.
        """
        if header.peak_bytes > self._photo_bytes:
            raise TooCostly(
                f"Decoding the {header.format} would take {header.peak_bytes // 10**6} MB; the "
                f"limit is {self._photo_bytes // 10**6} MB."
            )
        if header.cost <= QUICK_COST and header.peak_bytes <= QUICK_BYTES:
            with suppress(TooCostly):
                return await self._quick.decode(data, job, min(QUICK_S, self._seconds), clock)
            log.info("a photo exceeded the quick lane's limits; retrying in the slow lane")
        with self._hold(header.cost):
            return await self._slow.decode(data, job, self._seconds, clock)

    @contextmanager
    def _hold(self, cost: int) -> Iterator[None]:
        # A photo that would be too much even alone is let in alone.
        if self.pending_pixels and self.pending_pixels + cost > self._max_pending:
            raise QueueFull("Large photos wait for their turn. Small ones are still accepted.")
        self.pending_pixels += cost
        try:
            yield
        finally:
            self.pending_pixels -= cost


class _Lane:
    """Processes of one kind, and the photos that wait for one.

    `stop` and `kill` may come from another thread than the event loop's.
    """

    def __init__(self, count: int, memory: int, niceness: int) -> None:
        self._count, self._memory, self._niceness = count, memory, niceness
        self._places = asyncio.Semaphore(count)
        self._lock = threading.Lock()  # for the three below
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._stopped = False
        self.ended = 0

    def start(self) -> None:
        """Start the processes that are missing."""
        self._places = asyncio.Semaphore(self._count)  # of the event loop that is to run
        with self._lock:
            self._stopped = False
            while len(self._idle) < self._count:
                self._idle.append(self._new())

    def wait_until_up(self) -> None:
        for process in self._idle:
            process.wait_until_up()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            for process in self._busy:  # the event loop may still run, and ends these
                process.kill()
        for process in idle:
            process.end()

    def kill(self) -> None:
        for process in [*self._idle, *self._busy]:  # without the lock, whose holder may hang
            process.kill()

    async def decode(self, data: bytes, job: Job, seconds: float, clock: Clock) -> Decoded:
        with suppress(_Killed):
            return await self._decode(data, job, seconds, clock)
        try:
            return await self._decode(data, job, seconds, clock)
        except _Killed:
            raise NotReady(
                "The system ended the decoder twice, most likely for want of memory."
            ) from None

    async def _decode(self, data: bytes, job: Job, seconds: float, clock: Clock) -> Decoded:
        await self._places.acquire()
        try:
            process = self._take()
        except BaseException:
            self._places.release()
            raise
        exchange = asyncio.create_task(process.decode(data, job, seconds))
        try:
            with clock.lap("decode"):
                return await asyncio.shield(exchange)
        finally:
            if exchange.done() and self._keep(process):  # the usual case, without more tasks
                self._places.release()
            else:
                end = asyncio.create_task(self._give_back(process, exchange))
                cancelled = await outlast(end)
                end.result()
                if cancelled:
                    raise asyncio.CancelledError

    def _take(self) -> "_Process":
        """One that waits, or a new one where it has ended meanwhile."""
        with self._lock:
            if self._stopped:
                raise NotReady("The service is stopping.")
            process = self._idle.pop() if self._idle else self._new()
            if not process.usable:
                process.end()
                process = self._new()
            self._busy.add(process)
            return process

    def _keep(self, process: "_Process") -> bool:
        """Whether the process has answered, and waits for the next photo."""
        with self._lock:
            if self._stopped or not process.usable:
                return False
            self._busy.discard(process)
            self._idle.append(process)
            return True

    async def _give_back(self, process: "_Process", exchange: "asyncio.Task[Decoded]") -> None:
        """Free a place, once its process is free or gone, and its memory with it."""
        try:
            await asyncio.wait({exchange}, timeout=GRACE_S)
            if not exchange.done():
                process.kill()
                await asyncio.wait({exchange})
            exchange.cancelled() or exchange.exception()  # nobody else may look at it
            if not self._keep(process):
                await self._replace(process)
        finally:
            self._places.release()

    async def _replace(self, process: "_Process") -> None:
        """End a process, and put another in its place unless the lane is stopped."""
        if not process.usable:
            self.ended += 1
        await asyncio.to_thread(process.end)
        with self._lock:
            self._busy.discard(process)
            if not self._stopped:
                with suppress(OSError):  # there are too many processes: `_take` tries again
                    self._idle.append(self._new())

    def _new(self) -> "_Process":
        return _Process(self._memory, self._niceness)


class _Killed(Exception):
    """A process was killed, and not by the service."""


class _Process:
    """One process, and the socket to it."""

    def __init__(self, memory: int, niceness: int) -> None:
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        try:
            self._process = self._start(theirs, memory, niceness)
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)
        self._up = False
        self._busy = False
        self._killed = False

    @staticmethod
    def _start(channel: socket.socket, memory: int, niceness: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *COMMAND, str(memory), str(niceness)],
            stdin=channel.fileno(),
            stdout=subprocess.DEVNULL,
            cwd=PROJECT,  # where `-m` looks first
            env=_inherited(os.environ) | ENVIRONMENT,
            start_new_session=True,  # a signal to the service's process group is not for it
        )

    @property
    def usable(self) -> bool:
        """Whether it runs, and has answered all that it was sent."""
        return not self._busy and self._process.poll() is None

    def wait_until_up(self) -> None:
        """Block until it has started.

        Raises:
            StartupError: it does not.
        """
        if self._up:
            return
        self._socket.settimeout(START_S)
        try:
            self._up = self._socket.recv(1) == UP
        except OSError:
            self._up = False
        self._socket.setblocking(False)
        if not self._up:
            raise StartupError("the processes that decode photos do not start here")

    def kill(self) -> None:
        """End it without waiting: whoever waits for its answer gets an error."""
        self._killed = True
        self._process.kill()

    def end(self) -> int:
        """End it where it runs; returns its exit status once its memory is free."""
        self._process.kill()
        self._socket.close()
        return self._process.wait()

    async def decode(self, data: bytes, job: Job, seconds: float) -> Decoded:
        """Send a photo and wait for the answer.

        Raises:
            RequestError: the photo cannot be decoded.
            NotReady: the process was killed by `kill` or `end`.
            _Killed: it was killed by someone else.
            BreedCAMError: it ended for another reason that is not the photo's.
        """
        self._busy = True
        try:
            decoded = await self._exchange(data, job, seconds)
        except RequestError:
            self._busy = False
            raise
        except Exception as error:  # it has ended, or its answer is none
            status = await asyncio.to_thread(self.end)
            if self._killed:
                raise NotReady("The service is stopping.") from error
            if not isinstance(error, (EOFError, OSError)):  # it did not end: its answer is none
                log.warning("a decoder was ended: its answer was malformed")
                raise BreedCAMError("The decoder's answer was malformed.") from error
            log.warning("a decoder ended with status %d while it had a photo", status)
            raise _reason(status, seconds) from error
        self._busy = False
        return decoded

    async def _exchange(self, data: bytes, job: Job, seconds: float) -> Decoded:
        if not self._up:
            await self._receive(len(UP))
            self._up = True
        head = {"job": asdict(job), "seconds": seconds, "bytes": len(data)}
        await self._send(pack(head))
        await self._send(data)
        [length] = HEAD.unpack(await self._receive(HEAD.size))
        answer = json.loads(bytes(await self._receive(min(length, HEAD_BYTES))))
        if "error" in answer:
            log.info("a photo does not decode: %s", answer["cause"])
            raise _ERRORS[answer["error"]](str(answer["detail"]))
        squashed = await self._array(answer["squashed"], (job.size, job.size, 3))
        pixels = None
        if job.overlay:
            pixels = await self._array(answer["pixels"], (job.overlay, job.overlay, 3))
        return Decoded(int(answer["width"]), int(answer["height"]), squashed, pixels)

    async def _array(self, shape: Sequence[int], most: Sequence[int]) -> npt.NDArray[np.uint8]:
        """The next array, if it is no larger than it can be."""
        if not all(0 < size <= limit for size, limit in zip(shape, most, strict=True)):
            raise ValueError(f"an array of shape {shape}")
        return np.frombuffer(await self._receive(math.prod(shape)), np.uint8).reshape(shape)

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                size = self._socket.send(rest)
            except BlockingIOError:
                await self._ready(writable=True)
            else:
                rest = rest[size:]

    async def _receive(self, count: int) -> memoryview:
        """The next bytes that it sends.

        Raises:
            EOFError: it ended before.
        """
        received = rest = np.empty(count, np.uint8).data
        while rest:
            try:
                size = self._socket.recv_into(rest)
            except BlockingIOError:
                await self._ready()
            else:
                if not size:
                    raise EOFError
                rest = rest[size:]
        return received

    async def _ready(self, *, writable: bool = False) -> None:
        """Wait until the socket can be read, or written.

        In place of the event loop's `sock_recv_into`: uvloop's waits even for what is there.
        """
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        add, remove = loop.add_reader, loop.remove_reader
        if writable:
            add, remove = loop.add_writer, loop.remove_writer
        add(self._socket, _resolve, ready)
        try:
            await ready
        finally:
            remove(self._socket)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process gets of the service's environment."""
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in INHERITED or name.startswith(INHERITED_PREFIXES)
    }


def _reason(status: int, seconds: float) -> Exception:
    """Why a process ended, by its exit status: that of a signal is negative."""
    if status == -signal.SIGPROF:
        return TooCostly(f"The image takes more than {seconds:g} s of processor time to decode.")
    if status == -signal.SIGKILL:
        return _Killed()
    if status >= 0:
        return BreedCAMError("The decoder ended before it was done.")
    return UndecodableImage("The image makes its decoder fail.")
