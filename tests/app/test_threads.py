import asyncio
import threading
from contextlib import suppress

import pytest

from app.threads import Threads
from tests.app.conftest import LONG

pytestmark = pytest.mark.anyio


async def test_steps_run_beside_the_event_loop() -> None:
    threads = Threads(2, "step")
    meet = threading.Barrier(2)  # neither passes it alone

    def step(number: int, *, factor: int) -> tuple[int, str]:
        meet.wait(LONG)
        return number * factor, threading.current_thread().name

    results = await asyncio.gather(*[threads.run(step, number, factor=10) for number in (1, 2)])
    threads.stop()
    assert [result for result, _ in results] == [10, 20]
    assert len({name for _, name in results}) == 2
    assert all(name.startswith("step") for _, name in results)


async def test_an_error_is_the_callers() -> None:
    threads = Threads(1, "step")
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    threads.stop()


async def test_a_cancelled_step_never_begins_or_is_waited_for() -> None:
    threads = Threads(1, "step")
    busy, go = threading.Event(), threading.Event()
    steps: list[str] = []

    def step(name: str) -> None:
        steps.append(name)
        busy.set()
        assert go.wait(LONG)

    running = asyncio.create_task(threads.run(step, "running"))
    assert await asyncio.to_thread(busy.wait, LONG)
    waiting = asyncio.create_task(threads.run(step, "waiting"))
    await asyncio.sleep(0)
    for task in (running, waiting):
        task.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert not running.done()  # its thread still holds what it works on
    running.cancel()
    await asyncio.sleep(0.01)
    assert not running.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await threads.run(step, "next")
    threads.stop()
    assert steps == ["running", "next"]
