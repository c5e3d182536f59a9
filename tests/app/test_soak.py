"""Every attack at once beside honest clients, for as long as `BREEDCAM_SOAK_S` says.

The clients count what they are answered, and `/metrics` has to agree with them.
"""

import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from tests import needs
from tests.app import attacks
from tests.app.conftest import JPEG, encode, pixels
from tests.app.exposition import Scrape
from tests.app.services import (
    AT_REST_MB,
    FLOAT,
    LONG,
    Service,
    family,
    resident_mb,
    serving,
    wait_for_memory,
)
from tests.drawing import draw

SOAK_S = float(os.environ.get("BREEDCAM_SOAK_S", "60"))

CLIENTS, PAUSE_S = 4, 0.25
"""Honest clients, and how long they rest between two photos: below what one core can answer."""

TRIES = 5
"""Of an honest request: 429 is tried again after `Retry-After`."""

P99_S = 10.0
"""99 of 100 honest requests are answered 200 within this time, all tries and rests included. On
two cores it was 0.7 to 2.6 s beside one other job, and 7 s with a load average of 10."""

ALIVE_P99_S = 0.5
"""99 of 100 `GET /livez` are answered within this time."""

MEMORY_MB, OWN_MB = 2300.0, 1100.0
"""Resident, of the service and its decoders together, and of the service alone. The former is the
sum of what the parts may take (docs/settings.md), which half an hour comes close to: 2,154."""

COUNTED, UNCOUNTED = ("/predict", "/gradcam", "/compare"), "/cam"
"""Clients that leave before their answer send to the last alone: they cannot know its status."""

STATUSES = {200, 400, 408, 413, 415, 422, 429, 431}
"""No status from 500 up. Connections stay below the cap, so that none is answered 503."""


@dataclass
class Ledger:
    """What the clients saw.

    Attributes:
        answers: by method, path and status, where the application answered.
        reasons: codes of problems, those of the server itself included.
        left: clients that sent a photo to `UNCOUNTED` and did not take the answer.
    """

    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    left: int = 0
    honest_s: list[float] = field(default_factory=list)
    retried: int = 0
    alive_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    own_mb: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, method: str, path: str, status: int, body: bytes) -> None:
        with self._lock:
            self.answers[method, path.partition("?")[0], status] += 1
        if status >= 400:
            self.refused(body)

    def refused(self, body: bytes) -> None:
        with self._lock:
            self.reasons[json.loads(body)["type"].rpartition(":")[2]] += 1

    def raw(self, method: str, path: str, answer: bytes) -> None:
        """An answer as it came over the socket."""
        status = attacks.status(answer)
        self.answered(method, path, status, answer.partition(b"\r\n\r\n")[2])

    def unread(self, answer: bytes, status: int) -> None:
        """The answer to a request that never reached the application."""
        assert attacks.status(answer) == status
        self.refused(answer.partition(b"\r\n\r\n")[2])

    def retry(self) -> None:
        with self._lock:
            self.retried += 1

    def leave(self, count: int = 1) -> None:
        with self._lock:
            self.left += count

    def __str__(self) -> str:
        honest, alive = np.array(self.honest_s), np.array(self.alive_s)
        statuses: Counter[int] = Counter()
        for (_, _, status), count in self.answers.items():
            statuses[status] += count
        return (
            f"{len(honest)} honest requests ({self.retried} tried again): "
            f"median {np.median(honest):.2f} s, p99 {np.quantile(honest, 0.99):.2f} s, "
            f"at most {honest.max():.2f} s; {len(alive)} probes: "
            f"p99 {np.quantile(alive, 0.99):.3f} s, at most {alive.max():.3f} s; "
            f"memory {np.median(self.memory_mb):.0f} MB, at most {max(self.memory_mb):.0f} MB, "
            f"of the service alone {np.median(self.own_mb):.0f} and {max(self.own_mb):.0f} MB; "
            f"{dict(sorted(statuses.items()))}, {dict(self.reasons)}, {self.left} left"
        )


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """One connection, kept as long as the service keeps it."""

    def __init__(self, service: Service, ledger: Ledger) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LONG)
        self._ledger = ledger

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        headers = {"Content-Type": "application/octet-stream"} | headers
        self._connection.request(method, path, body or None, headers)
        response = self._connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        self._ledger.answered(method, path, answer.status, answer.body)
        return answer

    def close(self) -> None:
        self._connection.close()


# -- honest clients


class Visit(NamedTuple):
    """A request, and the likeliest breed of its answer when nobody does harm."""

    path: str
    accept: str
    photo: bytes
    breed: str
    probability: float


