"""Replicas under Ray Serve: on two nodes, behind Ray's proxies, while one of them is killed."""

import importlib.util
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.settings import PROJECT, Settings
from benchmarks.protocol import Worker
from benchmarks.services import free_port
from tests import needs
from tests.app.conftest import JPEG, problem, untimed
from tests.app.services import LONG, serving

KEY = "correct-horse-battery-staple"
PENDING = 4
"""Requests that a replica has in work at once; as many wait in each proxy."""

SETTINGS = {
    "api_keys": KEY,
    "decoders": 1,
    "engine": "openvino",
    "max_batch": 1,
    "max_bytes": 1_000_000,
    "max_pending": PENDING,
    "precision": "float32",
}
HEADERS = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {KEY}"}


@dataclass
class Nodes:
    """A cluster with two nodes, and a replica on each."""

    worker: Worker
    ports: tuple[int, int]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def replicas(self) -> dict[int, str]:
        """The node of each replica, by the number of its process."""
        return {replica["pid"]: replica["node"] for replica in self.worker.ask("replicas")}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if importlib.util.find_spec("ray") is None:
        needs.absent("Ray, which requirements/dev.txt has")
    ports = free_port(), free_port()
    variables: Any = {f"BREEDCAM_{name.upper()}": str(value) for name, value in SETTINGS.items()}
    with Worker("benchmarks.workers.cluster", "1", *map(str, ports), **variables) as worker:
        try:
            worker.ask("deploy", num_replicas=2)
            yield Nodes(worker, ports)
        finally:
            worker.ask("stop")


def gradcam(url: str, client: httpx.Client | None = None) -> httpx.Response:
    post = client.post if client else httpx.post
    return post(f"{url}/gradcam", content=JPEG, headers=HEADERS, timeout=LONG)


@dataclass
class Load:
    """What clients have been answered, and what has gone wrong otherwise."""

    answers: list[httpx.Response] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def wait_for(self, count: int) -> None:
        """Until there are so many more answers."""
        wanted, until = len(self.answers) + count, time.monotonic() + LONG
        while len(self.answers) < wanted:
            assert time.monotonic() < until, (self.statuses, self.faults)
            time.sleep(0.01)


