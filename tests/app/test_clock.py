import asyncio
import time

import pytest

from app.clock import Clock, deadline
from app.errors import DeadlineExceeded

LONG = 20.0
"""Seconds; a test that comes near it has failed."""


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
    clock.laps_s["inference"] = 0.125  # measured elsewhere, within the second
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
    clock.laps_s["inference"] = 1.0  # as clocks of two threads may have it
    assert clock.timings_ms == {"queue": 0.0, "inference": 1000.0}


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
