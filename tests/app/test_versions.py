"""Versions that come and go under a service, with painted engines; `test_versions_process` has real
ones."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from app.bundle import Bundle, Input, ModelCard, checksums
from app.decoding import Decoders
from app.engines import Batch, Cut
from app.errors import EngineDown, EngineUnavailable, NotReady
from app.model import Model
from app.schemas import PredictQuery
from app.service import Service
from app.settings import Settings
from app.versions import Versions
from tests.app.conftest import JPEG, LONG, Arrays, Borrowed, Painted, Serve, ask, post
from tests.app.exposition import scrape
from tests.app.test_process import wait_for

pytestmark = pytest.mark.anyio


class Gated(Painted):
    """Painted, and waits for leave before each batch, once it is shut."""

    def __init__(self, engine: Borrowed, card: ModelCard) -> None:
        super().__init__(engine, card)
        self.busy, self.go = threading.Event(), threading.Event()
        self.go.set()

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        if not self.go.is_set():
            self.busy.set()
            assert self.go.wait(LONG)
        return super().run(cut, batch)


class NotFinite(Gated):
    """Its logits are no numbers."""

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        arrays = super().run(cut, batch)
        return arrays | {"logits": np.full_like(arrays["logits"], np.nan)}


class Shut(Gated):
    """Hangs from its first batch on."""

    def __init__(self, engine: Borrowed, card: ModelCard) -> None:
        super().__init__(engine, card)
        self.go.clear()


class Slow(Gated):
    """Takes half a second for a batch."""

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        time.sleep(0.5)
        return super().run(cut, batch)


class Shelf:
    """A model's folder, and the engines that its versions were loaded on.

    Attributes:
        folder: `models/<name>`.
        engines: by version.
        make: makes the next one's.
    """

    def __init__(self, folder: Path, card: ModelCard, engine: Borrowed) -> None:
        self.folder = folder
        self.engines: dict[int, Gated] = {}
        self.make: Callable[[Borrowed, ModelCard], Gated] = Gated
        self._card = card.replace(input=Input(size=224))
        self._engine = engine

    def put(self, version: int) -> Path:
        path = self.folder / str(version)
        (path / "variables").mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(b"graph %d" % version)
        (path / "variables" / "variables.index").write_bytes(b"weights %d" % version)
        self._card.replace(version=version, checksums=checksums(path)).write(path)
        return path

    def remove(self, version: int) -> None:
        path = self.folder / str(version)
        path.rename(path.with_name(f"removed-{version}"))

    def create(self, bundle: Bundle, **_: object) -> Gated:
        engine = self.make(self._engine, bundle.card)
        self.engines[bundle.card.version] = engine
        return engine


@pytest.fixture
def shelf(
    tmp_path: Path, uncalibrated: ModelCard, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """With version 1."""
    shelf = Shelf(tmp_path / "dogs", uncalibrated, engine)
    monkeypatch.setattr("app.engines.create", shelf.create)
    shelf.put(1)
    return shelf


Open = Callable[..., Service]


@pytest.fixture
def open_service(shelf: Shelf, settings: Settings, decoders: Decoders) -> Open:
    """`open_service(**settings)`: of the newest version; it looks for others when it is asked."""

    def opened(**changes: object) -> Service:
        changed = settings.model_copy(
            update={"model": shelf.folder, "model_poll_s": 0.0, **changes}
        )
        return Service(Model.load(changed), changed, decoders=decoders)

    return opened


async def version(client: httpx.AsyncClient) -> int:
    """That answers; `/model` has the same."""
    answered: int = (await ask(client, "/gradcam"))["model"]["version"]
    assert (await client.get("/model")).json()["version"] == answered
    return answered


async def explain(service: Service) -> None:
    with service.explainer.held() as explainer:
        await explainer.predict(JPEG, PredictQuery())


async def loads(client: httpx.AsyncClient) -> dict[str, float]:
    counted = (await scrape(client)).by("breedcam_model_loads_total", "result")
    return {result: count for (result,), count in counted.items()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Of the module, in order."""
    return [
        record
        for record in caplog.records
        if record.name == "app.versions" and record.levelno == logging.WARNING
    ]


async def until_served(service: Service, version: int) -> None:
    await asyncio.to_thread(wait_for, lambda: service.model.card.version == version)


