import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from app import confidence, evidence, images
from app.bundle import Layer, Method, ModelCard, Rule
from app.clock import Clock, deadline
from app.engines import Batch, Cut, Engine
from app.errors import (
    BreedCAMError,
    DeadlineExceeded,
    EngineFailed,
    MethodUnavailable,
    QueueFull,
    RequestError,
    UnknownTarget,
)
from app.explainer import Answer, Explainer
from app.schemas import CamQuery, CompareQuery, ExplainQuery, GradcamQuery, PredictQuery
from app.service import Service
from tests.app.conftest import JPEG, LONG, Arrays, Borrowed, Held, Painted, encode, picture

pytestmark = pytest.mark.anyio

Make = Callable[..., Service]


@contextmanager
def started(service: Service) -> Iterator[Explainer]:
    service.start()
    try:
        yield service.explainer
    finally:
        service.stop()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (90, 60)) -> bytes:
    return encode(Image.new("RGB", size, colour), "PNG")


async def test_an_answer_that_is_not_finite_fails_its_own_request(
    make_service: Make, engine: Borrowed, card: ModelCard
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

    service = make_service(engine=Spoilt(engine, card), batch_wait_ms=1000, max_batch=4)
    with started(service) as explainer:
        outcomes = await asyncio.gather(
            *[explainer.explain(JPEG, CamQuery(target=str(target))) for target in (2, 3, 4, 5)],
            return_exceptions=True,
        )
    assert Spoilt.rows == [4]
    assert [type(outcome) for outcome in outcomes] == [Answer, *[EngineFailed] * 3]
    assert all("not finite" in str(outcome) for outcome in outcomes[1:])


# -- what the model calls things


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
    make_service: Make,
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
    with started(make_service(engine=Painted(engine, toy), card=toy)) as explainer:
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
        (CompareQuery(target=["2", "1"], versus="1"), RequestError),
        (CompareQuery(target=["tabby"]), UnknownTarget),
        (CompareQuery(rule=Rule.FUSED), MethodUnavailable),
    ],
)
async def test_a_bad_question_is_refused_before_any_work(
    make_service: Make,
    uncalibrated: ModelCard,
    query: ExplainQuery | CompareQuery,
    error: type[BreedCAMError],
) -> None:
    other = uncalibrated.replace(head="other")
    with started(make_service(card=other)) as explainer:
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
    make_service: Make, query: ExplainQuery, colour: tuple[int, int, int]
) -> None:
    with started(make_service()) as explainer:
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
    make_service: Make, engine: Borrowed, uncalibrated: ModelCard, column: int, row: int
) -> None:
    """Neither mirrored nor turned between the photo's pixels and the box."""
    # A cell of the heatmap is 40 x 30 pixels of the photo.
    cell = (40 * column, 30 * row, 40 * column + 40, 30 * row + 30)
    photo = Image.new("RGB", (280, 210))
    photo.paste("white", cell)
    query = GradcamQuery(box=[cell], threshold=0.5, overlay=False)
    with started(make_service(engine=Sighted(engine, uncalibrated))) as explainer:
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
    make_service: Make,
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
    with started(make_service(engine=Painted(engine, calibrated, maps))) as explainer:
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


async def test_only_the_poisonous_photo_fails(make_service: Make, engine: Borrowed) -> None:
    magenta = plain((255, 0, 255))
    photos = [JPEG, magenta, JPEG, JPEG]
    service = make_service(engine=Poisoned(engine), max_batch=4, batch_wait_ms=1000)
    with started(service) as explainer:
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
        assert explainer.model.ready
        with pytest.raises(EngineFailed):
            await explainer.explain(magenta, GradcamQuery(layers="last6"))


async def ask(explainer: Explainer, seconds: float = LONG) -> int:
    """What a route does; the number of predictions."""
    async with deadline(seconds):
        with explainer.admission.admit():
            answer = await explainer.explain(JPEG, GradcamQuery(overlay=False))
            return len(answer.response.predictions)


async def test_cancelled_and_late_requests_free_their_places(
    make_service: Make, engine: Borrowed
) -> None:
    held = Held(engine)
    with started(make_service(engine=held, max_pending=3)) as explainer:
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


@pytest.mark.parametrize(
    ("size", "held"), [(None, None), (1024, (512, 1024, 3)), (100, (50, 100, 3))]
)
async def test_a_photo_is_held_no_larger_than_its_overlay(
    make_service: Make, card: ModelCard, size: int | None, held: tuple[int, int, int] | None
) -> None:
    with started(make_service()) as explainer:
        decoded = await explainer._decode(Clock(), encode(picture(3000, 1500), "PNG"), size)
    assert (decoded.width, decoded.height) == (3000, 1500)
    assert (None if decoded.pixels is None else decoded.pixels.shape) == held
    # The model's input is made of all the pixels, not of the reduced ones.
    expected = images.squash(np.asarray(picture(3000, 1500)), card.input.size)
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
    make_service: Make, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    stopped = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("app.clock.time", stopped)
    monkeypatch.setattr("app.batching.time", stopped)
    with started(make_service(engine=Slow(engine, clock))) as explainer:
        answer = await explainer.explain(JPEG, GradcamQuery())
    # Nothing else moves this clock: decoding and drawing take no time, nothing waits.
    assert answer.response.timings_ms == {
        "decode": 0,
        "queue": 0,
        "inference": 250,
        "render": 0,
    }
