"""Engines that hang or die, in a service that is a process of its own."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import JPEG, problem
from tests.app.services import LONG, Service, serving

FAULTY = """
import ctypes, runpy, sys, time
from app.engines.openvino import OpenVINOEngine
from app.explainer import Explainer

def faulty_call():
    print("the faulty call begins", file=sys.stderr, flush=True)
    if sys.argv[1] == "sleeps":
        time.sleep(600)
    elif sys.argv[1] == "holds the GIL":
        ctypes.PyDLL(None).sleep(600)
    else:
        raise SystemExit(3)

def run(self, cut, batch, honest=OpenVINOEngine.run):
    if 7 in batch.class_index:
        faulty_call()
    return honest(self, cut, batch)

OpenVINOEngine.run = run
Explainer.describe = lambda self: time.sleep(600)  # on the event loop
runpy.run_module("app.main", run_name="__main__")
"""

STUCK_S = 4
"""Far more than a busy machine keeps an event loop waiting, and far less than the faults last."""

HEADERS = {"Content-Type": "image/jpeg"}


def post(service: Service, path: str) -> httpx.Response:
    return httpx.post(f"{service.url}{path}", content=JPEG, headers=HEADERS, timeout=LONG)


def in_background(call: Callable[[], httpx.Response]) -> Future[httpx.Response]:
    """A call whose answer may never come: its thread keeps nothing from ending."""
    future: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except httpx.HTTPError as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def health(service: Service) -> list[tuple[int, int]]:
    """Statuses of `/livez` and `/readyz` until the process is gone."""
    seen: list[tuple[int, int]] = []
    with httpx.Client(base_url=service.url, timeout=LONG) as client:
        try:
            while True:
                seen.append((client.get("/livez").status_code, client.get("/readyz").status_code))
                time.sleep(0.02)
        except httpx.HTTPError:
            return seen


def wait_for_the_faulty_call(service: Service) -> None:
    until = time.monotonic() + LONG
    while "the faulty call begins" not in service.log.read_text():
        assert time.monotonic() < until, service.log.read_text()
        time.sleep(0.01)


def ends(service: Service) -> None:
    """Wait for the end of the process, with status 1: the faults would last ten times as long."""
    assert service.process.wait(LONG) == 1, service.log.read_text()


@pytest.mark.slow
def test_a_call_that_hangs_ends_the_process(tmp_path: Path) -> None:
    with serving(tmp_path, "-c", FAULTY, "sleeps", stuck_s=STUCK_S) as service:
        assert post(service, "/cam?overlay=false").status_code == 200
        hanging = in_background(lambda: post(service, "/cam?target=7&overlay=false"))
        wait_for_the_faulty_call(service)
        behind = in_background(lambda: post(service, "/predict"))
        seen = health(service)
        ends(service)
        answers = [call.result(LONG) for call in (hanging, behind)]
        log = service.log.read_text()
    for answer in answers:
        assert f"has not answered for {STUCK_S} s" in problem(answer, 503, "engine-down")
        assert int(answer.headers["Retry-After"]) > 0
    assert seen[0] == (200, 200)
    assert seen[-1] == (503, 503)
    [line] = [line for line in log.splitlines() if " CRITICAL " in line]
    assert line.endswith(
        f"The model has not answered for {STUCK_S} s. The service has to be restarted."
    )
    assert "in faulty_call" in log  # where it hangs


@pytest.mark.slow
def test_a_call_that_hangs_with_the_gil_ends_the_process(tmp_path: Path) -> None:
    """Then not one line of Python runs any more: neither a thread nor a signal's handler."""
    with serving(tmp_path, "-c", FAULTY, "holds the GIL", stuck_s=STUCK_S) as service:
        in_background(lambda: post(service, "/cam?target=7"))
        wait_for_the_faulty_call(service)
        service.process.send_signal(signal.SIGTERM)
        ends(service)
        log = service.log.read_text()
    assert f"Timeout (0:00:0{STUCK_S})!" in log
    assert "in faulty_call" in log


@pytest.mark.slow
def test_a_thread_that_dies_ends_the_process(tmp_path: Path) -> None:
    with serving(tmp_path, "-c", FAULTY, "dies", stuck_s=60) as service:
        answer = post(service, "/cam?target=7")
        seen = health(service)
        ends(service)
        log = service.log.read_text()
    assert "has died" in problem(answer, 503, "engine-down")
    assert seen[-1] == (503, 503)
    assert log.count(" CRITICAL ") == 1
    assert "SystemExit: 3" in log


@pytest.mark.slow
def test_an_event_loop_that_hangs_ends_the_process(tmp_path: Path) -> None:
    with serving(tmp_path, "-c", FAULTY, "sleeps", stuck_s=STUCK_S) as service:
        in_background(lambda: httpx.get(f"{service.url}/model", timeout=LONG))
        ends(service)
        assert f"Timeout (0:00:0{STUCK_S})!" in service.log.read_text()


@pytest.mark.slow
def test_a_signal_ends_a_service_whose_model_hangs(tmp_path: Path) -> None:
    """After the deadline of those that wait, however long a call may take."""
    with serving(tmp_path, "-c", FAULTY, "sleeps", stuck_s=3600, deadline_s=2) as service:
        answer = post(service, "/cam?target=7")
        problem(answer, 504, "deadline-exceeded")
        service.process.send_signal(signal.SIGINT)
        ends(service)
        assert "did not stop in time" in service.log.read_text()


@pytest.mark.slow
def test_honest_calls_go_on_for_longer_than_one_may_take(tmp_path: Path) -> None:
    with serving(tmp_path, stuck_s=STUCK_S, max_batch=4) as service:
        until = time.monotonic() + STUCK_S + 2
        with ThreadPoolExecutor(4) as pool:
            while time.monotonic() < until:
                statuses = pool.map(lambda _: post(service, "/compare").status_code, range(8))
                assert set(statuses) == {200}
        assert service.stop() == 0
