import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.bundle import BundleError, ModelCard, find_version
from app.engines import Batch, Cut
from app.errors import EngineDown, EngineFailed, NotReady
from app.model import Classes, Model, Row
from app.service import Service
from app.settings import Settings
from app.watchdog import Watchdog
from tests.app.conftest import LONG, Arrays, Borrowed, Held, Painted
from tests.app.test_process import wait_for

pytestmark = pytest.mark.anyio

Make = Callable[..., Service]


def row(card: ModelCard, target: int = -1) -> Row:
    side = card.input.size
    return Row(np.zeros((side, side, 3), np.uint8), Classes(target))


# -- loading


def test_an_altered_model_is_not_loaded(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(find_version(settings.model_path), copy)
    altered = copy / "variables" / "variables.index"
    data = bytearray(altered.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(f"{altered} differs from its checksum")):
        Model.load(settings.model_copy(update={"model": copy}))


def test_loading_compiles_what_will_be_used(
    settings: Settings, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    requested: dict[str, object] = {}

    def create(_: object, **options: object) -> Borrowed:
        requested.update(options)
        return engine

    monkeypatch.setattr("app.engines.create", create)
    monkeypatch.setattr(engine, "warm_up", warmed.append)
    model = Model.load(settings.model_copy(update={"max_batch": 3, "threads": 1}))
    assert warmed == [3]
    assert requested == {
        "engine": "openvino",
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
    }
    assert not model.ready


# -- running


async def test_photos_are_batched_and_batches_are_observed(
    make_service: Make, engine: Borrowed, card: ModelCard
) -> None:
    painted = Painted(engine, card)
    model = make_service(engine=painted, max_batch=4, batch_wait_ms=1000).model
    sizes: list[int] = []
    model.observers.append(sizes.append)
    model.start()
    rows = [row(painted.card, target) for target in (3, -1, 5, 7)]
    outcomes = await asyncio.gather(*[model.run(Cut.EXPLAIN, [row]) for row in rows])
    assert await asyncio.to_thread(model.stop, LONG)
    assert sizes == [4]
    likeliest = len(painted.card.labels) - 1
    targets = [int(outcome.result["target_index"]) for [outcome] in outcomes]
    assert targets == [3, likeliest, 5, 7]


async def test_an_answer_that_is_not_finite_fails_its_own_photo(
    make_service: Make, engine: Borrowed, card: ModelCard
) -> None:
    class Spoilt(Painted):
        def run(self, cut: Cut, batch: Batch) -> Arrays:
            arrays = super().run(cut, batch)
            arrays["probabilities"][batch.class_index == 4, 1] = np.nan
            return arrays

    spoilt = Spoilt(engine, card)
    model = make_service(engine=spoilt, max_batch=2, batch_wait_ms=1000).model
    model.start()
    running = [model.run(Cut.EXPLAIN, [row(spoilt.card, target)]) for target in (2, 4)]
    sound, other = await asyncio.gather(*running, return_exceptions=True)
    assert not isinstance(sound, BaseException)
    assert isinstance(other, EngineFailed)
    assert await asyncio.to_thread(model.stop, LONG)


# -- two versions at a time


async def test_a_model_stops_by_itself_while_another_runs(
    make_service: Make, engine: Borrowed
) -> None:
    """What waits for the one is finished, and it takes no more; the other does not notice."""
    held = Held(engine)
    before, after = make_service(engine=held).model, make_service(engine=engine).model
    for model in (before, after):
        with pytest.raises(NotReady):
            await model.run(Cut.EXPLAIN, [row(model.card)])
        model.start()
    waiting = asyncio.create_task(before.run(Cut.EXPLAIN, [row(before.card)]))
    assert await asyncio.to_thread(held.busy.wait, LONG)
    stopping = asyncio.create_task(asyncio.to_thread(before.stop, LONG))
    await asyncio.to_thread(wait_for, lambda: not before.ready)
    with pytest.raises(NotReady):
        await before.run(Cut.EXPLAIN, [row(before.card)])
    [expected] = await after.run(Cut.EXPLAIN, [row(after.card)])
    assert not stopping.done()
    held.go.set()
    [outcome] = await waiting
    np.testing.assert_allclose(outcome.result["logits"], expected.result["logits"], rtol=1e-5)
    assert await stopping
    before.close()
    assert held.closed
    assert after.ready
    assert await asyncio.to_thread(after.stop, LONG)


async def test_a_model_that_hangs_is_given_up_and_another_is_not(
    make_service: Make, engine: Borrowed
) -> None:
    held = Held(engine)
    hanging, other = make_service(engine=held).model, make_service().model
    watchdog = Watchdog(limit_s=0.1)
    async with watchdog.watching(None):
        for model in (hanging, other):
            watchdog.watch(model.worker)
            model.start()
        with pytest.raises(EngineDown, match=r"has not answered for 0\.1 s"):
            await hanging.run(Cut.EXPLAIN, [row(hanging.card)])
        with pytest.raises(EngineDown):
            hanging.check_alive()
        other.check_alive()
        assert (hanging.ready, other.ready) == (False, True)
        assert not await asyncio.to_thread(hanging.stop, 0.01)
        held.go.set()
        for model in (hanging, other):
            assert await asyncio.to_thread(model.stop, LONG)