def visits(client: Client) -> list[Visit]:
    """Formats, endpoints and kinds of answers, in every combination."""
    photos = [
        encode(draw(), kind, **options)
        for kind, options in {
            "JPEG": {"quality": 90},
            "PNG": {},
            "WEBP": {"quality": 90},
            "HEIF": {"quality": 90},
            "AVIF": {"quality": 90, "speed": 8},
        }.items()
    ]
    targets = [
        ("/predict", "application/json"),
        ("/cam?overlay=false", "application/json"),
        ("/cam", "image/png"),
        ("/gradcam", "application/json"),
        ("/gradcam?layers=last6&method=layercam", "image/png"),
        ("/compare", "application/json"),
        ("/compare", "image/png"),
    ]
    breeds = []
    for photo in photos:
        best = json.loads(client.ask("POST", "/predict", photo).body)["predictions"][0]
        breeds.append((best["label"], best["probability"]))
    return [
        Visit(path, accept, photo, *best)
        for (path, accept), (photo, best) in product(targets, zip(photos, breeds, strict=True))
    ]


def check(visit: Visit, answer: Answer) -> None:
    """Rounding depends on the batch, so that probabilities differ a little."""
    if visit.accept == "image/png":
        assert answer.headers["BreedCAM-Target"] == visit.breed
        probability = float(answer.headers["BreedCAM-Probability"])
        assert pixels(answer.body).shape[2] == 3
    else:
        predictions = json.loads(answer.body)["predictions"]
        [probability] = [p["probability"] for p in predictions if p["label"] == visit.breed]
    assert probability == pytest.approx(visit.probability, abs=0.05)


def honest(client: Client, ledger: Ledger, visit: Visit) -> None:
    """One request, tried again where the service is full."""
    begun = time.monotonic()
    for _ in range(TRIES):
        answer = client.ask("POST", visit.path, visit.photo, Accept=visit.accept)
        if answer.status != 429:
            break
        ledger.retry()
        time.sleep(float(answer.headers["Retry-After"]))
    assert answer.status == 200, answer.body[:500]
    ledger.honest_s.append(time.monotonic() - begun)
    check(visit, answer)
    time.sleep(PAUSE_S)


# -- attackers


Step = Callable[[], None]
"""What an attacker does again and again."""


@dataclass
class Attackers:
    """All of `tests.app.attacks`. Together they open at most 400 connections at a time."""

    service: Service
    ledger: Ledger
    connect: Callable[[], Client]

    def steps(self) -> list[Step]:
        harmful = [make() for make in attacks.PHOTOS.values()]
        return [
            self.photos(harmful, "/gradcam", 0.0),
            self.photos(harmful, "/compare", 0.0),
            self.photos(attacks.broken(), "/predict", 0.1),
            self.hang_ups(attacks.PHOTOS["a PNG at the limit"]()),
            self.hung_up_uploads,
            self.slow_readers,
            self.slow_headers,
            # Slow bodies, and bodies that stop.
            self.uploads(20, attacks.upload("/predict", b"", 10_000), JPEG),
            self.uploads(8, attacks.upload("/predict", bytes(9_000_000), 10_000_000), b""),
            self.large_headers,
            self.connections,
        ]

    def photos(self, photos: list[bytes], path: str, rest_s: float) -> Step:
        client, turn = self.connect(), cycle(photos)

        def step() -> None:
            client.ask("POST", path, next(turn))
            time.sleep(rest_s)

        return step

    def hang_ups(self, photo: bytes) -> Step:
        def step() -> None:
            attacks.hang_up(self.service, UNCOUNTED, photo, after_s=0.15)
            self.ledger.leave()
            time.sleep(0.5)

        return step

    def hung_up_uploads(self) -> None:
        attacks.hung_up(self.service, 1, 10_000_000, UNCOUNTED)
        self.ledger.leave()
        time.sleep(0.5)

    def slow_readers(self) -> None:
        ends = attacks.slow_readers(self.service, 20, f"{UNCOUNTED}?size=1024", 15.0)
        self.ledger.leave(sum(ends.values()))  # those that are answered in the end, too
        assert ends["cut off"] >= 10, ends

    def slow_headers(self) -> None:
        header = b"GET /livez?" + b"a" * 100
        for answer in attacks.trickle(self.service, 40, b"", header, 0.5, 12.0):
            self.ledger.unread(answer, 408)

    def uploads(self, count: int, begin: bytes, rest: bytes) -> Step:
        def step() -> None:
            for answer in attacks.trickle(self.service, count, begin, rest, 0.5, 12.0):
                self.ledger.raw("POST", "/predict", answer)

        return step

    def large_headers(self) -> None:
        for flood in (attacks.long_header, attacks.many_fields):
            self.ledger.unread(flood(self.service, 2_000_000), 431)
        time.sleep(1.0)

    def connections(self) -> None:
        assert not attacks.flood(self.service, 250)  # closed without a word


