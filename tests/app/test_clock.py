import time

import pytest

from app.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `time.monotonic` tells, in its only place."""
    told = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: told[0])
    return told


def test_time_runs_out_and_never_below_0(now: list[float]) -> None:
    clock = Clock(2.0)
    assert clock.remaining_s == 2.0
    now[0] += 0.5
    assert clock.remaining_s == 1.5
    now[0] += 9.0
    assert clock.remaining_s == 0.0


def test_what_is_no_lap_is_queue(now: list[float]) -> None:
    clock = Clock(30.0)
    with clock.lap("decode"):
        now[0] += 0.25
    now[0] += 1.0
    clock.laps_s["inference"] = 0.125  # measured elsewhere, within the second
    with clock.lap("render"):
        now[0] += 0.5
    told = clock.timings_ms
    assert told == {"decode": 250.0, "queue": 875.0, "inference": 125.0, "render": 500.0}
    assert list(told) == ["decode", "queue", "inference", "render"]


def test_laps_that_were_not_run_are_not_told(now: list[float]) -> None:
    clock = Clock(30.0)
    with clock.lap("decode"):
        now[0] += 0.0015
    assert clock.timings_ms == {"decode": 1.5, "queue": 0.0}


def test_waiting_is_never_negative(now: list[float]) -> None:
    clock = Clock(30.0)
    clock.laps_s["inference"] = 1.0  # as clocks of two threads may have it
    assert clock.timings_ms == {"queue": 0.0, "inference": 1000.0}
