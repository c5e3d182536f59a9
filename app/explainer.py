"""The way one photo takes: decode -> infer -> calibrate -> locate -> draw -> answer.

    step        from -> to                                        on
    classes_of  names in the query -> their indexes               the event loop
    _decode     bytes -> the header, and what decoding will cost  the event loop if it is short
                bytes -> the model's input, pixels to draw on     a decoder process
    _infer      the model's input -> its outputs                  the inference thread, batched
    calibrated  outputs -> probabilities (`app.confidence`)       the event loop
    _foreground outputs -> the foreground, if it is needed        an image thread
    _locate     outputs -> heatmap, box and figures, by method    the same
    _draw       pixels, heatmaps and boxes -> the picture         the same
    _numbers    heatmaps -> their values in JSON, if requested    the same
    _photo      pixels -> the photo in JSON, if requested         the same
    _answer     all of these -> the body                          the same

`Explainer.explain` and `compare` take all of them: `_decode_and_infer` the first four; then
`_explained` and `_compared` carry the last six to an image thread. `predict` takes `_decode`,
`_infer` and `calibrated` only. The methods below these stand in this order. The caller holds a
place (`Explainer.admission`) and the deadline (`app.clock.deadline`). Model, decoders and threads
are started and stopped by `app.service`.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app import confidence, evidence, image_header, images, overlay, panels
from app.admission import Admission
from app.bundle import Method, ModelCard, near_classes
from app.clock import Clock
from app.decoder import Decoded, Job
from app.decoding import Decoders
from app.engines import Cut
from app.errors import RequestError, UnknownTarget
from app.evidence import MethodAtLayers, Outputs
from app.heatmaps import Heatmap
from app.metrics import Metrics
from app.model import NO_CLASS, Classes, Model, Row
from app.panels import Panel
from app.schemas import (
    MAX_PICTURES,
    Compared,
    CompareQuery,
    CompareResponse,
    EvidenceQuery,
    ExplainQuery,
    ExplainResponse,
    HeatmapData,
    ImageInfo,
    Limits,
    ModelId,
    ModelInfo,
    Overlay,
    Photo,
    Prediction,
    PredictQuery,
    PredictResponse,
)
from app.settings import Settings
from app.threads import Threads

__all__ = ["Answer", "Explainer", "classes_of"]

Response = TypeVar("Response", ExplainResponse, CompareResponse)
ConfidenceLevel = Literal["ok", "low"]

SMALL_BYTES = 1 << 16
"""Of a photo whose header is read within 5 ms whatever it holds; an honest one's in 0.05 ms."""


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

    query: EvidenceQuery
    decoded: Decoded
    info: ImageInfo
    boxes: list[images.Box]
    classes: Classes
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
    """Answers requests with one model version, so that an answer is all of one version.

    Attributes:
        model: the model version.
        admission: who may enter; the caller holds a place there.
        settings: the service's.
        since: when it began to serve; before that, when it was set up.
    """

    def __init__(
        self,
        model: Model,
        decoders: Decoders,
        threads: Threads,
        admission: Admission,
        settings: Settings,
        metrics: Metrics,
        observers: Sequence[Callable[[Clock], None]] = (),
    ) -> None:
        """Set it up; whoever made the model, the decoders and the threads starts them.

        Args:
            model: the model version.
            decoders: decode photos.
            threads: draw, and write answers.
            admission: who may enter.
            settings: the service's.
            metrics: what is counted of answers.
            observers: called on the event loop with the stopped clock of every photo, whether it
                was answered or failed.
        """
        self.model = model
        self.admission = admission
        self.settings = settings
        self.since = datetime.now(UTC)
        self._card = model.card
        self._model_id = ModelId(name=self._card.name, version=self._card.version)
        self._limits = image_header.Limits(pixels=settings.max_pixels)
        self._decoders = decoders
        self._threads = threads
        self._metrics = metrics
        self._observers = observers
        self._holders = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether the model takes photos."""
        return self.model.ready

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep the model version for a request to its end, whatever is served meanwhile."""
        self._holders += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self._holders -= 1
            if not self._holders:
                self._idle.set()

    async def until_idle(self) -> None:
        """Wait until no request holds it."""
        await self._idle.wait()

    def check_alive(self) -> None:
        """Check that the process can go on.

        Raises:
            EngineDown: it has to be restarted: the model hangs, or its thread has died.
        """
        self.model.check_alive()

    def describe(self) -> ModelInfo:
        """The model in service, the engine that runs it, and the limits of photos."""
        shared = self._card.model_dump(include=set(ModelInfo.model_fields))
        limits = Limits(
            upload_bytes=self.settings.max_bytes,
            pixels=self._limits.pixels,
            side=self._limits.side,
        )
        return ModelInfo(
            **shared,
            since=self.since,
            methods=self._card.methods,
            engine=self.model.engine.info,
            limits=limits,
            ratings=self.settings.ratings is not None,
        )

    # -- the way of a photo

    async def predict(self, data: bytes, query: PredictQuery) -> PredictResponse:
        """The likeliest breeds of an encoded photo.

        Raises:
            RequestError: the photo cannot be used.
        """
        with self._observed() as clock:
            decoded = await self._decode(clock, data, None)
            # Not `Cut.PREDICT`: confidence needs the foreground and the novelty.
            outputs = await self._infer(clock, Cut.EXPLAIN, Row(decoded.squashed, Classes()))
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
        spec = MethodAtLayers.parse(self._card, query.method, query.layers)
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, [spec])
            return await self._threads.run(self._explained, clock, inferred, spec, picture_as)

    def _explained(
        self, clock: Clock, inferred: _Inferred, spec: MethodAtLayers, picture_as: str | None
    ) -> Answer[ExplainResponse]:
        with clock.lap("render"):
            foreground = self._foreground(inferred, [spec])
            [panel] = self._locate(inferred, [spec], foreground)
            picture = _draw(inferred, [panel], picture_as)
            photo = _photo(inferred)
        response = ExplainResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=self._target(inferred),
            explanation=panel.explanation,
            localization=panel.localization,
            heatmap=_numbers(inferred.query, panel.evidence.heatmap),
            foreground=_numbers(inferred.query, foreground),
            overlay=picture.overlay if picture else None,
            photo=photo,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, picture, picture_as)

    async def compare(
        self, data: bytes, query: CompareQuery, picture_as: str | None = None
    ) -> Answer[CompareResponse]:
        """Explanations by several methods, in the order of the query, from one call of the model.

        See `explain` for arguments and errors.
        """
        specs = self._specs(query)
        if query.overlay and len(specs) > MAX_PICTURES:
            raise RequestError(
                f"`method`: an overlay shows {MAX_PICTURES} methods at most. For more, send "
                "`overlay=false`."
            )
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, specs)
            return await self._threads.run(self._compared, clock, inferred, specs, picture_as)

    def _specs(self, query: CompareQuery) -> list[MethodAtLayers]:
        """The methods that a query compares.

        By default CAM, if the model has it, and Grad-CAM at the last layer and over the last six.
        """
        if query.method:
            return [MethodAtLayers.parse(self._card, *method) for method in query.method]
        methods = [(Method.CAM, "last")] if self._card.has_cam else []
        methods += [(Method.GRADCAM, "last"), (Method.GRADCAM, "last6")]
        parsed = [MethodAtLayers.parse(self._card, *method) for method in methods]
        return list(dict.fromkeys(parsed))  # in a model of one layer, the last is the last six

    def _compared(
        self,
        clock: Clock,
        inferred: _Inferred,
        specs: Sequence[MethodAtLayers],
        picture_as: str | None,
    ) -> Answer[CompareResponse]:
        with clock.lap("render"):
            foreground = self._foreground(inferred, specs)
            located = self._locate(inferred, specs, foreground)
            picture = _draw(inferred, located, picture_as)
            photo = _photo(inferred)
        response = CompareResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=self._target(inferred),
            explanations=[
                Compared(
                    explanation=panel.explanation,
                    localization=panel.localization,
                    heatmap=_numbers(inferred.query, panel.evidence.heatmap),
                )
                for panel in located
            ],
            foreground=_numbers(inferred.query, foreground),
            overlay=picture.overlay if picture else None,
            photo=photo,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, picture, picture_as)

    async def _decode_and_infer(
        self, clock: Clock, data: bytes, query: EvidenceQuery, specs: Sequence[MethodAtLayers]
    ) -> _Inferred:
        """The steps up to the model's outputs, with as much of the model as the layers need."""
        # What can be known without the photo is refused first.
        for spec in specs:
            evidence.fused_rule(self._card, spec, query.rule)  # for what it raises
        classes = classes_of(self._card, query)
        pictured = query.overlay or query.photo
        size = (query.size or self.settings.overlay_size) if pictured else None
        decoded = await self._decode(clock, data, size)
        info = _info(decoded)
        boxes = [images.clip_box(box, info.width, info.height) for box in query.box]
        last_layer_only = all(spec.name == "last" for spec in specs)
        cut = Cut.EXPLAIN if last_layer_only else Cut.EXPLAIN_DEEP
        outputs = await self._infer(clock, cut, Row(decoded.squashed, classes))
        # In `target_index` the graph has put the likeliest class in place of `NO_CLASS`.
        if int(outputs["target_index"]) == classes.versus:
            raise RequestError("`versus` names the class that is explained: the likeliest.")
        probabilities, level = self._assess(outputs)
        return _Inferred(query, decoded, info, boxes, classes, outputs, probabilities, level)

    # -- decode

    async def _decode(self, clock: Clock, data: bytes, size: int | None) -> Decoded:
        """The model's input, and the photo with its longer side at most `size` for drawing.

        What the photo will cost is read from its header first.
        """
        input_spec = self._card.input
        if len(data) > SMALL_BYTES:
            header = await self._threads.run(image_header.read, data, self._limits)
        else:  # quicker than a thread can be woken
            header = image_header.read(data, self._limits)
        job = Job(self._limits.pixels, input_spec.size, input_spec.resize, size)
        return await self._decoders.decode(data, job, header, clock)

    # -- infer

    async def _infer(self, clock: Clock, cut: Cut, row: Row) -> Outputs:
        """One photo's outputs, from a batch with other requests' photos."""
        outcome = await self.model.run(cut, row)
        clock.add("inference", outcome.begun, outcome.ended)
        return outcome.result

    # -- locate

    def _foreground(self, inferred: _Inferred, specs: Sequence[MethodAtLayers]) -> Heatmap | None:
        """The foreground's heatmap, if a method's rule or the request needs it."""
        query = inferred.query
        fused = [evidence.fused_rule(self._card, spec, query.rule) for spec in specs]
        if not (query.heatmap or any(fused)):
            return None
        return evidence.foreground_of(self._card, inferred.outputs)

    def _locate(
        self,
        inferred: _Inferred,
        specs: Sequence[MethodAtLayers],
        foreground: Heatmap | None,
    ) -> list[Panel]:
        """Each method's evidence, and how it agrees with the request's boxes."""
        query, outputs, versus_index = inferred.query, inferred.outputs, inferred.classes.versus
        versus = None
        if versus_index != NO_CLASS:
            versus = self._prediction(inferred.probabilities, versus_index)
        # `[h, w]` -> `[S, S]`, once for all methods
        enlarged = None if foreground is None else evidence.enlarged(self._card, foreground)
        return [
            panels.make(
                evidence.find(
                    self._card,
                    outputs,
                    spec,
                    rule=query.rule,
                    threshold=query.threshold,
                    foreground=enlarged,
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
        label = self._card.labels[index]
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
        probabilities = confidence.calibrated(self._card, outputs)
        ok = confidence.is_ok(self._card, outputs, probabilities)
        level: ConfidenceLevel | None = None if ok is None else "ok" if ok else "low"
        top = int(probabilities.argmax())
        self._metrics.answer(
            breed=self._card.labels[top].name,
            probability=float(probabilities[top]),
            novelty=confidence.novelty_ratio(self._card, outputs),
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
            for observe in self._observers:
                observe(clock)


# -- classes


def classes_of(card: ModelCard, query: EvidenceQuery) -> Classes:
    """The classes that `target` and `versus` name.

    Raises:
        UnknownTarget: the model has no such class.
        RequestError: both name the same.
    """
    target = _class_index(card, "target", query.target)
    versus = _class_index(card, "versus", query.versus)
    if query.versus is not None and target == versus:
        raise RequestError("`target` and `versus` name the same class.")
    return Classes(target, versus)


def _class_index(card: ModelCard, parameter: str, name: str | None) -> int:
    """The class that a parameter names by index, synset or breed; `NO_CLASS` for None."""
    if name is None:
        return NO_CLASS
    indexes = card.classes_named(name)
    if len(indexes) > 1:
        fitting = ", ".join(f"{index} ({card.labels[index].name})" for index in indexes)
        raise UnknownTarget(f"`{parameter}`: {name!r} may mean any of the classes {fitting}.")
    if not indexes:
        near = near_classes(name, card.labels)
        raise UnknownTarget(
            f"`{parameter}`: the model has no class {name!r}; "
            + (f"near: {', '.join(near)}. " if near else "")
            + f"GET /model lists its {len(card.labels)}."
        )
    return indexes[0]


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
    if pixels is None or not inferred.query.overlay:
        return None
    drawn = [panels.draw(panel, pixels, inferred.query, info, inferred.boxes) for panel in located]
    row = overlay.side_by_side(drawn)
    file = overlay.encode(row, picture_as or overlay.MEDIA_TYPES[0])
    data = "" if picture_as else base64.b64encode(file).decode("ascii")
    height, width = row.shape[:2]
    return _Picture(
        file, Overlay(width=width, height=height, panel_width=pixels.shape[1], data=data)
    )


def _numbers(query: EvidenceQuery, heatmap: Heatmap | None) -> HeatmapData | None:
    """A heatmap for JSON; None where the query does not want it."""
    return panels.numbers(heatmap) if query.heatmap and heatmap else None


def _photo(inferred: _Inferred) -> Photo | None:
    """The scaled photo for JSON; None where the query does not want it."""
    pixels = inferred.decoded.pixels
    if pixels is None or not inferred.query.photo:
        return None
    height, width = pixels.shape[:2]
    data = base64.b64encode(overlay.encode(pixels, overlay.JPEG)).decode("ascii")
    return Photo(width=width, height=height, data=data)


def _answer(
    response: Response, picture: _Picture | None, picture_as: str | None
) -> Answer[Response]:
    """The response with its body: the picture alone where that is requested, else JSON."""
    if picture_as and picture:
        return Answer(response, picture.file)
    return Answer(response, response.model_dump_json().encode())
