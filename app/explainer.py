"""The way one photo takes: decode -> infer -> calibrate -> locate -> draw -> answer.

    step        from -> to                                        on
    _classes    names in the query -> their indexes               the event loop
    _decode     bytes -> the header, and what decoding will cost  the event loop if it is short
                bytes -> the model's input, pixels to draw on     a decoder process
    _infer      the model's input -> its outputs                  the inference thread, batched
    calibrated  outputs -> probabilities (`app.confidence`)       the event loop
    _locate     outputs -> heatmap, box and figures, by method    an image thread
    _draw       pixels, heatmaps and boxes -> the picture         the same
    _answer     figures and picture -> the body                   the same

`Explainer.explain` and `compare` take all of them: `_decode_and_infer` the first four; then
`_explained` and `_compared` carry the last three to an image thread. `predict` takes `_decode`,
`_infer` and `calibrated` only. The methods below these stand in this order. The caller holds a
place (`Explainer.admission`) and the deadline (`app.clock.deadline`).
"""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import confidence, engines, evidence, image_header, images, overlay, panels
from app.admission import Admission
from app.batching import Batcher
from app.bundle import Bundle, Method
from app.clock import Clock
from app.decoder import Decoded, Job
from app.decoding import Decoders
from app.engines import Batch, Cut, Engine
from app.errors import EngineDown, EngineFailed, RequestError, UnknownTarget
from app.evidence import MethodAtLayers, Outputs
from app.image_header import Limits
from app.metrics import Metrics
from app.panels import Panel
from app.schemas import (
    Compared,
    CompareQuery,
    CompareResponse,
    ExplainQuery,
    ExplainResponse,
    GradcamQuery,
    ImageInfo,
    ModelId,
    ModelInfo,
    Overlay,
    Prediction,
    PredictQuery,
    PredictResponse,
)
from app.settings import Settings
from app.watchdog import Watchdog

