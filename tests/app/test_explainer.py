import asyncio
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from app import confidence, evidence, images
from app.bundle import BundleError, Label, Layer, Method, ModelCard, Rule, find_version
from app.clock import Clock, deadline
from app.decoding import Decoders
from app.engines import Batch, Cut, Engine
from app.errors import (
    BreedCAMError,
    DeadlineExceeded,
    EngineFailed,
    MethodUnavailable,
    NotReady,
    QueueFull,
    RequestError,
    UnknownTarget,
)
from app.explainer import Answer, Explainer
from app.schemas import CamQuery, CompareQuery, ExplainQuery, GradcamQuery, PredictQuery
from app.settings import Settings
from tests.app.conftest import JPEG, Arrays, Borrowed, Held, Painted, encode, picture

pytestmark = pytest.mark.anyio

Make = Callable[..., Explainer]

LONG = 20.0
"""Seconds; a test that comes near it has failed."""


@contextmanager
def started(explainer: Explainer) -> Iterator[Explainer]:
    explainer.start()
    try:
        yield explainer
    finally:
        explainer.stop()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (90, 60)) -> bytes:
    return encode(Image.new("RGB", size, colour), "PNG")


# -- opening


def test_an_altered_model_is_not_opened(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(find_version(settings.model_path), copy)
    altered = copy / "variables" / "variables.index"
    data = bytearray(altered.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(f"{altered} differs from its checksum")):
        Explainer.open(settings.model_copy(update={"model": copy}))


def test_opening_warms_up_what_will_be_used(
    settings: Settings, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    requested: dict[str, object] = {}

    def create(_: object, **options: object) -> Borrowed:
        requested.update(options)
        return engine

    monkeypatch.setattr("app.engines.create", create)
    monkeypatch.setattr(engine, "warm_up", warmed.append)
    explainer = Explainer.open(settings.model_copy(update={"max_batch": 3, "threads": 1}))
    assert warmed == [3]
    assert requested == {
        "engine": "openvino",
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
    }
    assert not explainer.ready


async def test_an_answer_that_is_not_finite_fails_its_own_request(
    make_explainer: Make, engine: Borrowed, card: ModelCard
) -> None:
    class Spoilt(Painted):
        rows: ClassVar[list[int]] = []

        def run(self, cut: Cut, batch: Batch) -> Arrays:
            self.rows.append(len(batch))
            arrays = super().run(cut, batch)
            for name, target in (("logits", 3), ("probabilities", 4)):
                arrays[name][batch.class_index == target, 1] = np.nan
            arrays["logits"][batch.class_index == 5, 2] = np.inf
            return arrays

    explainer = make_explainer(engine=Spoilt(engine, card), batch_wait_ms=1000, max_batch=4)
    with started(explainer):
        outcomes = await asyncio.gather(
            *[explainer.explain(JPEG, CamQuery(target=str(target))) for target in (2, 3, 4, 5)],
            return_exceptions=True,
        )
    assert Spoilt.rows == [4]
    assert [type(outcome) for outcome in outcomes] == [Answer, *[EngineFailed] * 3]
    assert all("not finite" in str(outcome) for outcome in outcomes[1:])


async def test_a_service_from_the_disk_is_warm_before_its_first_request(
    settings: Settings, shipped: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Cut] = []

    class Listening(Borrowed):
        def run(self, cut: Cut, batch: Batch) -> Arrays:
            cuts.append(cut)
            return super().run(cut, batch)

    monkeypatch.setattr("app.engines.create", lambda *_, **__: Listening(shipped.engine))
    explainer = Explainer.open(settings)
    async with explainer.in_service():
        assert set(cuts) == {Cut.EXPLAIN, Cut.EXPLAIN_DEEP}
        count = len(cuts)
        await explainer.predict(JPEG, PredictQuery())
        assert len(cuts) == count + 1


async def test_the_decoders_are_killed_before_the_process_ends(
    make_explainer: Make, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is busy would live on for seconds."""
    steps: list[str] = []
    monkeypatch.setattr(decoders, "kill", lambda: steps.append("kill"))
    explainer = make_explainer()
    monkeypatch.setattr(explainer, "stop", lambda: False)  # the model hangs
    async with explainer.in_service(lambda: steps.append("end")):
        pass
    assert steps == ["kill", "end"]
    monkeypatch.undo()
    assert await asyncio.to_thread(explainer.stop)


# -- what the model calls things


def labels(*names: tuple[str, str | None]) -> tuple[Label, ...]:
    return tuple(
        Label(index=index, name=name, synset=synset) for index, (name, synset) in enumerate(names)
    )


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("0", 0),
        ("n01", 0),
        ("N01", 0),
        ("Old English Sheepdog", 0),
        ("old_english_sheepdog", 0),
        ("  OLD  english_Sheepdog ", 0),
        ("shih-tzu", 1),
        ("Shih_Tzu", 1),
        ("shih tzu", 1),
        ("straße", 2),
        ("STRASSE", 2),
        # A label that looks like another's index: the index wins.
        ("1", 1),
        ("3", 3),
        ("-1", None),
        ("- 1", None),
        ("4", None),
        ("01", None),
        ("n", None),
        ("shih", None),
        ("_", None),
    ],
)
async def test_class_names(
    make_explainer: Make, engine: Borrowed, card: ModelCard, target: str, index: int | None
) -> None:
    named = labels(
        ("Old_English_sheepdog", "n01"), ("shih-tzu", None), ("Straße", None), ("1", "n04")
    )
    toy = card.replace(labels=named)
    with started(make_explainer(engine=Painted(engine, toy), card=toy)) as explainer:
        answering = explainer.explain(JPEG, CamQuery(target=target, overlay=False))
        if index is None:
            with pytest.raises(UnknownTarget):
                await answering
        else:
            assert (await answering).response.target.class_index == index


async def test_a_target_that_may_mean_two_classes_is_refused(
    make_explainer: Make, engine: Borrowed, card: ModelCard
) -> None:
    toy = card.replace(labels=labels(("Pug", None), ("pug", None), ("beagle", None)))
    with started(make_explainer(engine=Painted(engine, toy), card=toy)) as explainer:
        with pytest.raises(UnknownTarget, match=r"`target`: 'PUG' .* 0 \(Pug\), 1 \(pug\)\."):
            await explainer.explain(JPEG, CamQuery(target="PUG", overlay=False))
        answer = await explainer.explain(JPEG, CamQuery(target="pug", overlay=False))
    assert answer.response.target.class_index == 1


@pytest.mark.parametrize(
    ("names", "expected", "known_as"),
    [
        ("last", ["c5"], "last"),
        ("c5", ["c5"], "last"),
        ("last6", ["c0", "c1", "c2", "c3", "c4", "c5"], "last6"),
        ("c5,c4,c3,c2,c1,c0", ["c0", "c1", "c2", "c3", "c4", "c5"], "last6"),
        ("c1", ["c1"], "c1"),
        (" c3 ,c1,c3", ["c1", "c3"], "c1,c3"),
    ],
)
async def test_layer_sets_and_their_thresholds(
    make_explainer: Make,
    engine: Borrowed,
    uncalibrated: ModelCard,
    names: str,
    expected: list[str],
    known_as: str,
) -> None:
    sets = ("last", "last6", "c1", "c1,c3")
    layers = tuple(
        Layer(name=f"c{index}", height=layer.height, width=layer.width)
        for index, layer in enumerate(uncalibrated.layers)
    )
    thresholds = {name: 0.1 * (1 + place) for place, name in enumerate(sets)}
    toy = uncalibrated.replace(layers=layers, thresholds={Method.LAYERCAM: thresholds})
    assert len(layers) == 6
    with started(make_explainer(engine=Painted(engine, toy), card=toy)) as explainer:
        query = GradcamQuery(method=Method.LAYERCAM, layers=names, overlay=False)
        explanation = (await explainer.explain(JPEG, query)).response.explanation
    assert explanation.layers == expected
    assert explanation.threshold == thresholds[known_as]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (GradcamQuery(layers="c9"), RequestError),
        (GradcamQuery(layers="last,last6"), RequestError),
        (GradcamQuery(layers=" "), RequestError),
        (GradcamQuery(target="1", versus="1"), RequestError),
        (GradcamQuery(rule=Rule.FUSED), MethodUnavailable),
        (CamQuery(), MethodUnavailable),
        (CompareQuery(target="1", versus="1"), RequestError),
        (CompareQuery(target="tabby"), UnknownTarget),
        (CompareQuery(rule=Rule.FUSED), MethodUnavailable),
    ],
)
async def test_a_bad_question_is_refused_before_any_work(
    make_explainer: Make,
    uncalibrated: ModelCard,
    query: ExplainQuery | CompareQuery,
    error: type[BreedCAMError],
) -> None:
    other = uncalibrated.replace(head="other")
    with started(make_explainer(card=other)) as explainer:
        # Not an image: decoding would raise another error.
        answering: Coroutine[Any, Any, Any] = (
            explainer.explain(b"", query)
            if isinstance(query, ExplainQuery)
            else explainer.compare(b"", query)
        )
        with pytest.raises(error) as raised:
            await answering
        assert type(raised.value) is error


# -- the real model


@pytest.mark.parametrize("query", [CamQuery(box=[(0, 0, 90, 60)]), GradcamQuery(layers="last6")])
@pytest.mark.parametrize("colour", [(0, 0, 0), (124, 117, 104), (255, 255, 255)])
async def test_a_plain_photo_has_a_legal_status(
    make_explainer: Make, query: ExplainQuery, colour: tuple[int, int, int]
) -> None:
    with started(make_explainer()) as explainer:
        answer = (await explainer.explain(plain(colour), query)).response
    explanation = answer.explanation
    located = explanation.status == "ok"
    assert np.isfinite([prediction.probability for prediction in answer.predictions]).all()
    assert (explanation.box is not None) == located
    assert (explanation.peak is not None) == located
    if query.box:
        assert answer.localization is not None
        # The box of the request is the whole photo.
        assert (answer.localization.iou > 0) == located


class Sighted(Painted):
    """Its Grad-CAM is the photo's brightness, in 7 x 7 cells."""

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        rows, size = len(batch), self.card.input.size
        cells = batch.image.reshape(rows, 7, size // 7, 7, size // 7, 3)
        brightness = cells.mean(axis=(2, 4, 5), dtype=np.float32)
        return super().run(cut, batch) | {"gradcam": brightness}


@pytest.mark.parametrize(("column", "row"), [(1, 1), (5, 1), (1, 5), (5, 5)])
async def test_photo_and_heatmap_are_in_one_frame(
    make_explainer: Make, engine: Borrowed, uncalibrated: ModelCard, column: int, row: int
) -> None:
    """Neither mirrored nor turned between the photo's pixels and the box."""
    # A cell of the heatmap is 40 x 30 pixels of the photo.
    cell = (40 * column, 30 * row, 40 * column + 40, 30 * row + 30)
    photo = Image.new("RGB", (280, 210))
    photo.paste("white", cell)
    query = GradcamQuery(box=[cell], threshold=0.5, overlay=False)
    with started(make_explainer(engine=Sighted(engine, uncalibrated))) as explainer:
        response = (await explainer.explain(encode(photo, "PNG"), query)).response
    assert response.explanation.peak == (40 * column + 20, 30 * row + 15)
    assert response.explanation.box == pytest.approx(cell, abs=2)
    assert response.localization is not None
    assert response.localization.iou > 0.85


@pytest.mark.parametrize(
    "query",
    [
        GradcamQuery(versus="0", box=[(0, 0, 90, 60)], curve=True),
        CompareQuery(versus="0", box=[(0, 0, 90, 60)], curve=True),
    ],
    ids=["explain", "compare"],
)
async def test_softmax_and_foreground_are_computed_once(
    make_explainer: Make,
    engine: Borrowed,
    calibrated: ModelCard,
    monkeypatch: pytest.MonkeyPatch,
    query: GradcamQuery | CompareQuery,
) -> None:
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(confidence, "probabilities")
    counted(evidence, "foreground_of")
    counted(evidence, "enlarged")
    maps = {"cam": GRADIENT, "gradcam": GRADIENT}
    with started(make_explainer(engine=Painted(engine, calibrated, maps))) as explainer:
        if isinstance(query, GradcamQuery):
            explained = await explainer.explain(JPEG, query)
            rules, heatmaps = [explained.response.explanation.rule], 1
        else:
            compared = await explainer.compare(JPEG, query)
            rules = [panel.explanation.rule for panel in compared.response.explanations]
            heatmaps = 3
    assert rules == [Rule.FUSED] * heatmaps
    # One heatmap each, and the foreground's.
    assert calls == {"probabilities": 1, "foreground_of": 1, "enlarged": heatmaps + 1}


GRADIENT = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)


# -- what goes wrong


class Poisoned(Borrowed):
    """Fails on magenta photos."""

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        if (batch.image == (255, 0, 255)).all(axis=(1, 2, 3)).any():
            raise RuntimeError("poison")
        return super().run(cut, batch)


async def test_only_the_poisonous_photo_fails(make_explainer: Make, engine: Borrowed) -> None:
    magenta = plain((255, 0, 255))
    photos = [JPEG, magenta, JPEG, JPEG]
    explainer = make_explainer(engine=Poisoned(engine), max_batch=4, batch_wait_ms=1000)
    with started(explainer):
        first, poison, *others = await asyncio.gather(
            *(explainer.predict(photo, PredictQuery()) for photo in photos),
            return_exceptions=True,
        )
        assert isinstance(poison, EngineFailed)
        assert "poison" not in str(poison)
        assert not isinstance(first, BaseException)
        for other in others:
            assert not isinstance(other, BaseException)
            assert other.predictions == first.predictions
        assert explainer.ready
        with pytest.raises(EngineFailed):
            await explainer.explain(magenta, GradcamQuery(layers="last6"))


async def ask(explainer: Explainer, seconds: float = LONG) -> int:
    """What a route does; the number of predictions."""
    async with deadline(seconds):
        with explainer.admission.admit():
            answer = await explainer.explain(JPEG, GradcamQuery(overlay=False))
            return len(answer.response.predictions)


async def test_cancelled_and_late_requests_free_their_places(
    make_explainer: Make, engine: Borrowed
) -> None:
    held = Held(engine)
    with started(make_explainer(engine=held, max_pending=3)) as explainer:
        running = asyncio.create_task(ask(explainer))
        assert await asyncio.to_thread(held.busy.wait, LONG)
        waiting = [asyncio.create_task(ask(explainer)), asyncio.create_task(ask(explainer, 0.3))]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull), explainer.admission.admit():
            pytest.fail("a place was given")
        with pytest.raises(DeadlineExceeded):
            await waiting[1]
        waiting[0].cancel()
        running.cancel()
        for task in (waiting[0], running):
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
        last = [asyncio.create_task(ask(explainer)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull), explainer.admission.admit():
            pytest.fail("a place was given")
        held.go.set()
        assert await asyncio.gather(*last) == [5, 5, 5]
    # The model never saw the two that had gone before their turn.
    assert sum(held.rows) == 1 + 3


async def test_stopping_finishes_what_waits_and_takes_no_more(
    make_explainer: Make, engine: Borrowed
) -> None:
    held = Held(engine)
    explainer = make_explainer(engine=held)
    with pytest.raises(NotReady):
        await ask(explainer)
    explainer.start()
    assert explainer.ready
    running = asyncio.create_task(ask(explainer))
    assert await asyncio.to_thread(held.busy.wait, LONG)
    stopping = asyncio.create_task(asyncio.to_thread(explainer.stop))
    await asyncio.to_thread(_wait_until, lambda: not explainer.ready)
    with pytest.raises(NotReady):
        await ask(explainer)
    assert not held.closed
    held.go.set()
    assert await running == 5
    await stopping
    assert held.closed


def _wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("size", "held"), [(None, None), (1024, (512, 1024, 3)), (100, (50, 100, 3))]
)
async def test_a_photo_is_held_no_larger_than_its_overlay(
    make_explainer: Make, size: int | None, held: tuple[int, int, int] | None
) -> None:
    explainer = make_explainer()
    with started(explainer):
        decoded = await explainer._decode(Clock(), encode(picture(3000, 1500), "PNG"), size)
    assert (decoded.width, decoded.height) == (3000, 1500)
    assert (None if decoded.pixels is None else decoded.pixels.shape) == held
    # The model's input is made of all the pixels, not of the reduced ones.
    expected = images.squash(np.asarray(picture(3000, 1500)), explainer.card.input.size)
    np.testing.assert_array_equal(decoded.squashed, expected)


class Slow(Borrowed):
    """Takes a quarter of a second by a clock that it moves itself."""

    def __init__(self, engine: Engine, seconds: list[float]) -> None:
        super().__init__(engine)
        self._seconds = seconds

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        self._seconds[0] += 0.25
        return super().run(cut, batch)


async def test_timings_tell_where_the_time_went(
    make_explainer: Make, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    stopped = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("app.clock.time", stopped)
    monkeypatch.setattr("app.batching.time", stopped)
    with started(make_explainer(engine=Slow(engine, clock))) as explainer:
        answer = await explainer.explain(JPEG, GradcamQuery())
    # Nothing else moves this clock: decoding and drawing take no time, nothing waits.
    assert answer.response.timings_ms == {
        "decode": 0,
        "queue": 0,
        "inference": 250,
        "render": 0,
    }
