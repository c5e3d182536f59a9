"""What is counted and measured of the service, as Prometheus reads it.

docs/monitoring.md lists every metric. Labels take few values each: a request is counted by its
route's template, never by its path.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.bundle import NOVELTY_BOUNDS, PROBABILITY_BOUNDS, ModelCard
from app.clock import STAGES, Clock
from app.engines import BATCH_SIZES, EngineInfo
from app.errors import BreedCAMError, StartupError

__all__ = ["FORMATS", "Metrics"]

# A second series for each counter and histogram, for which Prometheus has no use.
disable_created_metrics()

FORMATS: Final = ("text/plain", "application/openmetrics-text")
"""Media types that `Metrics.expose` writes."""

_REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STAGE_BOUNDS = (0.0005, 0.001, 0.0025, *_REQUEST_BOUNDS[:-1])

LoadResult = Literal["served", "refused", "failed"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application, in a registry of their own.

    Its methods may be called from any thread.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Workers())
        self._requests = Counter(
            "breedcam_requests_total",
            "Requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self._durations = Histogram(
            "breedcam_request_duration_seconds",
            "From a request's arrival to the last byte of its answer",
            ["route"],
            buckets=_REQUEST_BOUNDS,
            registry=registry,
        )
        self._in_progress = Gauge(
            "breedcam_requests_in_progress", "Requests being handled", registry=registry
        )
        self._rejections = Counter(
            "breedcam_rejections_total",
            "Requests answered with a problem, by its code",
            ["reason"],
            registry=registry,
        )
        for code in _codes(BreedCAMError):
            self._rejections.labels(code)  # at zero, so that the first one is a change
        self._stages = Histogram(
            "breedcam_stage_duration_seconds",
            "Time of photos in each stage; queue is all the waiting between the others",
            ["stage"],
            buckets=_STAGE_BOUNDS,
            registry=registry,
        )
        self._stage = {stage: self._stages.labels(stage) for stage in STAGES}
        self._batches = Histogram(
            "breedcam_batch_size",
            "Photos in one call of the model, once for each target",
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self._add_load()
        self._add_answers()

    def _add_load(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"breedcam_{name}", text, registry=self._registry)

        self._ready = gauge("ready", "1 when the model is ready, else 0")
        self._queued = gauge("queue_depth", "Photos that wait for the model, once for each target")
        self._in_work = gauge("photos_in_work", "Photos between the end of upload and the answer")
        self._max_in_work = gauge("photos_in_work_limit", "The most of them: BREEDCAM_MAX_PENDING")
        self._connections = gauge("connections", "Open connections")
        self._max_connections = gauge(
            "connections_limit", "The most of them: BREEDCAM_MAX_CONNECTIONS"
        )
        self._held_bytes = gauge(
            "held_bytes", "Bytes of photos being read or in work, and of answers being sent"
        )
        self._max_held_bytes = gauge(
            "held_bytes_limit", "The most of them: BREEDCAM_MAX_PENDING_BYTES"
        )
        self._pending_pixels = gauge(
            "pending_pixels", "Pixels, by cost, of the large photos that wait or are decoded"
        )
        self._max_pending_pixels = gauge(
            "pending_pixels_limit", "The most of them: BREEDCAM_MAX_PENDING_PIXELS"
        )
        self._decoders = _Decoders()
        self._registry.register(self._decoders)

    def _add_answers(self) -> None:
        registry = self._registry
        self._model = Gauge(
            "breedcam_model_info",
            "The model in service and what runs it; always 1",
            ["name", "version", "engine", "engine_version", "precision", "device"],
            registry=registry,
        )
        self._loads = Counter(
            "breedcam_model_loads_total",
            "Tries to replace the model version in service, by what became of them",
            ["result"],
            registry=registry,
        )
        for result in get_args(LoadResult):
            self._loads.labels(result)
        self._confidence = Counter(
            "breedcam_answers_total",
            "Photos classified, by confidence; unknown: the model is not calibrated",
            ["confidence"],
            registry=registry,
        )
        for level in ("ok", "low", "unknown"):
            self._confidence.labels(level)
        self._breeds = Counter(
            "breedcam_predictions_total",
            "Photos classified, by the likeliest breed",
            ["breed"],
            registry=registry,
        )
        self._probability = Histogram(
            "breedcam_top1_probability",
            "Probability of the likeliest breed",
            buckets=PROBABILITY_BOUNDS,
            registry=registry,
        )
        self._novelty = Histogram(
            "breedcam_novelty_ratio",
            "Novelty of photos over the most at which confidence may be ok",
            buckets=NOVELTY_BOUNDS,
            registry=registry,
        )

        def share(name: str, text: str, label: str) -> Gauge:
            return Gauge(f"breedcam_calibration_{name}_share", text, [label], registry=registry)

        self._reference_probability = share(
            "top1_probability", "Share of validation photos at or under a probability", "le"
        )
        self._reference_novelty = share(
            "novelty_ratio", "Share of validation photos at or under a novelty ratio", "le"
        )
        self._reference_breeds = share(
            "predictions", "Share of validation photos, by the likeliest breed", "breed"
        )
        self._reference_confidence = share(
            "answers", "Share of validation photos, by confidence", "confidence"
        )

    # -- requests

    def request_begun(self) -> None:
        """A request has arrived."""
        self._in_progress.inc()

    def request_ended(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        *,
        reason: str = "",
        trace_id: str = "",
    ) -> None:
        """A request has been answered, or given up.

        Args:
            method: as the client wrote it.
            route: the template that its path matched.
            status: of the answer.
            seconds: since its arrival.
            reason: the code of the problem that it was answered with.
            trace_id: of its trace, which the duration's bucket then points to.
        """
        self._in_progress.dec()
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._durations.labels(route).observe(seconds, exemplar)
        if reason:
            self.rejected(reason)

    def rejected(self, reason: str) -> None:
        """A client was answered with a problem of this code."""
        self._rejections.labels(reason).inc()

    # -- photos

    def stages(self, clock: Clock) -> None:
        """A photo's way has ended."""
        for stage, seconds in clock.stages_s.items():
            self._stage[stage].observe(seconds)

    def batch(self, size: int) -> None:
        """The model is called with so many photos."""
        self._batches.observe(size)

    def answer(
        self, *, breed: str, probability: float, novelty: float | None, confidence: str | None
    ) -> None:
        """A photo was classified.

        Args:
            breed: the likeliest one.
            probability: its probability.
            novelty: over the most that is ok; None where the model does not measure it.
            confidence: `ok` or `low`; None where the model is not calibrated.
        """
        self._confidence.labels(confidence or "unknown").inc()
        self._breeds.labels(breed).inc()
        if math.isfinite(probability):  # else the sum would be lost for good
            self._probability.observe(probability)
        if novelty is not None and math.isfinite(novelty):
            self._novelty.observe(novelty)

    # -- the service

    def model(self, card: ModelCard, info: EngineInfo) -> None:
        """Show which model is served, and how it answered the validation photos.

        The series of the one before go.
        """
        runs = (info.name, info.version, info.precision, info.device)
        _show(self._model, {(card.name, str(card.version), *runs): 1.0})
        for label in card.labels:
            self._breeds.labels(label.name)
        reference = card.confidence.reference if card.confidence else None
        probability = reference.probability if reference else None
        novelty = reference.novelty if reference else None
        classes = reference.classes if reference else ()
        _show(self._reference_probability, _shares(probability))
        _show(self._reference_novelty, _shares(novelty))
        breeds = zip(card.labels, classes, strict=False)
        _show(self._reference_breeds, {(label.name,): share for label, share in breeds})
        confidence = {"low": reference.low, "ok": 1 - reference.low} if reference else {}
        _show(self._reference_confidence, {(level,): share for level, share in confidence.items()})

    def model_load(self, result: LoadResult) -> None:
        """Count a try to replace the version in service; `failed`: it will be tried again."""
        self._loads.labels(result).inc()

    def load(
        self,
        *,
        ready: Callable[[], bool],
        queued: Callable[[], int],
        in_work: Callable[[], int],
        held_bytes: Callable[[], int],
        max_in_work: int,
        max_held_bytes: int,
    ) -> None:
        """Show how much is in work: the callables are read at each scrape."""
        self._ready.set_function(ready)
        self._queued.set_function(queued)
        self._in_work.set_function(in_work)
        self._held_bytes.set_function(held_bytes)
        self._max_in_work.set(max_in_work)
        self._max_held_bytes.set(max_held_bytes)

    def decoders(
        self,
        *,
        ended: Callable[[], int],
        pending_pixels: Callable[[], int],
        max_pending_pixels: int,
    ) -> None:
        """Show what decoding holds and has cost: the callables are read at each scrape."""
        self._decoders.ended = ended
        self._pending_pixels.set_function(pending_pixels)
        self._max_pending_pixels.set(max_pending_pixels)

    def connections(self, count: Callable[[], int], most: int) -> None:
        """Show how many connections are open, read at each scrape, and how many may be."""
        self._connections.set_function(count)
        self._max_connections.set(most)

    # -- exposition

    def expose(self, media_type: str) -> tuple[bytes, str]:
        """All metrics as they are now.

        Args:
            media_type: one of `FORMATS`.

        Returns:
            The document, and its content type with version and character set.
        """
        if media_type == FORMATS[0]:
            return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
        return openmetrics.generate_latest(self._registry), openmetrics.CONTENT_TYPE_LATEST


