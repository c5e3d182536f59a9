"""Attacks on a service: photos made to do harm, and clients that do what they should not."""

import json
import random
import re
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from PIL import Image

from tests.app.conftest import JPEG, encode
from tests.app.services import LONG, Service
from tests.drawing import draw

__all__ = [
    "HARMLESS",
    "HEAD",
    "PHOTOS",
    "broken",
    "exchange",
    "flood",
    "hang_up",
    "heavy_photo",
    "hung_up",
    "long_header",
    "many_fields",
    "plug",
    "receive",
    "send",
    "slow_readers",
    "status",
    "trickle",
    "upload",
]

HARMLESS = {200, 413, 422, 429}
"""What photos made to do harm may be answered."""

HEAD = b"Host: x\r\nContent-Type: image/jpeg\r\n"


# -- photos


def many_scans(scans: int, side: int) -> bytes:
    """A flat progressive JPEG with its smallest scan repeated: a pass over all blocks each time."""
    data = encode(Image.new("RGB", (side, side)), progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    bounds = list(zip(starts, [*starts[1:], len(data) - 2], strict=True))
    # The last but one of the first component, so that tables stay as they are.
    smallest = min((data[start:end] for start, end in bounds[1:]), key=len)
    cut = smallest.find(b"\xff\xc4")
    scan = smallest if cut < 0 else smallest[:cut]
    return data[:-2] + scan * scans + b"\xff\xd9"


def flat_png(width: int, height: int, colour: int = 6, *, interlaced: bool = False) -> bytes:
    """A PNG of zeros in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    samples = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(1)
    row, parts = bytes(1 + width * samples), []
    for _ in range(height):
        parts.append(packer.compress(row))
    parts.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, int(interlaced))
    body = b"".join(parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    )


def flat_webp(side: int) -> bytes:
    """Some tens of bytes, whatever its size."""
    return encode(Image.new("RGB", (side, side)), "WEBP", lossless=True, quality=0, method=0)


PHOTOS: dict[str, Callable[[], bytes]] = {
    "10,000 scans": lambda: many_scans(10_000, 1000),
    "scans up to the limit": lambda: many_scans(80, 4000),
    "a WebP of 49 megapixels": lambda: flat_webp(7000),
    "a WebP of 36 megapixels": lambda: flat_webp(6000),
    "a PNG of one row": lambda: flat_png(49_000_000, 1, 0),
    "a PNG at the limit": lambda: flat_png(7000, 7000),
}


def heavy_photo(side: int = 1024) -> bytes:
    """One whose overlay is as large as overlays are: noise."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return encode(Image.fromarray(noise))


def broken() -> list[bytes]:
    """Images of every kind without their ends, with other bytes in the middle, or none at all."""
    rng, drawing = random.Random(0), draw()
    files = [encode(drawing, kind) for kind in ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF")]
    spoilt = []
    for data in files:
        spoilt.append(data[: len(data) // 2])
        noise = bytearray(data)
        for _ in range(200):
            noise[rng.randrange(12, len(data))] = rng.randrange(256)
        spoilt.append(bytes(noise))
    return [*spoilt, b"", b"no image", JPEG[:20], bytes(1000)]


# -- sockets


def plug(service: Service, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(LONG)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", service.port))
    return client


def send(client: socket.socket, data: bytes) -> bool:
    """Whether all of it could be sent."""
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def receive(client: socket.socket) -> bytes:
    """All until the connection is closed."""
    parts = []
    while part := client.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def exchange(service: Service, *parts: bytes) -> bytes:
    with plug(service) as client:
        for part in parts:
            send(client, part)
        return receive(client)


def status(answer: bytes) -> int:
    """Of an answer, whose body is a problem where the status says so."""
    head, _, body = answer.partition(b"\r\n\r\n")
    code = int(head.split()[1])
    if code >= 400:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        document = json.loads(body)
        assert fields[b"content-type"] == b"application/problem+json"
        assert set(document) == {"type", "title", "status", "detail", "request_id"}
        assert document["status"] == code
        assert document["request_id"].encode() == fields[b"x-request-id"] != b""
    return code


def upload(path: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {length or len(body)}\r\n"
    return head.encode() + HEAD + b"\r\n" + body


# -- clients


def long_header(service: Service, size: int) -> bytes:
    """The answer to a header with a field of so many bytes."""
    return exchange(service, b"GET / HTTP/1.1\r\nHost: x\r\nA: ", bytes(b"a" * size))


def many_fields(service: Service, size: int) -> bytes:
    """The answer to a header of so many bytes in short fields."""
    field = b"A: " + b"b" * 40 + b"\r\n"
    header = b"GET / HTTP/1.1\r\nHost: x\r\n" + field * (size // len(field))
    answer = b""
    with plug(service) as client:  # which has little time to send something
        send(client, header)
        # Not to the end of the connection, which may be cut off.
        while not answer.endswith(b"}") and (part := client.recv(65536)):
            answer += part
    return answer


def flood(service: Service, count: int) -> Counter[int]:
    """Open so many connections and send nothing until they are closed; how some are answered."""
    with ExitStack() as stack:
        clients = [stack.enter_context(plug(service)) for _ in range(count)]
        return Counter(status(answer) for answer in map(receive, clients) if answer)


def trickle(
    service: Service, count: int, begin: bytes, rest: bytes, step_s: float, seconds: float
) -> list[bytes]:
    """The answers to clients that send `begin`, then a byte of `rest` in each step."""
    with ExitStack() as stack:
        clients = [stack.enter_context(plug(service)) for _ in range(count)]
        for client in clients:
            send(client, begin)
        for index in range(int(seconds / step_s)):
            for client in clients:
                send(client, rest[index : index + 1])
            time.sleep(step_s)
        return [receive(client) for client in clients]


def hang_up(service: Service, path: str, photo: bytes, after_s: float) -> None:
    """Send a photo and close the connection while it is decoded."""
    with plug(service) as client:
        client.sendall(upload(path, photo))
        time.sleep(after_s)


def hung_up(service: Service, count: int, size: int, path: str = "/gradcam") -> None:
    """Uploads whose clients are gone as soon as they are sent."""
    request = upload(path, JPEG + bytes(size - len(JPEG)))
    for _ in range(count):
        with plug(service) as client:
            send(client, request)


def slow_readers(service: Service, count: int, path: str, wait_s: float) -> Counter[str]:
    """Clients that take nothing of their answers for so long; how each ends."""
    request = upload(path, heavy_photo())
    ends: Counter[str] = Counter()
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(plug(service, receive_buffer=4096))
            send(client, request)
            clients.append(client)
            time.sleep(0.25)
        time.sleep(wait_s)
        for client in clients:
            try:
                answer = receive(client)
            except OSError:
                ends["cut off"] += 1
                continue
            length = re.search(rb"content-length: (\d+)", answer)
            body = answer.partition(b"\r\n\r\n")[2]
            whole = length is not None and int(length[1]) == len(body)
            ends[answer[9:12].decode() if whole else "cut off"] += 1
    return ends
