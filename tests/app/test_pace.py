"""`app.pace` on an event loop whose clock the test sets."""

import asyncio
from collections.abc import Callable

import pytest

from app.pace import MIN_RATE, Pace

pytestmark = pytest.mark.anyio

PERIOD_S = 2.0
ENOUGH = int(MIN_RATE * PERIOD_S)
"""Bytes in a period."""

Clock = Callable[[float], None]


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time of the running loop, 100 s at first."""

    def show(now: float) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    show(100.0)
    return show


async def test_a_client_has_a_period_for_its_bytes(clock: Clock) -> None:
    pace = Pace(PERIOD_S)
    assert pace.until == 102.0
    clock(101.0)
    pace.move(ENOUGH - 1)
    assert (pace.until, pace.moved_at) == (102.0, 101.0)
    clock(101.5)
    pace.move(1)
    assert (pace.until, pace.moved_at) == (103.5, 101.5)


async def test_bytes_count_for_one_period_only(clock: Clock) -> None:
    pace = Pace(PERIOD_S)
    pace.move(10 * ENOUGH)
    clock(101.0)
    pace.move(ENOUGH - 1)
    assert pace.until == 102.0


async def test_nothing_is_no_movement(clock: Clock) -> None:
    pace = Pace(PERIOD_S)
    clock(101.0)
    pace.move(0)
    pace.move(-5)  # more was written meanwhile than was taken
    assert (pace.until, pace.moved_at) == (102.0, 100.0)
