"""`/metrics` beside what was sent and answered."""

import asyncio
import json
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families
from pydantic import SecretStr

from app.bundle import NOVELTY_BOUNDS, PROBABILITY_BOUNDS, ModelCard, Reference
from app.engines import Batch, Cut
from app.errors import BreedCAMError
from app.main import create_app
from app.metrics import Metrics
from app.model import Model
from app.service import Service
from app.settings import Settings
from app.versions import _MOST_WAIT_S
from tests.app.conftest import (
    ENDPOINTS,
    JPEG,
    Arrays,
    Borrowed,
    Held,
    Painted,
    Serve,
    ask,
    encode,
    picture,
    post,
    problem,
)
from tests.app.exposition import Scrape, scrape
from tests.app.observed import Observed
from tests.readme import DOCS, Table

pytestmark = pytest.mark.anyio

MakeService = Callable[..., Service]

PNG = encode(picture(), "PNG")
CUT = PNG[: len(PNG) // 2]
"""Its header is whole."""


# -- requests


async def test_requests_are_counted_by_route_method_and_status(client: httpx.AsyncClient) -> None:
    expected = Counter[tuple[str, str, str]]()
    for method, path, route, status in [
        ("GET", "/livez", "/livez", 200),
        ("HEAD", "/livez", "/livez", 200),
        ("POST", "/livez", "/livez", 405),
        ("GET", "/predict", "/predict", 405),
        ("GET", "/model", "/model", 200),
        ("GET", "/", "/", 200),
        ("GET", "/docs", "/docs", 200),
        ("GET", "/docs/favicon.png", "/docs/{path}", 200),
        ("GET", "/static/none.js", "/static/{path}", 404),
        ("GET", "/openapi.json", "/openapi.json", 200),
        ("POST", "/cam?size=1", "/cam", 400),
        ("PUT", "/cam?size=1", "/cam", 400),
    ]:
        response = await client.request(method, path)
        assert response.status_code == status, path
        expected[method, route, str(status)] += 1
    for path in ENDPOINTS:
        for _ in range(2):
            await ask(client, path)
        expected["POST", path, "200"] += 2
    counted = await scrape(client)
    assert counted.by("breedcam_requests_total", "method", "route", "status") == expected
    totals = Counter[tuple[str, ...]]()
    for (_, route, _), count in expected.items():
        totals[route,] += count
    assert counted.by("breedcam_request_duration_seconds_count", "route") == totals


async def test_clients_add_no_series(client: httpx.AsyncClient) -> None:
    for number in range(30):
        method = f"BREW{number}"
        assert (await client.request(method, f"/no/{number}")).status_code == 404
        assert (await client.request("GET", f"/static/{number}")).status_code == 404
        assert (await client.get("/livez", params={"a": number})).status_code == 200
    counted = await scrape(client)
    assert counted.by("breedcam_requests_total", "method", "route", "status") == {
        ("other", "unmatched", "404"): 30,
        ("GET", "/static/{path}", "404"): 30,
        ("GET", "/livez", "200"): 30,
    }
    assert counted.by("breedcam_rejections_total", "reason") == {("not-found",): 60}


async def test_routes_have_no_prefix(serve: Serve) -> None:
    """A proxy may leave it in the path or take it off."""
    async with serve(root_path="/dogs") as client:
        for path in ("/livez", "/dogs/livez", "/dogs/openapi.json", "/dogs/static/app.js"):
            assert (await client.get(path)).status_code == 200
        counted = await scrape(client)
    assert counted.by("breedcam_requests_total", "route", "status") == {
        ("/livez", "200"): 2,
        ("/openapi.json", "200"): 1,
        ("/static/{path}", "200"): 1,
    }


async def test_requests_without_a_key_are_counted(serve: Serve) -> None:
    key = "0123456789abcdef-key"
    async with serve(api_keys=(SecretStr(key),)) as client:
        problem(await client.get("/metrics"), 401, "unauthorized")
        problem(await post(client, "/cam"), 401, "unauthorized")
        client.headers["Authorization"] = f"Bearer {key}"
        counted = await scrape(client)
    assert counted.by("breedcam_rejections_total", "reason") == {("unauthorized",): 2}
    assert counted.by("breedcam_requests_total", "route", "status") == {("unmatched", "401"): 2}


async def test_metrics_that_are_turned_off(serve: Serve) -> None:
    async with serve(metrics=False) as client:
        problem(await client.get("/metrics"), 404, "not-found")
        await ask(client, "/predict")


async def test_durations_are_those_of_the_requests(
    serve: Serve, make_service: MakeService, engine: Borrowed
) -> None:
    held = Held(engine)
    async with serve(make_service(engine=held)) as client:
        begun = time.monotonic()
        task = asyncio.create_task(ask(client, "/predict"))
        await asyncio.to_thread(held.busy.wait, 20)
        await asyncio.sleep(0.12)
        held.go.set()
        await task
        elapsed = time.monotonic() - begun
        counted = await scrape(client)
    total = counted.value("breedcam_request_duration_seconds_sum", route="/predict")
    assert 0.12 <= total <= elapsed
    buckets = counted.buckets("breedcam_request_duration_seconds", route="/predict")
    assert buckets["0.1"] == 0
    assert buckets["+Inf"] == 1


async def test_rejections_are_counted_by_their_code(serve: Serve) -> None:
    png = encode(picture(), "PNG")
    async with serve(max_bytes=len(JPEG) + 100, max_pixels=320 * 240) as client:
        problem(await post(client, "/predict", b""), 400, "missing-image")
        for _ in range(2):
            problem(await post(client, "/predict", bytes(len(JPEG) + 101)), 413, "too-many-bytes")
        problem(await post(client, "/predict", JPEG[:300]), 422, "undecodable-image")
        problem(await post(client, "/predict", b"no picture"), 415, "unsupported-media-type")
        problem(await post(client, "/cam", target="cat"), 400, "unknown-target")
        problem(await post(client, "/cam", top_k=0), 400, "invalid-parameter")
        accept = {"Accept": "text/html"}
        problem(await post(client, "/predict", headers=accept), 406, "not-acceptable")
        problem(await client.get("/x"), 404, "not-found")
        problem(await client.get("/predict"), 405, "method-not-allowed")
        await ask(client, "/predict")
        counted = await scrape(client)
    assert len(png) > len(JPEG) + 100
    assert counted.by("breedcam_rejections_total", "reason") == {
        ("missing-image",): 1,
        ("too-many-bytes",): 2,
        ("undecodable-image",): 1,
        ("unsupported-media-type",): 1,
        ("unknown-target",): 1,
        ("invalid-parameter",): 1,
        ("not-acceptable",): 1,
        ("not-found",): 1,
        ("method-not-allowed",): 1,
    }


async def test_unforeseen_errors_are_counted_and_end(
    serve: Serve, make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    monkeypatch.setattr(service.explainer, "_decode", lambda *_: 1 / 0)
    async with serve(service) as client:
        problem(await post(client, "/cam"), 500, "internal-error")
        counted = await scrape(client)
    requests = counted.by("breedcam_requests_total", "route", "status")
    assert requests == {("/cam", "500"): 1}
    assert counted.by("breedcam_rejections_total", "reason") == {("internal-error",): 1}
    assert counted.value("breedcam_requests_in_progress") == 1  # that of /metrics


def test_every_error_has_a_series_from_the_start() -> None:
    """A first 429 is then an increase, which an alert sees."""
    text = Metrics().expose("text/plain")[0].decode()
    reasons = {dict(key)["reason"] for key in Scrape(text).samples["breedcam_rejections_total"]}
    errors = {BreedCAMError}
    while more := {kind for error in errors for kind in error.__subclasses__()} - errors:
        errors |= more
    answered = {error.code for error in errors if error.__module__ == "app.errors"}
    assert reasons == answered - {"startup-error"}


# -- photos


async def test_stages_are_those_of_the_answers(serve: Serve) -> None:
    async with serve() as client:
        answers = [await ask(client, path) for path in ENDPOINTS for _ in range(2)]
        counted = await scrape(client)
    for stage in ("decode", "queue", "inference", "render"):
        timings = [
            answer["timings_ms"][stage] / 1000
            for answer in answers
            if stage in answer["timings_ms"]
        ]
        assert len(timings) == (6 if stage == "render" else 8)
        name = "breedcam_stage_duration_seconds"
        assert counted.value(f"{name}_count", stage=stage) == len(timings)
        # The answers' are rounded to a microsecond.
        assert counted.value(f"{name}_sum", stage=stage) == pytest.approx(sum(timings), abs=1e-5)
        buckets = counted.buckets(name, stage=stage)
        for bound in ("0.0025", "0.01", "0.05"):
            assert buckets[bound] == sum(timing <= float(bound) for timing in timings)


async def test_a_photo_that_does_not_decode_has_its_time_counted(serve: Serve) -> None:
    async with serve() as client:
        problem(await post(client, "/cam", CUT), 422, "undecodable-image")
        counted = await scrape(client)
    assert counted.by("breedcam_stage_duration_seconds_count", "stage") == {
        ("decode",): 1,
        ("queue",): 1,
    }
    assert counted.value("breedcam_top1_probability_count") == 0


async def test_waiting_past_the_deadline_is_counted_as_queue(
    serve: Serve, make_service: MakeService, engine: Borrowed
) -> None:
    finished = threading.Event()

    class Finishing(Held):
        def run(self, cut: Cut, batch: Batch) -> Arrays:
            try:
                return super().run(cut, batch)
            finally:
                finished.set()

    held = Finishing(engine)
    async with serve(make_service(engine=held, deadline_s=0.2)) as client:
        problem(await post(client, "/predict"), 504, "deadline-exceeded")
        counted = await scrape(client)
        held.go.set()
        # A service that stops does not wait past its deadline, but other tests share the engine.
        assert await asyncio.to_thread(finished.wait, 20)
    assert counted.value("breedcam_stage_duration_seconds_sum", stage="queue") > 0.1
    assert counted.value("breedcam_stage_duration_seconds_count", stage="inference") == 0
    assert counted.by("breedcam_rejections_total", "reason") == {("deadline-exceeded",): 1}


async def test_load_and_batches(serve: Serve, make_service: MakeService, engine: Borrowed) -> None:
    held = Held(engine)
    service = make_service(
        engine=held, max_batch=4, max_pending=7, max_bytes=999_999, max_pending_bytes=999_999
    )
    async with serve(service) as client:
        tasks = [asyncio.create_task(ask(client, "/predict"))]
        await asyncio.to_thread(held.busy.wait, 20)  # the first is with the model
        tasks += [asyncio.create_task(ask(client, "/predict")) for _ in range(6)]
        for _ in range(1000):
            counted = await scrape(client)
            if counted.value("breedcam_queue_depth") == 6:
                break
        problem(await post(client, "/predict"), 429, "queue-full")
        held.go.set()
        await asyncio.gather(*tasks)
        after = await scrape(client)
    load = {
        "breedcam_ready": 1,
        "breedcam_queue_depth": 6,
        "breedcam_photos_in_work": 7,
        "breedcam_photos_in_work_limit": 7,
        "breedcam_held_bytes": 7 * len(JPEG),
        "breedcam_held_bytes_limit": 999_999,
        "breedcam_requests_in_progress": 8,  # with that of /metrics
    }
    assert {name: counted.value(name) for name in load} == load
    for name in ("queue_depth", "photos_in_work", "held_bytes"):
        assert after.value(f"breedcam_{name}") == 0
    assert after.value("breedcam_requests_in_progress") == 1
    assert held.rows == [1, 4, 2]
    assert after.value("breedcam_batch_size_count") == 3
    assert after.value("breedcam_batch_size_sum") == 7
    batches = after.buckets("breedcam_batch_size")
    assert [batches[size] for size in ("1.0", "2.0", "4.0", "+Inf")] == [1, 2, 3, 3]
    assert after.by("breedcam_rejections_total", "reason") == {("queue-full",): 1}


async def test_answers_are_counted_as_they_are_given(
    client: httpx.AsyncClient, card: ModelCard
) -> None:
    photos = [JPEG, *(encode(picture(seed=seed)) for seed in (1, 2))]
    answers = [await ask(client, path, photo) for photo in photos for path in ENDPOINTS]
    counted = await scrape(client)
    top = [answer["predictions"][0] for answer in answers]
    assert counted.by("breedcam_predictions_total", "breed") == Counter(
        (prediction["label"],) for prediction in top
    )
    assert len(counted.samples["breedcam_predictions_total"]) == len(card.labels)
    assert counted.by("breedcam_answers_total", "confidence") == Counter(
        (answer["confidence"],) for answer in answers
    )
    probabilities = [prediction["probability"] for prediction in top]
    name = "breedcam_top1_probability"
    assert counted.value(f"{name}_sum") == pytest.approx(sum(probabilities))
    assert counted.buckets(name) == {
        str(bound): sum(probability <= bound for probability in probabilities)
        for bound in PROBABILITY_BOUNDS
    } | {"+Inf": 12}


@pytest.mark.parametrize(
    ("novelty", "level", "count"), [(5.6, "ok", 1), (21.0, "low", 1), (np.nan, "low", 0)]
)
async def test_novelty_is_counted_over_its_limit(
    serve: Serve,
    make_service: MakeService,
    engine: Borrowed,
    calibrated: ModelCard,
    novelty: float,
    level: str,
    count: int,
) -> None:
    """The limit of the card `calibrated` is 7; the logits of `Painted` are log(1), log(2), ..."""
    painted = Painted(engine, calibrated, {"novelty": novelty})
    async with serve(make_service(engine=painted)) as client:
        await ask(client, "/predict")
        counted = await scrape(client)
    ratios = counted.buckets("breedcam_novelty_ratio")
    assert ratios == {str(bound): float(novelty / 7 <= bound) for bound in NOVELTY_BOUNDS} | {
        "+Inf": count
    }
    assert counted.value("breedcam_novelty_ratio_sum") == pytest.approx(novelty / 7 if count else 0)
    assert counted.by("breedcam_answers_total", "confidence") == {(level,): 1}
    # softmax(log(i) / 0.5) = i^2 / sum of squares
    classes = len(calibrated.labels)
    greatest = classes**2 / sum(number**2 for number in range(1, classes + 1))
    assert counted.value("breedcam_top1_probability_sum") == pytest.approx(greatest)
    last = calibrated.labels[-1].name
    assert counted.by("breedcam_predictions_total", "breed") == {(last,): 1}


async def test_a_model_without_calibration_answers_with_unknown_confidence(
    serve: Serve, make_service: MakeService, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    async with serve(make_service(engine=Painted(engine, uncalibrated))) as client:
        await ask(client, "/predict")
        counted = await scrape(client)
    assert counted.by("breedcam_answers_total", "confidence") == {("unknown",): 1}
    assert counted.value("breedcam_novelty_ratio_count") == 0
    assert not any("calibration" in name for name in counted.samples)


async def test_the_model_and_its_calibration(
    serve: Serve, make_service: MakeService, engine: Borrowed, calibrated: ModelCard
) -> None:
    classes = len(calibrated.labels)
    reference = Reference(
        probability={0.05: 0.0, 0.5: 0.125, 1.0: 1.0},
        novelty={1.0: 0.75},
        classes=(0.25, 0.75, *[0.0] * (classes - 2)),
        low=0.0625,
    )
    assert calibrated.confidence is not None
    limits = calibrated.confidence.model_copy(update={"reference": reference})
    card = calibrated.replace(confidence=limits)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card
    painted = Painted(engine, card)
    async with serve(make_service(engine=painted)) as client:
        model = (await client.get("/model")).json()
        counted = await scrape(client)
    info = {name: model["engine"][name] for name in ("precision", "device")} | {
        "name": model["name"],
        "version": str(model["version"]),
        "engine": model["engine"]["name"],
        "engine_version": model["engine"]["version"],
    }
    assert counted.value("breedcam_model_info", **info) == 1
    shares = "breedcam_calibration_{}_share"
    assert counted.by(shares.format("top1_probability"), "le") == {
        ("0.5",): 0.125,
        ("1.0",): 1,
        ("+Inf",): 1,
    }
    assert counted.by(shares.format("novelty_ratio"), "le") == {("1.0",): 0.75, ("+Inf",): 1}
    names = [label.name for label in card.labels]
    breeds = counted.by(shares.format("predictions"), "breed")
    assert breeds == {(names[0],): 0.25, (names[1],): 0.75}
    confidence = counted.by(shares.format("answers"), "confidence")
    assert confidence == {("ok",): 0.9375, ("low",): 0.0625}


def test_another_model_takes_the_place_of_the_one_before(
    shipped: Model, uncalibrated: ModelCard
) -> None:
    """In all that is shown of it: nothing of the one before is left."""
    metrics = Metrics()
    metrics.model(shipped.card, shipped.engine.info)
    metrics.model(uncalibrated.replace(version=2), shipped.engine.info)
    counted = Scrape(metrics.expose("text/plain")[0].decode())
    assert counted.by("breedcam_model_info", "version") == {("2",): 1}
    assert not [name for name in counted.samples if name.startswith("breedcam_calibration_")]
    metrics.model(shipped.card, shipped.engine.info)
    counted = Scrape(metrics.expose("text/plain")[0].decode())
    assert counted.by("breedcam_model_info", "version") == {(str(shipped.card.version),): 1}
    assert counted.value("breedcam_calibration_top1_probability_share", le="+Inf") == 1


def test_the_shipped_model_says_what_drift_is_measured_from(card: ModelCard) -> None:
    assert card.confidence is not None
    reference = card.confidence.reference
    assert reference is not None
    assert tuple(reference.probability) == PROBABILITY_BOUNDS
    assert reference.novelty is not None
    assert tuple(reference.novelty) == NOVELTY_BOUNDS
    for shares in (reference.probability, reference.novelty):
        assert list(shares.values()) == sorted(shares.values())
    assert reference.probability[1.0] == 1
    assert len(reference.classes) == len(card.labels)
    assert sum(reference.classes) == pytest.approx(1, abs=0.001)
    assert reference.low == pytest.approx(0.05, abs=0.005)


# -- exposition


async def test_formats_are_negotiated(client: httpx.AsyncClient) -> None:
    await ask(client, "/predict")
    prometheus = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    for accept, kind in [
        (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=x.y;escaping=?", "application/openmetrics-text"),
    ]:
        response = await client.get("/metrics", headers={"Accept": accept})
        assert response.status_code == 200
        assert response.headers.get_list("content-type")[0].startswith(kind)
        if "openmetrics" in kind:
            families = {family.name: family for family in openmetrics_families(response.text)}
            assert response.text.endswith("# EOF\n")
        else:
            families = {family.name: family for family in text_families(response.text)}
        counts = [
            sample.value
            for sample in families["breedcam_requests"].samples
            if sample.labels["route"] == "/predict"
        ]
        assert counts == [1]
    refused = await client.get("/metrics", headers={"Accept": "image/png"})
    problem(refused, 406, "not-acceptable")


async def test_head(client: httpx.AsyncClient) -> None:
    head = await client.head("/metrics")
    assert head.status_code == 200
    assert head.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(head.headers["content-length"]) > 1000


async def test_metrics_are_there_before_the_model() -> None:
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/readyz")).status_code == 503
        counted = await scrape(client)
    assert counted.value("breedcam_ready") == 0
    assert counted.by("breedcam_rejections_total", "reason") == {("not-ready",): 1}
    assert "breedcam_model_info" not in counted.samples


async def test_a_service_that_stops_is_not_ready(make_service: MakeService) -> None:
    service = make_service()
    app = create_app(service.settings, service)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        async with app.router.lifespan_context(app):
            assert (await scrape(client)).value("breedcam_ready") == 1
        assert (await scrape(client)).value("breedcam_ready") == 0


async def test_applications_count_for_themselves(serve: Serve) -> None:
    async with serve() as first, serve() as second:
        await ask(first, "/predict")
        for client, count in ((first, 1), (second, 0)):
            counted = await scrape(client)
            assert counted.value("breedcam_top1_probability_count") == count


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def count(_: int) -> None:
        metrics.request_begun()
        metrics.batch(3)
        metrics.answer(breed="beagle", probability=0.75, novelty=0.5, confidence="ok")
        metrics.request_ended("POST", "/cam", 429, 0.25, reason="queue-full")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(4000)))
    counted = Scrape(metrics.expose("text/plain")[0].decode())
    assert counted.value("breedcam_batch_size_sum") == 12000
    assert counted.value("breedcam_top1_probability_sum") == 3000
    assert counted.value("breedcam_requests_in_progress") == 0
    assert counted.by("breedcam_rejections_total", "reason") == {("queue-full",): 4000}
    assert counted.by("breedcam_predictions_total", "breed") == {("beagle",): 4000}


def test_connections_are_read_at_each_scrape() -> None:
    metrics, counts = Metrics(), [3, 4]
    metrics.connections(counts.pop, 9)
    for expected in (4, 3):
        counted = Scrape(metrics.expose("text/plain")[0].decode())
        assert counted.value("breedcam_connections") == expected
        assert counted.value("breedcam_connections_limit") == 9


def test_decoding_is_read_at_each_scrape() -> None:
    metrics, ended, pending = Metrics(), [3, 4], [50, 60]
    metrics.decoders(ended=ended.pop, pending_pixels=pending.pop, max_pending_pixels=99)
    for expected in (4, 3):
        counted = Scrape(metrics.expose("text/plain")[0].decode())
        assert counted.value("breedcam_decoders_ended_total") == expected
        assert counted.value("breedcam_pending_pixels") == 10 * expected + 20
        assert counted.value("breedcam_pending_pixels_limit") == 99


def test_faults_of_the_protocol_are_counted(observed: Observed) -> None:
    text = observed.openmetrics
    assert 'breedcam_rejections_total{reason="malformed-request"} 1.0' in text
    assert re.search(r"^breedcam_connections [1-9]", text, re.M)


# -- the process


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A child that has a child."""
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    yield shell
    os.killpg(shell.pid, 9)
    shell.wait()


def test_processes(family: subprocess.Popen[bytes]) -> None:
    metrics = Metrics()
    children = Path(f"/proc/{family.pid}/task/{family.pid}/children")
    while not (pids := children.read_text().split()):
        time.sleep(0.01)
    resident = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (family.pid, *pids)
    ]
    counted = Scrape(metrics.expose("text/plain")[0].decode())
    assert counted.value("breedcam_worker_processes") >= 2
    memory = counted.value("breedcam_worker_resident_memory_bytes")
    assert memory >= 0.5 * sum(resident) * resource.getpagesize() > 0
    own = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert counted.value("process_resident_memory_bytes") == pytest.approx(own, rel=0.1)
    assert counted.value("process_cpu_seconds_total") == pytest.approx(time.process_time(), abs=2)
    assert counted.value("process_open_fds") == pytest.approx(
        len(os.listdir("/proc/self/fd")), abs=3
    )
    assert 0 < time.time() - counted.value("process_start_time_seconds") < 24 * 3600


# -- the documents

GRAFANA, PROMETHEUS = DOCS / "grafana", DOCS / "prometheus"


@pytest.fixture
async def live(client: httpx.AsyncClient) -> Scrape:
    """After one request of each kind, so that every series is there."""
    for path in ENDPOINTS:
        await ask(client, path)
    await client.get("/x")
    return await scrape(client)


async def test_the_table_is_that_of_the_service(live: Scrape) -> None:
    text = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    rows = Table.read(text, "metric", "type", "labels").rows
    documented = {
        (name.strip("`"), kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in rows
    }
    assert len(rows) == len(documented)
    assert documented == {(family.name, family.kind, family.labels) for family in live.families}


def dashboard() -> Any:
    return json.loads((GRAFANA / "breedcam.json").read_text(encoding="utf-8"))


def expressions() -> dict[str, str]:
    """Every PromQL expression of dashboard, alerts and operations.md, by where it stands."""
    queries: dict[str, str] = {}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            queries[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            queries[variable["name"]] = re.sub(r"^label_values\((.*), \w+\)$", r"\1", query)
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            queries[rule["alert"]] = rule["expr"]
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|]+\?) \| `(.+)` \|$", page, re.M)
    assert len(table) >= 6
    return queries | dict(table)


async def test_expressions_name_what_there_is(live: Scrape) -> None:
    """Each name is a series of the service, and each label in braces or after `by` one of its."""
    queries = expressions()
    assert len(queries) > 20
    labels = {
        name: {label for series in samples for label, _ in series}
        for name, samples in live.samples.items()
    }
    everywhere = {"instance", "job"}
    for place, query in queries.items():
        names = re.findall(r"\b(?:breedcam|process)_\w+", query)
        assert names or query.startswith("up"), place
        for name in names:
            assert name in live.samples, f"{place}: {name}"
        for name, matchers in re.findall(r"\b((?:breedcam|process)_\w+)\{([^}]*)\}", query):
            for label in re.findall(r"(\w+)\s*(?:=~|!=|=|!~)", matchers):
                assert label in labels[name] | everywhere, f"{place}: {name}{{{label}}}"
        known = everywhere.union(*(labels[name] for name in names))
        for group in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", query):
            assert set(group.replace(" ", "").split(",")) <= known, f"{place}: {group}"


async def test_values_that_are_matched_occur(live: Scrape) -> None:
    """Of reasons, routes, stages and confidence: a wrong one would match nothing, ever."""
    values = {
        "reason": {dict(key)["reason"] for key in live.samples["breedcam_rejections_total"]},
        "route": set(ENDPOINTS),
        "stage": {"decode", "queue", "inference", "render"},
        "confidence": {"ok", "low", "unknown"},
        "result": {"served", "refused", "failed"},
    }
    matched = []
    for place, query in expressions().items():
        for label, sort, pattern in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', query):
            if label in values:
                alternatives = pattern.split("|") if "~" in sort else [pattern]
                assert set(alternatives) <= values[label], f"{place}: {label} {pattern}"
                matched.append(label)
    assert {"reason", "route", "confidence", "result"} <= set(matched)


async def test_texts_use_labels_that_their_expressions_keep(live: Scrape) -> None:
    """`{{label}}` in a legend, and `$labels` in an alert's summary."""
    texts: list[tuple[str, str, set[str]]] = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            legend = re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", ""))
            texts.append((panel["title"], target["expr"], set(legend)))
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            summary = rule["annotations"]["summary"]
            texts.append(
                (rule["alert"], rule["expr"], set(re.findall(r"\$labels\.(\w+)", summary)))
            )
    assert sum(bool(used) for *_, used in texts) > 10
    for place, query, used in texts:
        grouped = re.findall(r"\bby \(([^)]*)\)", query)
        names = re.findall(r"\b(?:breedcam|process)_\w+", query)
        labels = [{label for key in live.samples[name] for label, _ in key} for name in names]
        # An aggregation keeps what it is by; any other expression, the labels of its series.
        kept = {"instance", "job"}.union(*labels)
        if grouped:
            kept = set().union(*(set(group.replace(" ", "").split(",")) for group in grouped))
        assert used <= kept, f"{place}: {used}"


def test_loads_that_fail_alert_at_any_time_between_two_tries() -> None:
    """Tries are as far apart as looks, or five minutes where these are more often."""
    [poll_s] = [m.le for m in Settings.model_fields["model_poll_s"].metadata if hasattr(m, "le")]
    longest_h = max(poll_s, _MOST_WAIT_S) / 3600
    query = expressions()["BreedCAMModelNotLoaded"]
    ranges = re.findall(r"failed\"\}\[(\d+)h\]\) > (\d+)", query)
    assert len(ranges) == 2
    for hours, tries in ranges:
        assert float(hours) > (int(tries) + 1) * longest_h, query


async def test_every_metric_of_the_service_is_on_the_dashboard(live: Scrape) -> None:
    shown = " ".join(expressions().values())
    own = {family.name for family in live.families if family.name.startswith("breedcam_")}
    assert {name for name in own if name not in shown} == set()


def test_the_dashboard_is_whole() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 39
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        used = set(re.findall(r"\$(\w+)", json.dumps(panel["targets"])))
        assert used <= {*variables, "__rate_interval", "__range", "__interval"}


def test_prometheus_reads_its_files() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"] == ["alerts.yml"]
    [job] = config["scrape_configs"]
    assert job["job_name"] == "breedcam"
    assert job["static_configs"] == [{"targets": ["localhost:8000"]}]
    if promtool := shutil.which("promtool"):
        path = PROMETHEUS / "prometheus.yml"
        subprocess.run([promtool, "check", "config", str(path)], check=True, capture_output=True)