@contextmanager
def load(urls: list[str], clients: int) -> Iterator[Load]:
    """Clients that send one request after the other while the block runs."""
    measured, stop = Load(), threading.Event()

    def run(url: str) -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                try:
                    measured.answers.append(answer := gradcam(url, client))
                except httpx.HTTPError as error:
                    measured.faults.append(repr(error))
                    return
                if answer.status_code == 429:
                    stop.wait(0.1)

    threads = [
        threading.Thread(target=run, args=[urls[number % len(urls)]]) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield measured
    finally:
        stop.set()
        for thread in threads:
            thread.join(LONG)
    assert not measured.faults
    assert not any(thread.is_alive() for thread in threads)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture
def serve() -> Any:
    """The module, which needs Ray."""
    try:
        return importlib.import_module("app.ray_serve")
    except ModuleNotFoundError:
        needs.absent("Ray, which requirements/dev.txt has")


def test_a_deployments_options_follow_the_settings(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREEDCAM_MAX_PENDING", "7")
    monkeypatch.setenv("BREEDCAM_DEADLINE_S", "1.5")
    deployment = serve.build({})._bound_deployment
    assert deployment.name == serve.NAME
    assert deployment.max_ongoing_requests == 7
    assert deployment.max_queued_requests == 7
    assert deployment._deployment_config.graceful_shutdown_timeout_s > 1.5 + 1
    with pytest.raises(ValueError, match="BREEDCAM_"):
        serve.build({"max_pending": "7"})


@pytest.mark.parametrize(
    ("threads", "cpus", "expected"), [(0, 2.0, 2), (0, 0.5, 1), (0, 3.6, 4), (5, 2.0, 5)]
)
def test_a_replica_has_a_thread_for_each_cpu(
    serve: Any, threads: int, cpus: float, expected: int
) -> None:
    settings = serve.replica_settings(Settings(threads=threads), cpus)
    assert settings.threads == expected
    assert not settings.metrics


def test_the_configuration_file_is_one_of_rays(serve: Any) -> None:
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load((PROJECT / "docs" / "ray" / "serve.yaml").read_text())
    [application] = ServeDeploySchema(**document).applications
    assert application.import_path == "app.ray_serve:build"
    assert [deployment.name for deployment in application.deployments] == [serve.NAME]
    variables = application.runtime_env["env_vars"]
    assert not Settings.unknown(variables)
    assert all(isinstance(value, str) for value in variables.values())


@pytest.mark.slow
def test_a_replica_on_each_node_answers_as_the_service_does(nodes: Nodes, tmp_path: Path) -> None:
    replicas = nodes.replicas()
    assert len(replicas) == len(set(replicas.values())) == 2
    with serving(tmp_path, **SETTINGS) as service:
        expected = untimed(gradcam(service.url).json())
    for url in nodes.urls:
        for _ in range(6):  # by either replica
            answer = gradcam(url)
            assert answer.status_code == 200
            assert untimed(answer.json()) == expected
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.headers.get_list("X-Request-ID")) == 1
    named = httpx.get(f"{nodes.urls[0]}/model", headers=HEADERS | {"X-Request-ID": "mine"})
    assert named.headers.get_list("X-Request-ID") == ["mine"]
    # Of one replica or another, they would be worth nothing.
    problem(httpx.get(f"{nodes.urls[0]}/metrics", headers=HEADERS), 404, "not-found")


@pytest.mark.slow
def test_the_proxies_keep_the_limits(nodes: Nodes) -> None:
    for port, url in zip(nodes.ports, nodes.urls, strict=True):
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as plug:
            plug.sendall(
                f"POST /cam HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
                "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert plug.recv(65536).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as plug:
            plug.sendall(b"GET / HTTP/1.1\r\n" + b"X-Padding: 0123456789\r\n" * 3000)
            assert plug.recv(65536).startswith(b"HTTP/1.1 431 ")
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as plug:
            plug.sendall(b"POST /cam HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
            assert plug.recv(65536).startswith(b"HTTP/1.1 401 ")  # before there is a body
        chunks = iter([bytes(100_000)] * 30)
        problem(
            httpx.post(f"{url}/cam", content=chunks, headers=HEADERS, timeout=LONG),
            413,
            "too-many-bytes",
        )
        problem(
            httpx.post(
                f"{url}/cam",
                content=b"x",
                headers=HEADERS | {"Content-Type": "text/plain"},
                timeout=LONG,
            ),
            415,
            "unsupported-media-type",
        )


@pytest.mark.slow
def test_more_than_there_are_places_for_is_refused(nodes: Nodes) -> None:
    with load(nodes.urls, clients=10 * PENDING) as measured:
        measured.wait_for(200)
    assert set(measured.statuses) == {200, 429}
    for answer in measured.answers:
        if answer.status_code == 429:
            problem(answer, 429, "queue-full")
            assert answer.headers["Retry-After"] == "1"


@pytest.mark.slow
def test_every_request_is_answered_while_a_replica_is_killed(nodes: Nodes) -> None:
    before = nodes.replicas()
    killed = min(before)
    with load(nodes.urls, clients=2 * PENDING) as measured:
        measured.wait_for(40)
        os.kill(killed, signal.SIGKILL)
        measured.wait_for(100)
    wait_for(lambda: len(nodes.replicas().keys() - {killed}) == 2)  # Ray starts another
    with load(nodes.urls, clients=PENDING) as after:
        after.wait_for(40)
    assert set(measured.statuses) <= {200, 429, 503}
    assert measured.statuses[200] > 100
    for answer in measured.answers:
        if answer.status_code == 429:
            problem(answer, 429, "queue-full")
        if answer.status_code == 503:
            problem(answer, 503, answer.json()["type"].rpartition(":")[2])
            assert "Retry-After" in answer.headers
    assert set(after.statuses) == {200}
    assert len(set(nodes.replicas().values())) == 2


@pytest.mark.slow
def test_every_request_is_answered_while_a_replica_is_taken_away(nodes: Nodes) -> None:
    with load(nodes.urls, clients=PENDING) as measured:
        measured.wait_for(20)
        nodes.worker.ask("deploy", num_replicas=1)
        measured.wait_for(20)
    assert set(measured.statuses) == {200}
