"""The way one photo takes: decode -> infer -> calibrate -> locate -> draw -> answer.

    step        from -> to                                        on
    Form        what is wanted of the photo (`app.answers`)       the event loop
    classes_of  names in the query -> indexes (`app.classes`)     the same
    _decode     bytes -> the header, and what decoding will cost  the event loop if it is short
                bytes -> the model's input, pixels to draw on     a decoder process
    _infer      the model's input -> outputs, a row a target      the inference thread, batched
    calibrated  outputs -> probabilities (`app.confidence`)       the event loop
    _foreground outputs -> the foreground, if it is needed        an image thread
    _locate     outputs -> heatmap, box and figures, by method    the same
    draw        pixels, heatmaps and boxes -> the picture         the same
    numbers     heatmaps -> their values in JSON, if requested    the same
    photo       pixels -> the photo in JSON, if requested         the same
    file        picture or heatmaps -> the body, if requested     the same
    _answer     all of these -> the body                          the same

`Explainer.explain` and `compare` take all of them: `_decode_and_infer` those up to `calibrated`;
then `_explained` and `_compared` carry the others to an image thread, where `_render` takes all but
the last. `draw`, `numbers`, `photo` and `file` are in `app.answers`. `predict` takes `_decode`,
`_infer` and `calibrated` only. The methods below these stand in this order. The caller holds a
place (`Explainer.admission`) and the deadline (`app.clock.deadline`). Model, decoders and threads
are started and stopped by `app.service`.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app import answers, confidence, evidence, image_header, images, panels
from app.admission import Admission
from app.answers import Form
from app.bundle import Method
from app.classes import classes_of
from app.clock import Clock
from app.decoder import Decoded, Job
from app.decoding import Decoders
from app.engines import Cut
from app.errors import RequestError
from app.evidence import MethodAtLayers, Outputs
from app.heatmaps import Heatmap
from app.metrics import Metrics
from app.model import NO_CLASS, Classes, Model, Row
from app.panels import Panel
from app.schemas import (
    Compared,
    CompareQuery,
    CompareResponse,
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

__all__ = ["Answer", "Explainer"]

Response = TypeVar("Response", ExplainResponse, CompareResponse)
ConfidenceLevel = Literal["ok", "low"]

SMALL_BYTES = 1 << 16
"""Of a photo whose header is read within 5 ms whatever it holds; an honest one's in 0.05 ms."""


@dataclass(frozen=True, slots=True)
class _Inferred:
    """A photo and the model's outputs for it, from which a response is made.

    Attributes:
        query: the request's parameters.
        form: what the response holds, and as what.
        decoded: the photo.
        info: its upright size.
        boxes: the request's, clipped to the photo.
        versus: the class that the query explains against, or `NO_CLASS`.
        outputs: for each target, the photo's row of the model's outputs.
        probabilities: float32 `[classes]`, calibrated where the model is.
        confidence: whether to doubt them; None where the model is not calibrated.
    """

    query: ExplainQuery | CompareQuery
    form: Form
    decoded: Decoded
    info: ImageInfo
    boxes: list[images.Box]
    versus: int
    outputs: list[Outputs]
    probabilities: npt.NDArray[np.float32]
    confidence: ConfidenceLevel | None


@dataclass(frozen=True, slots=True)
class _Rendered:
    """What a response is made of beside figures.

    Attributes:
        panels: the explanations: target by target, and the methods of each.
        heatmaps: theirs, as numbers in JSON; None where they are not requested.
        foreground: the foreground's, likewise.
        overlay: the panels side by side, for JSON.
        photo: for JSON.
        file: the picture or the heatmaps as a body of their own; None: it is JSON.
    """

    panels: list[Panel]
    heatmaps: list[HeatmapData | None]
    foreground: HeatmapData | None
    overlay: Overlay | None
    photo: Photo | None
    file: bytes | None