# -- a version that is added


async def test_a_newer_version_is_served_when_its_files_are_at_rest(
    shelf: Shelf, open_service: Open, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service()
    versions = Versions(service)
    async with serve(service) as client:
        first = (await client.get("/model")).json()
        assert await version(client) == 1
        path = shelf.put(2)
        await versions.look()  # it may still be being copied
        (path / "variables" / "more").write_bytes(b"")
        await versions.look()  # it is
        (path / "variables" / "more").unlink()
        await versions.look()
        assert list(shelf.engines) == [1]
        asked = datetime.now(UTC)
        with caplog.at_level(logging.INFO):
            await versions.look()
        assert await version(client) == 2
        second = (await client.get("/model")).json()
        counted = await scrape(client)
        assert await loads(client) == {"served": 1}
        await versions.look()
        assert list(shelf.engines) == [1, 2]
    assert shelf.engines[1].closed
    first_since, second_since = (
        datetime.fromisoformat(model["since"]) for model in (first, second)
    )
    assert first_since.tzinfo is not None
    assert first_since < asked <= second_since <= datetime.now(UTC)
    assert counted.by("breedcam_model_info", "version") == {("2",): 1}
    assert counted.value("breedcam_ready") == 1
    # What warms it up is no client's.
    assert counted.value("breedcam_batch_size_count") == 2
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("app.")]
    assert f"loading {path} beside version 1, which serves meanwhile" in lines
    assert any("version 2" in line for line in lines)
    assert "version 1 has answered its last request and is freed" in lines


async def test_a_request_is_answered_by_the_version_that_has_begun_it(
    shelf: Shelf, open_service: Open, serve: Serve
) -> None:
    service = open_service()
    versions = Versions(service)
    async with serve(service) as client:
        before = shelf.engines[1]
        before.go.clear()
        begun = asyncio.create_task(ask(client, "/compare"))
        assert await asyncio.to_thread(before.busy.wait, LONG)
        shelf.put(2)
        looking = asyncio.create_task(versions.look(asked=True))
        await until_served(service, 2)
        assert await version(client) == 2
        assert not begun.done()
        assert not looking.done()
        assert not before.closed
        before.go.set()
        assert (await begun)["model"]["version"] == 1
        await looking
        assert before.closed


async def test_an_upload_that_outlasts_a_version_is_answered_by_the_next(
    shelf: Shelf, open_service: Open, serve: Serve
) -> None:
    service = open_service()
    versions = Versions(service)
    sending, rest = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield JPEG[:100]
        sending.set()
        await rest.wait()
        yield JPEG[100:]

    async with serve(service) as client:
        slow = asyncio.create_task(post(client, "/predict", body()))
        await sending.wait()
        shelf.put(2)
        await versions.look(asked=True)
        assert shelf.engines[1].closed  # it does not wait for a client that sends nothing
        rest.set()
        assert (await slow).json()["model"]["version"] == 2


async def test_versions_are_watched(shelf: Shelf, open_service: Open, serve: Serve) -> None:
    service = open_service(model_poll_s=0.02)
    async with serve(service) as client:
        for added in (2, 10):  # by number, not by name
            shelf.put(added)
            await until_served(service, added)
            assert await version(client) == added


# -- a version that is removed


async def test_the_newest_that_remains_is_served(
    shelf: Shelf, open_service: Open, serve: Serve
) -> None:
    """So an operator rolls back. Where none remains, the one in service serves on."""
    shelf.put(2)
    service = open_service()
    versions = Versions(service)
    async with serve(service) as client:
        assert await version(client) == 2
        shelf.remove(2)
        for _ in range(2):
            await versions.look()
        assert await version(client) == 1
        shelf.remove(1)
        for _ in range(3):
            await versions.look(asked=True)
        assert await version(client) == 1
        assert await loads(client) == {"served": 1}