__all__ = ["Answer", "Explainer"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Response = TypeVar("Response", ExplainResponse, CompareResponse)
ConfidenceLevel = Literal["ok", "low"]

_STOP_S = 5.0
"""Over the deadline of the last requests, for the threads to end."""

SMALL_BYTES = 1 << 16
"""Of a photo whose header is read within 5 ms whatever it holds; an honest one's in 0.05 ms."""

NO_CLASS = -1
"""In a `Batch`: as `class_index`, the row's own top-1; as `versus_index`, none."""


@dataclass(frozen=True, slots=True)
class _Classes:
    """The classes that a query names, by index; `NO_CLASS` where it names none."""

    target: int = NO_CLASS
    versus: int = NO_CLASS


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a `Batch`: the model's input, uint8 RGB `[S, S, 3]`, and the classes."""

    image: npt.NDArray[np.uint8]
    classes: _Classes


@dataclass(frozen=True, slots=True)
class _Inferred:
    """A photo and the model's outputs for it, from which a response is made.

    Attributes:
        query: the request's parameters.
        decoded: the photo.
        info: its upright size.
        boxes: the request's, clipped to the photo.
        classes: those that the query names.
        outputs: the photo's row of the model's outputs.
        probabilities: float32 `[classes]`, calibrated where the model is.
        confidence: whether to doubt them; None where the model is not calibrated.
    """

    query: CompareQuery
    decoded: Decoded
    info: ImageInfo
    boxes: list[images.Box]
    classes: _Classes
    outputs: Outputs
    probabilities: npt.NDArray[np.float32]
    confidence: ConfidenceLevel | None


@dataclass(frozen=True, slots=True)
class _Picture:
    """The panels side by side: as a file, and as JSON has it."""

    file: bytes
    overlay: Overlay


@dataclass(frozen=True, slots=True)
class Answer(Generic[Response]):
    """Figures, and the body to send.

    Attributes:
        response: the figures; without the picture's data where `body` is the picture.
        body: JSON, or the picture alone where that is requested.
    """

    response: Response
    body: bytes


class Explainer:
    """A model version in service.

    Attributes:
        metrics: what is counted of it; `/metrics` shows them.
        observers: called on the event loop with the stopped clock of every photo, whether it was
            answered or failed.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        settings: Settings,
        *,
        decoders: Decoders | None = None,
        warm: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        """Put a loaded model into service; `start` starts its threads and processes.

        Args:
            bundle: the model version.
            engine: with the model loaded.
            settings: the service's.
            decoders: default: new ones, as the settings want them.
            warm: whether nothing is left to be done before the first request. If not,
                `in_service` sends a drawing down every path first.
            metrics: what is counted; default: its own.
        """
        self.card = bundle.card
        self.engine = engine
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.observers: list[Callable[[Clock], None]] = []
        self.admission = Admission(settings.max_pending, settings.max_pending_bytes)
        self._warm = warm
        self._model_id = ModelId(name=self.card.name, version=self.card.version)
        self._batcher: Batcher[Cut, _Row, Outputs] = Batcher(
            self._run_batch,
            max_batch=settings.max_batch,
            max_pending=settings.max_pending,
            wait_s=settings.batch_wait_s(on_gpu=engine.on_gpu),
        )
        self._decoders = decoders or Decoders.of(settings)
        self._pool = ThreadPoolExecutor(settings.image_threads, thread_name_prefix="image")
        self._threads = asyncio.Semaphore(settings.image_threads)
        self.metrics.model(self.card, engine.info)
        self.metrics.load(
            ready=lambda: self.ready,
            queued=lambda: self._batcher.depth,
            in_work=lambda: self.admission.admitted,
            held_bytes=lambda: self.admission.held_bytes,
            max_in_work=settings.max_pending,
            max_held_bytes=settings.max_pending_bytes,
        )
        self.metrics.decoders(
            ended=lambda: self._decoders.ended,
            pending_pixels=lambda: self._decoders.pending_pixels,
            max_pending_pixels=settings.max_pending_pixels,
        )

    @classmethod
    def open(cls, settings: Settings, *, metrics: Metrics | None = None) -> Self:
        """Verify the model version that the settings name, load it and warm it up.

        Args:
            settings: which model, and how it is run.
            metrics: what is counted; default: its own.

        Raises:
            StartupError: it cannot be served; the message says what to fix.
        """
        bundle = bundles.load(settings.model_path)
        engine = engines.create(bundle, **settings.engine_options)
        engine.warm_up(settings.max_batch)
        return cls(bundle, engine, settings, warm=False, metrics=metrics)

    @asynccontextmanager
    async def in_service(self, end: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Take requests while the block runs, under a `Watchdog`'s eyes.

        Args:
            end: ends the process at once, without regard to its threads; None where it is not the
                service's own.
        """
        ends = None if end is None else partial(self._end, end)
        watchdog = Watchdog(self._batcher, limit_s=self.settings.stuck_s, end=ends)
        async with watchdog.watching():
            self.start()
            try:
                await self._warm_up()
                yield
            finally:
                stopped = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.deadline_s + _STOP_S):
                        stopped = await asyncio.to_thread(self.stop)
                if not stopped and ends is not None:
                    log.critical("The service did not stop in time. The process ends.")
                    ends()

    def _end(self, end: Callable[[], None]) -> None:
        """End the process, and those that decode first: they are busy for seconds."""
        self._decoders.kill()
        end()

    async def _warm_up(self) -> None:
        """Send a drawing down every path, in each format: first uses load and compile things."""
        if self._warm:
            return
        ramp = np.linspace(0, 255, 640, dtype=np.uint8)
        drawing = np.stack(np.broadcast_arrays(ramp, ramp[:480, None], 128), axis=-1)
        counted, self.metrics = self.metrics, Metrics()  # no client has asked for these
        try:
            for media_type in overlay.MEDIA_TYPES:
                data = overlay.encode(drawing.astype(np.uint8), media_type)
                await self.predict(data, PredictQuery())
                for picture_as in (None, media_type):
                    await self.explain(data, GradcamQuery(), picture_as)
                    await self.compare(data, CompareQuery(), picture_as)
        finally:
            self.metrics = counted
        self._warm = True

    def start(self) -> None:
        """Start taking requests.

        Raises:
            StartupError: the processes that decode photos do not start here.
        """
        self._decoders.start()
        self._batcher.start()

    def stop(self) -> bool:
        """Finish what waits, then free the model; blocks, so it is not for the event loop.

        Returns:
            Whether the model could be freed. If not, it still runs, though nobody waits for its
            answer any more.
        """
        patience_s = self.settings.deadline_s
        until = time.monotonic() + patience_s
        # Those that wait for a call of the model go at the deadline.
        stopped = self._batcher.stop(max(0.0, patience_s - self._batcher.running_s))
        while self.admission.busy and time.monotonic() < until:
            time.sleep(0.01)  # what has left the model is being drawn
        self._decoders.stop()
        self._pool.shutdown()
        if stopped:
            self.engine.close()
        return stopped

    @property
    def ready(self) -> bool:
        """Loaded, warmed, worker alive."""
        return self._batcher.alive

    def check_alive(self) -> None:
        """Check that the process can go on.

        Raises:
            EngineDown: it has to be restarted: the model hangs, or its thread has died.
        """
        if self._batcher.down is not None:
            raise EngineDown(self._batcher.down)

    def describe(self) -> ModelInfo:
        """The model in service and the engine that runs it."""
        shared = self.card.model_dump(include=set(ModelInfo.model_fields))
        return ModelInfo(**shared, methods=self.card.methods, engine=self.engine.info)

    # -- the way of a photo

    async def predict(self, data: bytes, query: PredictQuery) -> PredictResponse:
        """The likeliest breeds of an encoded photo.

        Raises:
            RequestError: the photo cannot be used.
        """
        with self._observed() as clock:
            decoded = await self._decode(clock, data, None)
            # Not `Cut.PREDICT`: confidence needs the foreground and the novelty.
            outputs = await self._infer(clock, Cut.EXPLAIN, _Row(decoded.squashed, _Classes()))
            probabilities, level = self._assess(outputs)
            return PredictResponse(
                model=self._model_id,
                image=_info(decoded),
                predictions=self._top(probabilities, query.top_k),
                confidence=level,
                timings_ms=clock.timings_ms,
            )

    async def explain(
        self, data: bytes, query: ExplainQuery, picture_as: str | None = None
    ) -> Answer[ExplainResponse]:
        """The likeliest breeds, and where the evidence for one of them lies.

        Args:
            data: the encoded photo.
            query: the request's parameters.
            picture_as: one of `overlay.MEDIA_TYPES`, for the picture alone in place of JSON.

        Raises:
            RequestError: the photo or a parameter cannot be used.
        """
        spec = MethodAtLayers.parse(self.card, query.method, query.layers)
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, [spec])
            return await self._in_pool(self._explained, clock, inferred, spec, picture_as)

    def _explained(
        self, clock: Clock, inferred: _Inferred, spec: MethodAtLayers, picture_as: str | None
    ) -> Answer[ExplainResponse]:
        with clock.lap("render"):
            [panel] = self._locate(inferred, [spec])
            picture = _draw(inferred, [panel], picture_as)
        response = ExplainResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=self._target(inferred),
            explanation=panel.explanation,
            localization=panel.localization,
            overlay=picture.overlay if picture else None,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, picture, picture_as)

    async def compare(
        self, data: bytes, query: CompareQuery, picture_as: str | None = None
    ) -> Answer[CompareResponse]:
        """CAM, Grad-CAM at the last layer and over the last six, from one call of the model.

        A model without a head for CAM has the other two. See `explain` for arguments and errors.
        """
        methods = [(Method.CAM, "last")] if self.card.has_cam else []
        methods += [(Method.GRADCAM, "last"), (Method.GRADCAM, "last6")]
        parsed = [MethodAtLayers.parse(self.card, method, layers) for method, layers in methods]
        specs = list(dict.fromkeys(parsed))  # in a model of one layer, the last is the last six
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, specs)
            return await self._in_pool(self._compared, clock, inferred, specs, picture_as)

    def _compared(
        self,
        clock: Clock,
        inferred: _Inferred,
        specs: Sequence[MethodAtLayers],
        picture_as: str | None,
    ) -> Answer[CompareResponse]:
        with clock.lap("render"):
            located = self._locate(inferred, specs)
            picture = _draw(inferred, located, picture_as)
        response = CompareResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=self._target(inferred),
            explanations=[
                Compared(explanation=panel.explanation, localization=panel.localization)
                for panel in located
            ],
            overlay=picture.overlay if picture else None,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, picture, picture_as)

    async def _decode_and_infer(
        self, clock: Clock, data: bytes, query: CompareQuery, specs: Sequence[MethodAtLayers]
    ) -> _Inferred:
        """The steps up to the model's outputs, with as much of the model as the layers need."""
        # What can be known without the photo is refused first.
        for spec in specs:
            evidence.fused_rule(self.card, spec, query.rule)  # for what it raises
        classes = self._classes(query)
        size = (query.size or self.settings.overlay_size) if query.overlay else None
        decoded = await self._decode(clock, data, size)
        info = _info(decoded)
        boxes = [images.clip_box(box, info.width, info.height) for box in query.box]
        last_layer_only = all(spec.name == "last" for spec in specs)
        cut = Cut.EXPLAIN if last_layer_only else Cut.EXPLAIN_DEEP
        outputs = await self._infer(clock, cut, _Row(decoded.squashed, classes))
        # In `target_index` the graph has put the likeliest class in place of `NO_CLASS`.
        if int(outputs["target_index"]) == classes.versus:
            raise RequestError("`versus` names the class that is explained: the likeliest.")
        probabilities, level = self._assess(outputs)
        return _Inferred(query, decoded, info, boxes, classes, outputs, probabilities, level)

    # -- classes

    def _classes(self, query: CompareQuery) -> _Classes:
        """The classes that `target` and `versus` name.

        Raises:
            UnknownTarget: the model has no such class.
            RequestError: both name the same.
        """
        target = self._class_index("target", query.target)
        versus = self._class_index("versus", query.versus)
        if query.versus is not None and target == versus:
            raise RequestError("`target` and `versus` name the same class.")
        return _Classes(target, versus)

    def _class_index(self, parameter: str, name: str | None) -> int:
        """The class that a parameter names by index, synset or breed; `NO_CLASS` for None."""
        if name is None:
            return NO_CLASS
        indexes = self.card.classes_named(name)
        if len(indexes) > 1:
            fitting = ", ".join(f"{index} ({self.card.labels[index].name})" for index in indexes)
            raise UnknownTarget(f"`{parameter}`: {name!r} may mean any of the classes {fitting}.")
        if not indexes:
            near = self.card.near(name)
            raise UnknownTarget(
                f"`{parameter}`: the model has no class {name!r}; "
                + (f"near: {', '.join(near)}. " if near else "")
                + f"GET /model lists its {len(self.card.labels)}."
            )
        return indexes[0]

    # -- decode

    async def _decode(self, clock: Clock, data: bytes, size: int | None) -> Decoded:
        """The model's input, and the photo with its longer side at most `size` for drawing.

        What the photo will cost is read from its header first.
        """
        limit, input_spec = self.settings.max_pixels, self.card.input
        limits = Limits(pixels=limit)
        if len(data) > SMALL_BYTES:
            header = await self._in_pool(image_header.read, data, limits)
        else:  # quicker than a thread can be woken
            header = image_header.read(data, limits)
        job = Job(limit, input_spec.size, input_spec.resize, size)
        return await self._decoders.decode(data, job, header, clock)

    # -- infer

    async def _infer(self, clock: Clock, cut: Cut, row: _Row) -> Outputs:
        """One photo's outputs, from a batch with other requests' photos."""
        outcome = await self._batcher.submit(cut, row)
        clock.add("inference", outcome.begun, outcome.ended)
        return outcome.result

    def _run_batch(self, cut: Cut, rows: Sequence[_Row]) -> list[Outputs | Exception]:
        """Run a batch on the inference thread and cut the result into rows.

        A row without finite logits and probabilities is no answer. A map that is not finite is one
        (its `status` says so).
        """
        batch = Batch(
            np.stack([row.image for row in rows]),
            np.array([row.classes.target for row in rows], np.int32),
            np.array([row.classes.versus for row in rows], np.int32),
        )
        self.metrics.batch(len(rows))
        arrays = self.engine.run(cut, batch)
        scores = np.concatenate([arrays["logits"], arrays["probabilities"]], axis=1)
        finite: list[bool] = np.isfinite(scores).all(axis=1).tolist()  # by row
        return [
            {name: array[row] for name, array in arrays.items()}
            if sound
            else EngineFailed("The model's answer for this image is not finite.")
            for row, sound in enumerate(finite)
        ]

    # -- locate

    def _locate(self, inferred: _Inferred, specs: Sequence[MethodAtLayers]) -> list[Panel]:
        """Each method's evidence, and how it agrees with the request's boxes."""
        query, outputs, versus_index = inferred.query, inferred.outputs, inferred.classes.versus
        versus = None
        if versus_index != NO_CLASS:
            versus = self._prediction(inferred.probabilities, versus_index)
        foreground = None
        if any(evidence.fused_rule(self.card, spec, query.rule) for spec in specs):
            foreground = evidence.enlarged(self.card, evidence.foreground_of(self.card, outputs))
        return [
            panels.make(
                evidence.find(
                    self.card,
                    outputs,
                    spec,
                    rule=query.rule,
                    threshold=query.threshold,
                    foreground=foreground,
                ),
                spec,
                inferred.info,
                inferred.boxes,
                versus=versus,
                curve=query.curve,
            )
            for spec in specs
        ]

    # -- predictions

    def _target(self, inferred: _Inferred) -> Prediction:
        """The class that is explained: the one that the query names, or the likeliest."""
        return self._prediction(inferred.probabilities, int(inferred.outputs["target_index"]))

    def _prediction(self, probabilities: npt.NDArray[np.float32], index: int) -> Prediction:
        label = self.card.labels[index]
        return Prediction(
            class_index=index,
            label=label.name,
            synset=label.synset,
            probability=float(probabilities[index]),
        )

    def _top(self, probabilities: npt.NDArray[np.float32], k: int) -> list[Prediction]:
        order = np.argsort(-probabilities, kind="stable")[:k]
        return [self._prediction(probabilities, index) for index in order.tolist()]

    def _assess(self, outputs: Outputs) -> tuple[npt.NDArray[np.float32], ConfidenceLevel | None]:
        """A photo's probabilities, float32 `[classes]`, and whether to doubt them; counted."""
        probabilities = confidence.calibrated(self.card, outputs)
        ok = confidence.is_ok(self.card, outputs, probabilities)
        level: ConfidenceLevel | None = None if ok is None else "ok" if ok else "low"
        top = int(probabilities.argmax())
        self.metrics.answer(
            breed=self.card.labels[top].name,
            probability=float(probabilities[top]),
            novelty=confidence.novelty_ratio(self.card, outputs),
            confidence=level,
        )
        return probabilities, level

    @contextmanager
    def _observed(self) -> Iterator[Clock]:
        """The clock of one photo; the observers see it however the photo's way ends."""
        clock = Clock()
        try:
            yield clock
        finally:
            clock.stop()
            for observe in (self.metrics.stages, *self.observers):
                observe(clock)

    async def _in_pool(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step on an image thread: drawing and writing JSON take milliseconds."""
        # Waiting here rather than in the pool's queue, a request that is cancelled is gone at once.
        async with self._threads:
            work = asyncio.wrap_future(self._pool.submit(step, *args, **kwargs))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})  # the thread still holds what it works on
                work.cancelled() or work.exception()  # nobody else looks at it
                raise


# -- decoded


def _info(decoded: Decoded) -> ImageInfo:
    """The upright original's size."""
    return ImageInfo(width=decoded.width, height=decoded.height)


# -- draw, answer


def _draw(inferred: _Inferred, located: Sequence[Panel], picture_as: str | None) -> _Picture | None:
    """The panels in a row; None where the query wants no overlay.

    Where the picture alone is the body, its JSON holds no data.
    """
    pixels, info = inferred.decoded.pixels, inferred.info
    if pixels is None:
        return None
    drawn = [panels.draw(panel, pixels, inferred.query, info, inferred.boxes) for panel in located]
    row = overlay.side_by_side(drawn)
    file = overlay.encode(row, picture_as or overlay.MEDIA_TYPES[0])
    data = "" if picture_as else base64.b64encode(file).decode("ascii")
    height, width = row.shape[:2]
    return _Picture(
        file, Overlay(width=width, height=height, panel_width=pixels.shape[1], data=data)
    )


def _answer(
    response: Response, picture: _Picture | None, picture_as: str | None
) -> Answer[Response]:
    """The response with its body: the picture alone where that is requested, else JSON."""
    if picture_as and picture:
        return Answer(response, picture.file)
    return Answer(response, response.model_dump_json().encode())