@dataclass(frozen=True, slots=True)
class Answer(Generic[Response]):
    """Figures, and the body to send.

    Attributes:
        response: the figures; without the picture's data where `body` is the picture.
        body: JSON, or the picture or the heatmaps alone where they are requested.
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
            [outputs] = await self._infer(clock, Cut.EXPLAIN, [Row(decoded.squashed, Classes())])
            probabilities, level = self._assess(outputs)
            return PredictResponse(
                model=self._model_id,
                image=_info(decoded),
                predictions=self._top(probabilities, query.top_k),
                confidence=level,
                timings_ms=clock.timings_ms,
            )

    async def explain(
        self, data: bytes, query: ExplainQuery, media_type: str | None = None
    ) -> Answer[ExplainResponse]:
        """The likeliest breeds, and where the evidence for one of them lies.

        Args:
            data: the encoded photo.
            query: the request's parameters.
            media_type: one of `answers.MEDIA_TYPES`, for the picture or the heatmap alone; None:
                JSON.

        Raises:
            RequestError: the photo or a parameter cannot be used.
        """
        spec = MethodAtLayers.parse(self._card, query.method, query.layers)
        form = Form(query, media_type, self.settings)
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, form, [spec])
            return await self._threads.run(self._explained, clock, inferred, spec)

    def _explained(
        self, clock: Clock, inferred: _Inferred, spec: MethodAtLayers
    ) -> Answer[ExplainResponse]:
        rendered = self._render(clock, inferred, [spec])
        [panel], [heatmap], [target] = rendered.panels, rendered.heatmaps, self._targets(inferred)
        response = ExplainResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=target,
            explanation=panel.explanation,
            localization=panel.localization,
            heatmap=heatmap,
            foreground=rendered.foreground,
            overlay=rendered.overlay,
            photo=rendered.photo,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, rendered)

    async def compare(
        self, data: bytes, query: CompareQuery, media_type: str | None = None
    ) -> Answer[CompareResponse]:
        """Explanations of several classes by several methods, from one call of the model.

        They come in the order of the query: target by target, and the methods of each. See
        `explain` for arguments and errors.
        """
        specs = self._specs(query)
        form = Form(query, media_type, self.settings)
        with self._observed() as clock:
            inferred = await self._decode_and_infer(clock, data, query, form, specs)
            return await self._threads.run(self._compared, clock, inferred, specs)

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
        self, clock: Clock, inferred: _Inferred, specs: Sequence[MethodAtLayers]
    ) -> Answer[CompareResponse]:
        rendered = self._render(clock, inferred, specs)
        targets = self._targets(inferred)
        of_panels = [target for target in targets for _ in specs]
        explained = zip(of_panels, rendered.panels, rendered.heatmaps, strict=True)
        response = CompareResponse(
            model=self._model_id,
            image=inferred.info,
            predictions=self._top(inferred.probabilities, inferred.query.top_k),
            confidence=inferred.confidence,
            target=targets[0],
            explanations=[
                Compared(
                    target=target,
                    explanation=panel.explanation,
                    localization=panel.localization,
                    heatmap=heatmap,
                )
                for target, panel, heatmap in explained
            ],
            foreground=rendered.foreground,
            overlay=rendered.overlay,
            photo=rendered.photo,
            timings_ms=clock.timings_ms,
        )
        return _answer(response, rendered)

    async def _decode_and_infer(
        self,
        clock: Clock,
        data: bytes,
        query: ExplainQuery | CompareQuery,
        form: Form,
        specs: Sequence[MethodAtLayers],
    ) -> _Inferred:
        """The steps up to the model's outputs, with as much of the model as the layers need."""
        # What can be known without the photo is refused first.
        for spec in specs:
            evidence.fused_rule(self._card, spec, query.rule)  # for what it raises
        classes = classes_of(self._card, query)
        form.check(self._card, specs, targets=len(classes))
        decoded = await self._decode(clock, data, form.decoded_size)
        info = _info(decoded)
        boxes = [images.clip_box(box, info.width, info.height) for box in query.box]
        form.check_size(info, len(classes) * len(specs))
        last_layer_only = all(spec.name == "last" for spec in specs)
        cut = Cut.EXPLAIN if last_layer_only else Cut.EXPLAIN_DEEP
        outputs = await self._infer(clock, cut, [Row(decoded.squashed, row) for row in classes])
        # In `target_index` the graph has put the likeliest class in place of `NO_CLASS`.
        versus = classes[0].versus
        if int(outputs[0]["target_index"]) == versus:
            raise RequestError("`versus` names the class that is explained: the likeliest.")
        probabilities, level = self._assess(outputs[0])
        return _Inferred(query, form, decoded, info, boxes, versus, outputs, probabilities, level)

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

    async def _infer(self, clock: Clock, cut: Cut, rows: Sequence[Row]) -> list[Outputs]:
        """One photo's outputs by row, from a batch with other requests' photos."""
        outcomes = await self.model.run(cut, rows)
        calls = dict.fromkeys((outcome.begun, outcome.ended) for outcome in outcomes)
        for begun, ended in calls:
            clock.add("inference", begun, ended)
        return [outcome.result for outcome in outcomes]

    # -- render

    def _render(
        self, clock: Clock, inferred: _Inferred, specs: Sequence[MethodAtLayers]
    ) -> _Rendered:
        """All that takes time once the model has answered."""
        form, decoded, info = inferred.form, inferred.decoded, inferred.info
        with clock.lap("render"):
            foreground = self._foreground(inferred, specs)
            # `[h, w]` -> `[S, S]`, once for all
            enlarged = None if foreground is None else evidence.enlarged(self._card, foreground)
            located = self._locate(inferred, specs, enlarged)
            picture = answers.draw(form, decoded, info, inferred.boxes, located)
            return _Rendered(
                panels=located,
                heatmaps=[
                    answers.numbers(form, info, panel.evidence.heatmap, panel.evidence.values)
                    for panel in located
                ],
                foreground=answers.numbers(form, info, foreground, enlarged),
                overlay=picture.overlay if picture else None,
                photo=answers.photo(form, decoded),
                file=answers.file(form, info, located, picture),
            )

    def _foreground(self, inferred: _Inferred, specs: Sequence[MethodAtLayers]) -> Heatmap | None:
        """The foreground's heatmap, of no class, if a method's rule or the request needs it."""
        query = inferred.query
        fused = [evidence.fused_rule(self._card, spec, query.rule) for spec in specs]
        if not (query.heatmap or any(fused)):
            return None
        return evidence.foreground_of(self._card, inferred.outputs[0])

    def _locate(
        self,
        inferred: _Inferred,
        specs: Sequence[MethodAtLayers],
        foreground: npt.NDArray[np.float32] | None,
    ) -> list[Panel]:
        """Each method's evidence for each target, and how it agrees with the request's boxes."""
        query, versus = inferred.query, None
        if inferred.versus != NO_CLASS:
            versus = self._prediction(inferred.probabilities, inferred.versus)
        return [
            panels.make(
                evidence.find(
                    self._card,
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
            for outputs in inferred.outputs
            for spec in specs
        ]

    # -- predictions

    def _targets(self, inferred: _Inferred) -> list[Prediction]:
        """The classes that are explained: those that the query names, or the likeliest."""
        indexes = [int(outputs["target_index"]) for outputs in inferred.outputs]
        return [self._prediction(inferred.probabilities, index) for index in indexes]

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


# -- decode, answer


def _info(decoded: Decoded) -> ImageInfo:
    """The upright original's size."""
    return ImageInfo(width=decoded.width, height=decoded.height)


def _answer(response: Response, rendered: _Rendered) -> Answer[Response]:
    """The response with its body: a picture or heatmaps alone where requested, else JSON."""
    return Answer(response, rendered.file or response.model_dump_json().encode())