# -- the soak


def soak(service: Service, ledger: Ledger, turn: list[Visit]) -> None:
    """Run all clients, each in a thread, until the time is over or one of them fails."""
    over = threading.Event()
    clients = ExitStack()

    def connect() -> Client:
        return clients.enter_context(closing(Client(service, ledger)))

    def repeat(step: Step) -> None:
        try:
            while not over.is_set():
                step()
        except BaseException:
            over.set()
            raise

    def visitor(number: int) -> Step:
        client = connect()
        order = cycle(random.Random(number).sample(turn, len(turn)))
        return lambda: honest(client, ledger, next(order))

    probe = connect()

    def alive() -> None:
        begun = time.monotonic()
        assert probe.ask("GET", "/livez").status == 200
        ledger.alive_s.append(time.monotonic() - begun)
        time.sleep(0.1)

    def weigh() -> None:
        pids = family(service.process.pid)
        ledger.memory_mb.append(resident_mb(pids))
        ledger.own_mb.append(resident_mb(pids[:1]))
        time.sleep(0.1)

    steps = [
        *Attackers(service, ledger, connect).steps(),
        *map(visitor, range(CLIENTS)),
        alive,
        weigh,
    ]
    with clients, ThreadPoolExecutor(len(steps)) as pool:
        runs = [pool.submit(repeat, step) for step in steps]
        over.wait(SOAK_S)
        over.set()
    for run in runs:
        run.result()


def at_rest(service: Service) -> Scrape:
    """The metrics when nothing is in work any more."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        metrics = Scrape(httpx.get(f"{service.url}/metrics", timeout=LONG).text)
        held = [metrics.value(f"breedcam_{name}") for name in ("held_bytes", "photos_in_work")]
        # This request is one.
        if held == [0, 0] and metrics.value("breedcam_requests_in_progress") == 1:
            return metrics
        time.sleep(0.1)
    pytest.fail("something is held although nobody waits for an answer")


def compare(ledger: Ledger, metrics: Scrape) -> None:
    """What the service counted beside what the clients did."""
    counted: dict[Any, float] = dict(
        metrics.by("breedcam_requests_total", "method", "route", "status")
    )
    answers = {
        (method, path, str(status)): count
        for (method, path, status), count in ledger.answers.items()
    }
    for path in (*COUNTED, "/livez"):
        assert {key: count for key, count in counted.items() if key[1] == path} == {
            key: count for key, count in answers.items() if key[1] == path
        }
    # A client that left was counted at most once, with a status that it did not see.
    within(
        {key: count for key, count in answers.items() if key[1] == UNCOUNTED},
        {key: count for key, count in counted.items() if key[1] == UNCOUNTED},
        ledger.left,
    )
    reasons = metrics.by("breedcam_rejections_total", "reason")
    within({(reason,): n for reason, n in ledger.reasons.items()}, reasons, ledger.left)
    photos = sum(
        n for (method, _, status), n in ledger.answers.items() if (method, status) == ("POST", 200)
    )
    classified = sum(metrics.by("breedcam_answers_total", "confidence").values())
    assert photos <= classified <= photos + ledger.left


def within(seen: dict[Any, Any], counted: Any, most_more: int) -> None:
    """Everything seen was counted, and at most so much more."""
    more = {key: counted.get(key, 0) - seen.get(key, 0) for key in {*seen, *counted}}
    assert min(more.values()) >= 0, more
    assert sum(more.values()) <= most_more, more


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 300)
def test_attacks_of_every_kind_beside_honest_clients(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        needs.absent("/proc, where memory is read")
    ledger = Ledger()
    # In 8-bit integers, which take less memory, drawings of which no breed is likely may change it.
    with serving(tmp_path, max_batch=8, precision=FLOAT) as service:
        with closing(Client(service, ledger)) as client:
            turn = visits(client)
            soak(service, ledger, turn)
        print(ledger)
        metrics = at_rest(service)
        compare(ledger, metrics)
        wait_for_memory(family(service.process.pid), AT_REST_MB[FLOAT])
        assert service.stop() == 0
        log = service.log.read_text()
    assert {status for _, _, status in ledger.answers} <= STATUSES
    assert "Traceback" not in log
    assert np.quantile(ledger.honest_s, 0.99) < P99_S
    assert np.quantile(ledger.alive_s, 0.99) < ALIVE_P99_S
    assert max(ledger.memory_mb) < MEMORY_MB
    assert max(ledger.own_mb) < OWN_MB