async def test_a_broken_version_stands_in_the_way_of_a_rollback(
    shelf: Shelf, open_service: Open, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.put(2)
    service = open_service()
    versions = Versions(service)
    async with serve(service) as client:
        broken = shelf.put(3)
        (broken / "saved_model.pb").write_bytes(b"another")
        for _ in range(2):
            await versions.look()
        caplog.clear()
        shelf.remove(2)
        for _ in range(3):
            await versions.look()
        [line] = warnings(caplog)
        assert line.getMessage() == (
            f"version 2 serves on although its folder is gone, because {broken}, now the newest, "
            "cannot be served. To roll back further, remove that too."
        )
        await versions.look(asked=True)
        assert f"{broken} is refused, and version 2 serves on" in caplog.text
        assert await version(client) == 2
        shelf.remove(3)
        for _ in range(2):
            await versions.look()
        assert await version(client) == 1
        assert str(shelf.folder / "2") not in caplog.text


async def test_a_folder_that_cannot_be_read_is_warned_of_once(
    shelf: Shelf, open_service: Open, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service()
    versions = Versions(service)
    away = shelf.folder.with_name("away")
    async with serve(service) as client:
        for _ in range(2):
            with caplog.at_level(logging.INFO, "app.versions"):
                shelf.folder.rename(away)
                for _ in range(3):
                    await versions.look()
                assert len(warnings(caplog)) == 1
                assert "no version found, and version 1 serves on: " in caplog.text
                await versions.look(asked=True)
                assert len(warnings(caplog)) == 2
                away.rename(shelf.folder)
                await versions.look()
                assert "no longer: no version found" in caplog.text
                caplog.clear()
        assert await version(client) == 1


async def test_a_version_that_the_settings_name_is_kept(
    shelf: Shelf, open_service: Open, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    path = shelf.folder / "1"
    service = open_service(model=path)
    versions = Versions(service)
    async with serve(service) as client:
        shelf.put(2)
        with caplog.at_level(logging.INFO):
            await versions.look(asked=True)
        assert await version(client) == 1
        assert "BREEDCAM_MODEL names version 1, which is served" in caplog.text
        shelf.remove(1)
        for _ in range(2):
            await versions.look()
        assert await version(client) == 1
    [line] = warnings(caplog)
    begin = f"no version found, and version 1 serves on: There is no model at {path}."
    assert line.getMessage().startswith(begin)


# -- a version that cannot be served


def _alter(shelf: Shelf, _: pytest.MonkeyPatch) -> None:
    (shelf.folder / "2" / "variables" / "variables.index").write_bytes(b"weights 3")


def _not_finite(shelf: Shelf, _: pytest.MonkeyPatch) -> None:
    shelf.make = NotFinite


def _no_engine(_: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_: object, **__: object) -> Gated:
        raise EngineUnavailable("OpenVINO is not installed.")

    monkeypatch.setattr("app.engines.create", create)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_alter, "differs from its checksum"),
        (_not_finite, "is not finite"),
        (_no_engine, "OpenVINO is not installed"),
    ],
)
async def test_a_version_that_cannot_be_served_is_refused(
    shelf: Shelf,
    open_service: Open,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Shelf, pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    service = open_service()
    versions = Versions(service)
    create = shelf.create
    async with serve(service) as client:
        path = shelf.put(2)
        spoil(shelf, monkeypatch)
        for _ in range(4):
            await versions.look()
        [line] = [record for record in caplog.records if record.name == "app.versions"]
        assert line.levelno == logging.ERROR
        assert f"{path} is refused, and version 1 serves on: " in line.getMessage()
        assert reason in line.getMessage()
        assert await version(client) == 1
        assert (await client.get("/readyz")).status_code == 200
        assert await loads(client) == {"refused": 1}
        # Tried again when an operator asks for it, and when it has changed.
        await versions.look(asked=True)
        assert await loads(client) == {"refused": 2}
        shelf.make = Gated
        monkeypatch.setattr("app.engines.create", create)
        shelf.remove(2)
        shelf.put(2)
        for _ in range(2):
            await versions.look()
        assert await version(client) == 2


async def test_a_version_that_hangs_before_it_serves_is_refused(
    shelf: Shelf, open_service: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """No request waits for it, so the process goes on."""
    ended: list[str] = []
    service = open_service(stuck_s=2.0)
    async with service.running(lambda: ended.append("end")):
        shelf.make = Shut
        shelf.put(2)
        await Versions(service).look(asked=True)
        assert "2 is refused" in caplog.text
        assert "has not answered a drawing for 2 s" in caplog.text
        service.check_alive()
        shelf.engines[2].go.set()
        assert service.model.card.version == 1
        await explain(service)
    assert not ended


class Failing(Gated):
    """Its batches end with an error."""

    error: Exception = RuntimeError("Unsupported operation.")

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        raise self.error


class Cramped(Failing):
    """Its batches find no memory."""

    error = MemoryError()


def _fails_to_compile(_: Borrowed, __: ModelCard) -> Gated:
    raise RuntimeError("Unsupported operation.")


@pytest.mark.parametrize("make", [_fails_to_compile, Failing], ids=["compile", "run"])
async def test_a_version_that_fails_with_unexpected_errors_is_refused_at_the_third(
    shelf: Shelf,
    open_service: Open,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Borrowed, ModelCard], Gated],
) -> None:
    service = open_service(model_poll_s=99.0)
    versions = Versions(service)
    async with serve(service) as client:
        path = shelf.put(2)
        shelf.make = make
        for _ in range(20):
            await versions.look()
        assert await loads(client) == {"failed": 2, "refused": 1}
        lines = [record.getMessage() for record in caplog.records if record.name == "app.versions"]
        error = "RuntimeError('Unsupported operation.')"
        assert lines[-1] == f"{path} is refused, and version 1 serves on: {error}"
        assert await version(client) == 1
        await versions.look(asked=True)  # begins anew
        assert await loads(client) == {"failed": 3, "refused": 1}
        shelf.make = Gated
        await versions.look(asked=True)
        assert await version(client) == 2


