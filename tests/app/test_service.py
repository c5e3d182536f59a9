import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest

from app.decoding import Decoders
from app.engines import Batch, Cut
from app.errors import NotReady
from app.explainer import Explainer
from app.model import Model
from app.schemas import GradcamQuery, PredictQuery
from app.service import Service
from app.settings import Settings
from tests.app.conftest import JPEG, LONG, Arrays, Borrowed, Held
from tests.app.exposition import Scrape
from tests.app.test_process import wait_for

pytestmark = pytest.mark.anyio

Make = Callable[..., Service]


async def ask(explainer: Explainer) -> int:
    """The number of predictions."""
    with explainer.admission.admit():
        answer = await explainer.explain(JPEG, GradcamQuery(overlay=False))
        return len(answer.response.predictions)


async def test_a_service_from_the_disk_is_warm_before_its_first_request(
    settings: Settings, shipped: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Cut] = []

    class Listening(Borrowed):
        def run(self, cut: Cut, batch: Batch) -> Arrays:
            cuts.append(cut)
            return super().run(cut, batch)

    monkeypatch.setattr("app.engines.create", lambda *_, **__: Listening(shipped.engine))
    service = Service.open(settings)
    async with service.running() as explainer:
        assert set(cuts) == {Cut.EXPLAIN, Cut.EXPLAIN_DEEP}
        count = len(cuts)
        await explainer.predict(JPEG, PredictQuery())
        assert len(cuts) == count + 1
        body, _ = service.metrics.expose("text/plain")
    # What warms it up is no client's.
    counted = Scrape(body.decode())
    assert counted.value("breedcam_batch_size_count") == 1
    assert sum(counted.by("breedcam_answers_total", "confidence").values()) == 1


async def test_the_decoders_are_killed_before_the_process_ends(
    make_service: Make, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is busy would live on for seconds."""
    steps: list[str] = []
    monkeypatch.setattr(decoders, "kill", lambda: steps.append("kill"))
    service = make_service()
    monkeypatch.setattr(service, "stop", lambda: False)  # the model hangs
    async with service.running(lambda: steps.append("end")):
        pass
    assert steps == ["kill", "end"]
    monkeypatch.undo()
    assert await asyncio.to_thread(service.stop)


async def test_stopping_finishes_what_waits_and_takes_no_more(
    make_service: Make, engine: Borrowed
) -> None:
    held = Held(engine)
    service = make_service(engine=held)
    explainer = service.explainer
    with pytest.raises(NotReady):
        await ask(explainer)
    service.start()
    assert service.ready
    running = asyncio.create_task(ask(explainer))
    assert await asyncio.to_thread(held.busy.wait, LONG)
    stopping = asyncio.create_task(asyncio.to_thread(service.stop))
    await asyncio.to_thread(wait_for, lambda: not service.ready)
    with pytest.raises(NotReady):
        await ask(explainer)
    assert not held.closed
    held.go.set()
    assert await running == 5
    await stopping
    assert held.closed


async def test_a_call_that_has_run_for_long_has_the_time_that_is_left(
    make_service: Make, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop ends at one time, counted from the signal on, however long calls have run."""
    held = Held(engine)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr("app.batching.time", clock)
    monkeypatch.setattr("app.service.time", clock)
    service = make_service(engine=held, deadline_s=30.0)
    service.start()
    running = asyncio.create_task(ask(service.explainer))
    assert await asyncio.to_thread(held.busy.wait, LONG)
    service.begin_stop()
    clock.monotonic = lambda: time.monotonic() + 30  # to the deadline
    stopping = asyncio.create_task(asyncio.to_thread(service.stop))
    await asyncio.to_thread(wait_for, lambda: not service.ready)
    held.go.set()
    assert await stopping
    assert await running == 5


async def test_what_else_has_taken_time_is_the_stops(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a rating whose file is locked."""
    clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=time.sleep)
    service, patience = make_service(deadline_s=30.0), list[float]()
    monkeypatch.setattr("app.service.time", clock)

    def stop(patience_s: float) -> bool:
        patience.append(patience_s)
        return True

    monkeypatch.setattr(service.model, "stop", stop)
    assert service.begin_stop() == 30
    for after, left in [(10.0, 25.0), (30.0, 5.0), (34.0, 1.0), (40.0, 0.5)]:
        monkeypatch.setattr(clock, "monotonic", partial(float, 100 + after))
        assert service.stop()
        assert patience[-1] == left


async def test_threads_end_with_the_service(make_service: Make) -> None:
    def names() -> list[str]:
        kinds = ("inference", "image")
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(kinds)]

    before = names()
    async with make_service().running() as explainer:
        await ask(explainer)
        assert len(names()) > len(before)
    assert names() == before
