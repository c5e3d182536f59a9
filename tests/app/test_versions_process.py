"""A process whose model is replaced while clients ask, over sockets, with the shipped model."""

import asyncio
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.bundle import CARD_PATH, ModelCard, checksums, find_version
from app.settings import Settings
from tests.app.conftest import JPEG, encode, picture
from tests.app.services import LONG, Service, serving
from tests.app.test_process import wait_for

CLIENTS = 16
ROUNDS = 4
MOST_ROUNDS = 10
"""Where the first rounds show too long a delay: a machine may stand still for a moment."""
SECONDS = 20.0
"""Of a round with a swap, and of one without."""

HEADERS = {"Content-Type": "image/jpeg"}


def add_version(folder: Path, version: int, *, spoilt: bool = False) -> None:
    """The shipped version under another number: links to its files, and its card."""
    draft = folder / f".{version}"
    shutil.copytree(find_version(Settings().model_path), draft, copy_function=os.symlink)
    card = ModelCard.model_validate_json((draft / CARD_PATH).read_bytes())
    (draft / CARD_PATH).unlink()
    if spoilt:
        (draft / "fingerprint.pb").unlink()
        (draft / "fingerprint.pb").write_bytes(b"another")
    card.replace(version=version).write(draft)
    assert spoilt or card.checksums == checksums(draft)
    draft.rename(folder / str(version))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with version 1."""
    folder = tmp_path / "dogs"
    folder.mkdir()
    add_version(folder, 1)
    return folder


def test_a_broken_version_is_refused_and_the_old_one_serves_on(
    folder: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, model=folder, model_poll_s=0.1) as service:
        add_version(folder, 2, spoilt=True)
        wait_for(lambda: "is refused" in service.log.read_text())
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.log.read_text().count("is refused") == 2)
        answer = httpx.post(f"{service.url}/predict", content=JPEG, headers=HEADERS, timeout=LONG)
        assert answer.json()["model"]["version"] == 1
        # The version is repaired, and served.
        shutil.rmtree(folder / "2")
        add_version(folder, 2)
        wait_for(lambda: "is freed" in service.log.read_text())
        answer = httpx.post(f"{service.url}/predict", content=JPEG, headers=HEADERS, timeout=LONG)
        assert answer.json()["model"]["version"] == 2
        assert service.stop() == 0
        log = service.log.read_text()
    assert f"{folder / '2' / 'fingerprint.pb'} differs from its checksum" in log
    assert "Traceback" not in log


def logged(service: Service, line: str) -> bool:
    return line in service.log.read_text()


class Clients:
    """Clients that ask one request after the other; each checks that versions only rise.

    Attributes:
        answers: when each was asked, and the seconds it took.
        versions: of all answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.answers: list[tuple[float, float]] = []
        self.versions: set[int] = set()
        self.over = False

    async def run(self, number: int) -> None:
        photo = encode(picture(640, 480, number))
        served = 0
        async with httpx.AsyncClient(
            base_url=self._service.url, timeout=LONG, verify=False
        ) as client:
            while not self.over:
                begun = time.monotonic()
                answer = await client.post("/gradcam", content=photo, headers=HEADERS)
                self.answers.append((begun, time.monotonic() - begun))
                assert answer.status_code == 200, answer.text
                version = answer.json()["model"]["version"]
                assert version >= served
                served = version
                self.versions.add(version)

    def p99_s(self, windows: list[tuple[float, float]]) -> float:
        """Of the requests that were asked within the windows."""
        spent = [
            seconds
            for begun, seconds in self.answers
            if any(start <= begun < end for start, end in windows)
        ]
        return float(np.percentile(spent, 99))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_swap_under_load_fails_no_request_and_delays_few(folder: Path, tmp_path: Path) -> None:
    """Rounds with and without a swap take turns, so that the machine's other work is in both."""
    usual: list[tuple[float, float]] = []
    swapped: list[tuple[float, float]] = []
    resident: list[float] = []

    async def swaps(service: Service, clients: Clients) -> None:
        await asyncio.sleep(3)
        for version in range(2, MOST_ROUNDS + 2):
            begun = time.monotonic()
            await asyncio.sleep(SECONDS)
            usual.append((begun, time.monotonic()))
            begun = time.monotonic()
            await asyncio.to_thread(add_version, folder, version)
            service.process.send_signal(signal.SIGHUP)
            freed = f"version {version - 1} has answered its last request and is freed"
            await asyncio.to_thread(wait_for, partial(logged, service, freed))
            took = time.monotonic() - begun
            print(f"version {version} after {took:.1f} s, {service.peak_mb():.0f} MB at most")
            await asyncio.sleep(max(0.0, SECONDS - took))
            swapped.append((begun, time.monotonic()))
            resident.append(service.forget_peak())
            if len(resident) >= ROUNDS and clients.p99_s(swapped) < 2 * clients.p99_s(usual):
                break
        clients.over = True

    async def load(service: Service) -> Clients:
        clients = Clients(service)
        async with asyncio.TaskGroup() as group:
            group.create_task(swaps(service, clients))
            for number in range(CLIENTS):
                group.create_task(clients.run(number))
        return clients

    with serving(tmp_path, model=folder, model_poll_s=0, max_batch=8) as service:
        clients = asyncio.run(load(service))
        assert service.stop() == 0
    before, after = clients.p99_s(usual), clients.p99_s(swapped)
    print(f"p99 {before:.3f} s, with a swap {after:.3f} s, {len(clients.answers)} answers")
    print(f"MB after each swap: {resident}")
    assert clients.versions == set(range(1, len(resident) + 2))
    assert after < 2 * before
    # The memory of one version, not of four.
    assert resident[-1] < 1.2 * resident[0]