async def test_a_version_that_finds_no_memory_for_a_drawing_is_tried_again(
    shelf: Shelf, open_service: Open, serve: Serve
) -> None:
    service = open_service(model_poll_s=99.0)
    versions = Versions(service)
    async with serve(service) as client:
        shelf.put(2)
        shelf.make = Cramped
        for _ in range(11):
            await versions.look()
        assert await loads(client) == {"failed": 5}
        shelf.make = Gated
        await versions.look(asked=True)
        assert await version(client) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (NotReady("The system ended the decoder twice."), "ended the decoder twice"),
        (MemoryError(), "MemoryError()"),
    ],
)
async def test_a_version_that_fails_for_a_passing_reason_is_tried_again(
    shelf: Shelf,
    open_service: Open,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    """After one look, two, four, and so on up to five minutes, here three looks."""
    tries: list[int] = []
    looks = 0
    service = open_service(model_poll_s=99.0)
    versions = Versions(service)

    def create(*_: object, **__: object) -> Gated:
        tries.append(looks)
        raise error

    monkeypatch.setattr("app.engines.create", create)
    async with serve(service) as client:
        path = shelf.put(2)
        while looks < 13:  # the first sees files that may still change
            await versions.look()
            looks += 1
        assert tries == [1, 2, 4, 7, 10]
        assert await loads(client) == {"failed": 5}
        lines = [record.getMessage() for record in caplog.records if record.name == "app.versions"]
        waits = zip(range(1, 6), (99, 198, 297, 297, 297), strict=True)
        for line, (count, wait) in zip(lines, waits, strict=True):
            begin = f"{path} could not be loaded, and version 1 serves on; "
            assert line.startswith(f"{begin}try {count}, the next in {wait} s: ")
            assert reason in line
        assert await version(client) == 1
        monkeypatch.setattr("app.engines.create", shelf.create)
        await versions.look()
        assert await version(client) == 2
        assert await loads(client) == {"failed": 5, "served": 1}


async def test_files_that_change_end_the_wait_for_the_next_try(
    shelf: Shelf, open_service: Open, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_service(model_poll_s=10.0)
    versions = Versions(service)
    async with serve(service) as client:
        shelf.put(2)
        with monkeypatch.context() as patch:
            patch.setattr("app.engines.create", lambda *_, **__: 1 / 0)
            for _ in range(4):
                await versions.look()
            assert await loads(client) == {"failed": 2}
        shelf.remove(2)
        shelf.put(2)
        for _ in range(2):
            await versions.look()
        assert await version(client) == 2


async def test_a_version_that_is_slow_to_warm_up_is_tried_again(
    shelf: Shelf, open_service: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """And its memory is freed before that."""
    service = open_service(stuck_s=2.0)
    async with service.running():
        shelf.make = Slow
        shelf.put(2)
        await Versions(service).look(asked=True)
        assert "could not be loaded" in caplog.text
        assert "not warm after 2 s" in caplog.text
        assert shelf.engines[2].closed


# -- ends


async def test_a_version_that_hangs_after_it_was_replaced_ends_the_process(
    shelf: Shelf, open_service: Open, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its thread nor its memory could be had back otherwise."""
    monkeypatch.setattr(decoders, "kill", lambda: None)
    ended = asyncio.Event()
    service = open_service(stuck_s=2.0, deadline_s=0.5)
    versions = Versions(service)
    async with service.running(ended.set):
        before = shelf.engines[1]
        before.go.clear()
        hanging = asyncio.create_task(explain(service))
        assert await asyncio.to_thread(before.busy.wait, LONG)
        shelf.put(2)
        looking = asyncio.create_task(versions.look(asked=True))
        async with asyncio.timeout(LONG):
            await ended.wait()
        with pytest.raises(EngineDown):
            service.check_alive()
        service.model.check_alive()  # the one in service lives
        before.go.set()
        await asyncio.gather(hanging, looking, return_exceptions=True)


async def test_a_service_that_stops_waits_for_the_version_being_loaded(
    shelf: Shelf, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go = threading.Event(), threading.Event()
    create = shelf.create

    def slowly(bundle: Bundle, **options: object) -> Gated:
        loading.set()
        assert go.wait(LONG)
        return create(bundle, **options)

    service = open_service()
    monkeypatch.setattr("app.engines.create", slowly)

    @asynccontextmanager
    async def serving() -> AsyncIterator[Versions]:
        versions = Versions(service)
        async with service.running(), versions.watching():
            yield versions

    async def whole_life() -> None:
        async with serving() as versions:
            shelf.put(2)
            versions.look_now()
            assert await asyncio.to_thread(loading.wait, LONG)

    life = asyncio.create_task(whole_life())
    assert await asyncio.to_thread(loading.wait, LONG)
    assert not (await asyncio.wait({life}, timeout=0.1))[0]
    go.set()
    await life
    assert service.model.card.version == 1
    assert shelf.engines[1].closed
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


async def test_a_load_gets_no_time_that_the_last_requests_have_used(
    shelf: Shelf, open_service: Open, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time to stop runs from the signal on; when it is over, the process ends."""
    loading, go = threading.Event(), threading.Event()
    create = shelf.create

    def slowly(bundle: Bundle, **options: object) -> Gated:
        loading.set()
        assert go.wait(2 * LONG)
        return create(bundle, **options)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep)
    service, ended = open_service(deadline_s=1000.0), list[str]()
    versions = Versions(service)
    monkeypatch.setattr("app.engines.create", slowly)
    monkeypatch.setattr("app.service.time", clock)
    monkeypatch.setattr("app.service.STOP_S", 1.0)
    monkeypatch.setattr("app.service._LAST_S", 1.0)
    monkeypatch.setattr(decoders, "kill", lambda: None)
    async with (
        asyncio.timeout(LONG),
        service.running(lambda: ended.append("end")),
        versions.watching(),
    ):
        shelf.put(2)
        versions.look_now()
        assert await asyncio.to_thread(loading.wait, LONG)
        assert service.begin_stop() > 999
        clock.monotonic = lambda: time.monotonic() + 2000
        assert service.begin_stop() == 0
    assert ended == ["end"]
    go.set()
    await asyncio.to_thread(wait_for, lambda: shelf.engines[1].closed)
    assert service.model.card.version == 1


async def test_versions_stop_at_once(shelf: Shelf, open_service: Open) -> None:
    """One that hangs takes no time from the others."""
    service = open_service()
    service.start()
    before = shelf.engines[1]
    before.go.clear()
    hanging = asyncio.create_task(explain(service))
    assert await asyncio.to_thread(before.busy.wait, LONG)
    shelf.put(2)
    looking = asyncio.create_task(Versions(service).look(asked=True))
    await until_served(service, 2)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    stopping = asyncio.create_task(asyncio.to_thread(service.stop))
    await asyncio.to_thread(wait_for, lambda: not service.ready)
    assert not stopping.done()
    before.go.set()
    assert await stopping
    await hanging
    assert all(engine.closed for engine in shelf.engines.values())
