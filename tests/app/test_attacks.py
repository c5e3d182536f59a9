"""Photos made to do harm, sent to a real process: others are answered, and memory is bounded."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests import needs
from tests.app.attacks import HARMLESS, PHOTOS, hang_up
from tests.app.conftest import JPEG, encode, picture, problem
from tests.app.contention import Contention
from tests.app.services import LONG, Service, family, processor_s, resident_mb, serving

ANSWERED_S, ALIVE_S = 2.0, 0.5
"""How long an ordinary photo and `GET /livez` may take while others do harm; more on a machine so
slow that it needs a tenth of that at rest, or that other processes share."""

MEMORY_MB = 1600.0
"""Of the service and its decoders together: 660 when it is warm, 780 for a costly photo, and two at
rest. On two cores it was 1,415."""


# -- watching


@dataclass
class Watch:
    """What others saw meanwhile.

    Attributes:
        rest_s: what an ordinary photo takes when nobody does harm, the median.
        slowness: see `Contention`.
    """

    rest_s: float
    slowness: float = 1.0
    answered_s: list[float] = field(default_factory=list)
    alive_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"answered within {max(self.answered_s):.2f} s ({len(self.answered_s)} times, "
            f"{self.rest_s:.2f} s at rest), alive within {max(self.alive_s):.2f} s, "
            f"slowness {self.slowness:.1f}, {max(self.memory_mb):.0f} MB, "
            f"{dict(self.statuses)}"
        )

    def check(self, share: float = 0.5) -> None:
        """Check memory, and the times of a share of the calls: a machine may stand still for some.

        Args:
            share: half of few calls, more of many.
        """
        slowness = max(self.slowness, 10 * self.rest_s / ANSWERED_S)
        assert np.quantile(at_rate(self.answered_s), share) < slowness * ANSWERED_S, self
        assert np.quantile(at_rate(self.alive_s), share) < slowness * ALIVE_S, self
        assert max(self.memory_mb) < MEMORY_MB, self


def at_rate(seconds: list[float], period_s: float = 0.1) -> list[float]:
    """The times of calls made at a fixed rate, from those made one after the other.

    While the service stands still, one call waits where many would have: they are added, as
    HdrHistogram does it (`recordValueWithExpectedInterval`).
    """
    return [s - waited for s in seconds for waited in np.arange(0.0, max(s, 1e-9), period_s)]


@contextmanager
def attacked(
    service: Service, watch: Watch, attack: Callable[[], int], count: int
) -> Iterator[None]:
    """Call `attack` again and again from `count` threads while the block runs."""
    over = threading.Event()

    def repeat(step: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not over.is_set():
                step()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def send() -> None:
        watch.statuses[attack()] += 1

    def weigh() -> None:
        watch.memory_mb.append(resident_mb(family(service.process.pid)))
        time.sleep(0.01)

    threads = [repeat(send) for _ in range(count)] + [repeat(weigh)]
    try:
        with Contention(service) as contention:
            yield
        watch.slowness = contention.slowness
    finally:
        over.set()
        for thread in threads:
            thread.join()


def watch_others(service: Service, watch: Watch, seconds: float) -> None:
    """Send ordinary photos and ask for `/livez`, one after the other."""
    until = time.monotonic() + seconds
    with httpx.Client(base_url=service.url, timeout=LONG) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            assert client.get("/livez").status_code == 200
            watch.alive_s.append(time.monotonic() - begun)
            begun = time.monotonic()
            answer = client.post("/gradcam", content=JPEG, headers={"Content-Type": "image/jpeg"})
            watch.answered_s.append(time.monotonic() - begun)
            assert answer.status_code == 200, answer.text
            time.sleep(0.02)


def post(service: Service, photo: bytes, path: str = "/gradcam") -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream"}
    return httpx.post(f"{service.url}{path}", content=photo, headers=headers, timeout=LONG)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if not Path("/proc/self/statm").exists():
        needs.absent("/proc, where memory is read")
    with serving(tmp_path_factory.mktemp("attacked"), max_batch=8) as service:
        post(service, JPEG)
        yield service
        assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def rest_s(service: Service) -> float:
    watch = Watch(0.0)
    watch_others(service, watch, 0.5)
    return float(np.median(watch.answered_s))


@pytest.fixture
def watch(rest_s: float) -> Watch:
    return Watch(rest_s)


def spent_s(service: Service) -> float:
    """Processor seconds of the service and its decoders so far."""
    return sum(processor_s(pid) for pid in family(service.process.pid))


# -- attacks


def test_photos_made_to_do_harm_delay_no_others(service: Service, watch: Watch) -> None:
    """Two clients that send such photos, one kind after the other."""
    photos = cycle([make() for make in PHOTOS.values()])
    lock = threading.Lock()

    def attack() -> int:
        with lock:
            photo = next(photos)
        return post(service, photo).status_code

    with attacked(service, watch, attack, 2):
        watch_others(service, watch, 4)
    print(watch)
    watch.check()
    assert set(watch.statuses) <= HARMLESS


@pytest.mark.slow
@pytest.mark.parametrize("kind", PHOTOS)
def test_eight_clients_with_photos_of_one_kind(service: Service, watch: Watch, kind: str) -> None:
    photo = PHOTOS[kind]()
    with attacked(service, watch, lambda: post(service, photo).status_code, 8):
        watch_others(service, watch, 6)
    print(watch)
    watch.check(0.9)
    assert set(watch.statuses) <= HARMLESS


def test_photos_too_costly_are_refused_unseen(service: Service) -> None:
    """No process spends as much on all of them as decoding one would take."""
    photos = [
        PHOTOS[kind]() for kind in ("10,000 scans", "a WebP of 49 megapixels", "a PNG of one row")
    ]
    before = spent_s(service)
    for photo in photos:
        answer = post(service, photo)
        problem(answer, 413, answer.json()["type"].rpartition(":")[2])
    refusing = spent_s(service) - before
    before = spent_s(service)
    assert post(service, PHOTOS["a WebP of 36 megapixels"]()).status_code == 200
    assert refusing < 0.5 * (spent_s(service) - before)


def test_an_honest_photo_of_40_megapixels_is_answered(service: Service) -> None:
    photo = encode(picture(7600, 5300), progressive=True, quality=90)
    answer = post(service, photo)
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"] == {"width": 7600, "height": 5300}


def test_clients_that_hang_up_keep_nothing(service: Service, watch: Watch) -> None:
    """They send a costly photo and close the connection while it is decoded."""
    photo = PHOTOS["a PNG at the limit"]()

    def attack() -> int:
        hang_up(service, "/gradcam", photo, after_s=0.15)
        return 200

    with attacked(service, watch, attack, 4):
        watch_others(service, watch, 2)
    print(watch)
    watch.check()
    # The next in the slow lane does not wait for any of them: there is room, and a free process.
    assert post(service, PHOTOS["a WebP of 36 megapixels"]()).status_code == 200


def test_a_decoder_that_crashes_takes_no_other_request_down(service: Service, watch: Watch) -> None:
    photo = PHOTOS["a PNG at the limit"]()
    with attacked(service, watch, lambda: post(service, photo).status_code, 2):
        for _ in range(3):
            pid = busy_decoder(service)
            os.kill(pid, signal.SIGSEGV)
            watch_others(service, watch, 0.5)
            assert pid not in family(service.process.pid)
    print(watch)
    watch.check()
    assert watch.statuses[422] >= 1  # others may have crashed between two photos
    assert set(watch.statuses) <= HARMLESS
    assert post(service, photo).status_code == 200


def busy_decoder(service: Service) -> int:
    """The decoder of costly photos, once it has worked for longer than its imports take."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        for pid in family(service.process.pid)[1:]:
            with suppress(OSError):  # it has ended meanwhile
                *_, niceness = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
                if niceness != "0" and processor_s(pid) > 0.6:
                    return pid
        time.sleep(0.01)
    pytest.fail("no decoder is busy")


@pytest.mark.slow
def test_sigterm_ends_the_service_while_it_decodes(tmp_path: Path) -> None:
    photo = PHOTOS["a PNG at the limit"]()
    answers: list[int] = []
    with serving(tmp_path, deadline_s=3) as service:
        clients = [
            threading.Thread(target=lambda: answers.append(post(service, photo).status_code))
            for _ in range(4)
        ]
        for client in clients:
            client.start()
        time.sleep(0.5)
        decoders = family(service.process.pid)[1:]
        assert len(decoders) == 3
        assert service.stop() == 0
        for client in clients:
            client.join()
    assert set(answers) <= {200, 504}
    assert not any(Path(f"/proc/{pid}").exists() for pid in decoders)


@pytest.mark.slow
def test_what_takes_longer_than_its_time_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, decode_s=0.3) as service:
        answer = post(service, PHOTOS["a PNG at the limit"]())
        assert "0.3 s of processor time" in problem(answer, 413, "too-costly")
        assert post(service, JPEG).status_code == 200
