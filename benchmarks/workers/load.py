"""A closed loop of cheap HTTP clients: each sends the next request on receiving a response."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import uvloop

from benchmarks.protocol import serve

TIMEOUT_S = 60.0


def make() -> dict[str, Callable[..., Any]]:
    """Handlers that keep photos by name, and send them."""
    photos: dict[str, bytes] = {}
    answers: list[bytes] = []

    def keep(name: str, data: str) -> None:
        photos[name] = base64.b64decode(data)

    def send(
        ports: list[int], path: str, photo: str, clients: int, requests: int, raw: bool = False
    ) -> dict[str, Any]:
        message = partial(_message, path, photos[photo], raw)
        start, cpu = time.perf_counter(), time.process_time()
        times, last = uvloop.run(_loop(ports, message, clients, requests))
        answers[:] = [last]
        return {
            "times_ms": times,
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
            "timings_ms": json.loads(last).get("timings_ms", {}),
        }

    return {"keep": keep, "send": send, "last": lambda: json.loads(answers[0])}


def _message(path: str, photo: bytes, raw: bool) -> list[bytes]:
    """The parts of a request, with the photo as multipart field `file` or as the raw body.

    A multipart body has a boundary of its own, as clients make one for each request.
    """
    kind, body = b"image/jpeg", [photo]
    if not raw:
        boundary = b"------------------------" + secrets.token_hex(11).encode()
        kind = b"multipart/form-data; boundary=" + boundary
        field = b'Content-Disposition: form-data; name="file"; filename="photo.jpg"'
        head = b"--" + boundary + b"\r\n" + field + b"\r\nContent-Type: image/jpeg\r\n\r\n"
        body = [head, photo, b"\r\n--" + boundary + b"--\r\n"]
    lines = (
        f"POST {path} HTTP/1.1".encode(),
        b"Host: localhost",
        b"Content-Type: " + kind,
        b"Content-Length: " + str(sum(map(len, body))).encode(),
    )
    return [b"\r\n".join(lines) + b"\r\n\r\n", *body]


async def _loop(
    ports: Sequence[int], message: Callable[[], list[bytes]], clients: int, requests: int
) -> tuple[list[float], bytes]:
    """Send `requests` messages; returns the milliseconds of each, and the last body."""
    times: list[float] = []
    last = b""
    left = requests

    async def client(port: int) -> None:
        nonlocal left, last
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        while left > 0:
            left -= 1
            parts = message()
            start = time.perf_counter()
            writer.writelines(parts)
            last = await _answer(reader)
            times.append((time.perf_counter() - start) * 1000)
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(client(ports[number % len(ports)]) for number in range(clients)))
    return times, last


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The body of a response with a `Content-Length`.

    Raises:
        RuntimeError: its status is not 200.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"{head!r} {body[:300]!r}")
    return body


if __name__ == "__main__":
    serve(make)
