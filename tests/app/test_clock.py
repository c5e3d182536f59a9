import asyncio
import time

import pytest

from app.clock import Clock, deadline
from app.errors import DeadlineExceeded
from tests.app.conftest import LONG


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `time.monotonic` returns, in its only place."""
    seconds = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_what_is_no_lap_is_queue(now: list[float]) -> None:
    clock = Clock()
    with clock.lap("decode"):
        now[0] += 0.25
    now[0] += 1.0
    clock.add("inference", now[0] - 0.5, now[0] - 0.375)  # measured elsewhere
    with clock.lap("render"):
        now[0] += 0.5
    timings = clock.timings_ms
    assert timings == {"decode": 250.0, "queue": 875.0, "inference": 125.0, "render": 500.0}
    assert list(timings) == ["decode", "queue", "inference", "render"]


def test_laps_that_were_not_run_are_absent(now: list[float]) -> None:
    clock = Clock()
    with clock.lap("decode"):
        now[0] += 0.0015
    assert clock.timings_ms == {"decode": 1.5, "queue": 0.0}


def test_waiting_is_never_negative(now: list[float]) -> None:
    clock = Clock()
    clock.add("inference", now[0] - 1.0, now[0])  # as clocks of two threads may have it
    assert clock.timings_ms == {"queue": 0.0, "inference": 1000.0}


def test_a_part_that_fails_is_timed_too(now: list[float]) -> None:
    clock = Clock()

    def fail() -> None:
        now[0] += 2.0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), clock.lap("decode"):
        fail()
    assert clock.stages_s == {"decode": 2.0, "queue": 0.0}


def test_laps_cover_the_time_without_gaps_or_overlaps(now: list[float]) -> None:
    clock = Clock()
    now[0] += 1.0
    with clock.lap("decode"):
        now[0] += 2.0
    clock.add("inference", 107.0, 108.0)
    now[0] = 108.0
    with clock.lap("render"):
        now[0] += 4.0
    now[0] += 0.5
    clock.stop()
    now[0] += 99.0
    laps = [(lap.name, lap.begun, lap.ended) for lap in clock.laps]
    assert laps == [
        ("queue", 100.0, 101.0),
        ("decode", 101.0, 103.0),
        ("queue", 103.0, 107.0),
        ("inference", 107.0, 108.0),
        ("render", 108.0, 112.0),
        ("queue", 112.0, 112.5),
    ]
    assert clock.stages_s == {"decode": 2.0, "queue": 5.5, "inference": 1.0, "render": 4.0}


def test_the_clock_of_an_answer_stands_still(now: list[float]) -> None:
    """So that the metrics have the times that the answer states."""
    clock = Clock()
    now[0] += 1.0
    assert clock.timings_ms == {"queue": 1000.0}
    now[0] += 1.0
    clock.stop()
    assert clock.timings_ms == {"queue": 1000.0}


class TestDeadline:
    pytestmark = pytest.mark.anyio

    @pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
    async def test_cancels_what_is_awaited(self, seconds: float) -> None:
        cancelled: list[asyncio.CancelledError] = []

        async def wait() -> None:
            async with deadline(seconds):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as error:
                    cancelled.append(error)
                    raise

        with pytest.raises(DeadlineExceeded, match=f"within {seconds:g} s"):
            await wait()
        assert len(cancelled) == 1

    async def test_what_ends_in_time_is_left_alone(self) -> None:
        async with deadline(LONG):
            await asyncio.sleep(0)

    async def test_another_timeout_is_none_of_its_own(self) -> None:
        with pytest.raises(TimeoutError):
            async with deadline(LONG):
                raise TimeoutError

    async def test_a_caller_that_is_cancelled_stays_so(self) -> None:
        async def wait() -> None:
            async with deadline(LONG):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
