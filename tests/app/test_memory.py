"""What the service's memory does over many requests."""

import http.client
import os
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.engines import cpu_has_int8
from app.settings import Settings
from tests import needs
from tests.app.conftest import encode
from tests.app.services import AT_REST_MB, FLOAT, LONG, family, serving, wait_for_memory

REQUESTS, ROUNDS, CLIENTS = 8_000, 40, 4

GROWTH_MB = 10.0
"""From the second quarter to the last, at most: 2.5 KB a request."""

PATHS = (
    "/predict",
    "/gradcam?overlay=false",
    "/cam?box=1,1,30,30",
    "/gradcam?size=300&method=layercam",
    "/gradcam?layers=last6&overlay=false",
    "/compare?size=300&box=1,1,30,30&curve=true",
    "/compare?size=300&overlay=false&heatmap=true&photo=true&method=cam&method=layercam/last6",
)


def _photos() -> list[bytes]:
    """Photos of many sizes and of every format, from thumbnails to six megapixels."""
    rng = np.random.default_rng(0)
    widths = [32, 64, 100, 150, 224, 224, 300, 400, 500, 640, 800, 3000]
    photos = []
    for index, width in enumerate(widths):
        height = int(width * rng.uniform(0.5, 1.5))
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, min(height, 2000)))
        photos.append(encode(image, ("JPEG", "WEBP", "PNG")[index % 3] if width < 800 else "JPEG"))
    return photos


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _send(port: int, requests: list[tuple[str, bytes]], failures: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    for path, photo in requests:
        connection.request("POST", path, photo, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            failures.append(f"{path}: {answer.status} {body[:200]!r}")
    connection.close()


def _crowd(port: int, shares: list[list[tuple[str, bytes]]], failures: list[str]) -> None:
    """Clients at the same time, each with requests of its own."""
    clients = [threading.Thread(target=_send, args=(port, share, failures)) for share in shares]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_over_many_requests(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        needs.absent("/proc, where memory is read")
    photos = cycle(_photos())
    paths = cycle([path for path in PATHS for _ in range(7)])
    work: Iterator[tuple[str, bytes]] = zip(paths, photos, strict=False)
    failures: list[str] = []
    resident = []
    default = Settings.model_fields["max_batch"].default
    with serving(tmp_path, max_batch=default, log_level="warning") as service:
        # What is compiled at its first use: earlier layers, of one photo and of several.
        deep = [("/gradcam?layers=last6", next(photos)) for _ in range(25)]
        _send(service.port, deep, failures)
        _crowd(service.port, [deep] * CLIENTS, failures)
        for _ in range(ROUNDS):
            count = REQUESTS // ROUNDS // CLIENTS
            shares = [[next(work) for _ in range(count)] for _ in range(CLIENTS)]
            _crowd(service.port, shares, failures)
            resident.append(_resident_mb(service.process.pid))
        wait_for_memory(
            family(service.process.pid), AT_REST_MB["int8" if cpu_has_int8() else FLOAT]
        )
    assert failures == []
    quarter = ROUNDS // 4
    growth = np.median(resident[-quarter:]) - np.median(resident[quarter : 2 * quarter])
    assert growth < GROWTH_MB, f"grew by {growth:.0f} MB: {np.round(resident).tolist()}"