def _show(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Have a gauge show these values, by their labels, and no others; never none in between."""
    [family] = gauge.collect()
    shown = {tuple(sample.labels.values()) for sample in family.samples}
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    for labels in shown - values.keys():
        gauge.remove(*labels)


def _shares(shares: Mapping[float, float] | None) -> dict[tuple[str, ...], float]:
    """Shares at or under bounds, by the bound as a label; all are under infinity."""
    bounds = [*shares.items(), (math.inf, 1.0)] if shares is not None else []
    return {(floatToGoString(bound),): share for bound, share in bounds}


def _codes(error: type[BreedCAMError]) -> Iterator[str]:
    """The codes of an error and of those under it, but for those that are never answered."""
    if issubclass(error, StartupError):
        return
    yield error.code
    for kind in error.__subclasses__():
        yield from _codes(kind)


class _Decoders(Collector):
    """A counter that someone else counts."""

    def __init__(self) -> None:
        self.ended: Callable[[], int] = lambda: 0

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "breedcam_decoders_ended",
            "Processes that ended, or had to be ended, before they had decoded their photo",
            self.ended(),
        )


class _Workers(Collector):
    """The processes that this one has started, and those that they have, by Linux's `/proc`."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Their number and memory; nothing on systems without `/proc`."""
        own = Path("/proc/self")
        if not own.exists():
            return
        memory = [_resident_bytes(process) for process in _descendants(own)]
        yield GaugeMetricFamily(
            "breedcam_worker_processes", "Processes that the service has started", len(memory)
        )
        yield GaugeMetricFamily(
            "breedcam_worker_resident_memory_bytes", "Resident memory of these", sum(memory)
        )


def _descendants(process: Path) -> Iterator[Path]:
    """The processes under one, each as its directory in `/proc`."""
    for children in process.glob("task/*/children"):
        # A process or thread may end meanwhile.
        with suppress(OSError):
            for pid in children.read_text().split():
                child = Path("/proc", pid)
                yield child
                yield from _descendants(child)


def _resident_bytes(process: Path) -> int:
    try:
        pages = int((process / "statm").read_text().split()[1])
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
