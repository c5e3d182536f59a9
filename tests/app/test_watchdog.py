import asyncio
import logging
import threading
import time
from collections.abc import Sequence

import pytest

from app.batching import Batcher
from app.errors import EngineDown
from app.watchdog import Watchdog
from tests.app.conftest import LONG

pytestmark = pytest.mark.anyio


async def test_work_that_hangs_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    """In a process of another's, which is left alive; `test_stuck` has the service's own."""
    go = threading.Event()

    def work(key: str, items: Sequence[int]) -> list[int]:
        assert go.wait(LONG)
        return list(items)

    batcher: Batcher[str, int, int] = Batcher(work, max_batch=1, max_pending=9)
    batcher.start()
    watchdog = Watchdog(limit_s=0.1)
    watchdog.watch(batcher)
    async with watchdog.watching(None):
        begun = time.monotonic()
        outcomes = await asyncio.gather(
            *[batcher.submit("a", [item]) for item in range(3)], return_exceptions=True
        )
        took = time.monotonic() - begun
    assert [type(outcome) for outcome in outcomes] == [EngineDown] * 3
    assert 0.1 <= took < LONG
    [line] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "has not answered for 0.1 s" in line.getMessage()
    go.set()
    assert await asyncio.to_thread(batcher.stop)
