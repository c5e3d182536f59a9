"""The way one photo takes: decode -> batch -> locate -> render."""

import asyncio
import base64
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import confidence, engines, evidence, images, overlay, panels
from app.admission import Admission
from app.batching import Batcher
from app.bundle import Bundle, Method
from app.clock import Clock
from app.engines import Batch, Cut, Engine
from app.errors import DeadlineExceeded, RequestError, UnknownTarget
from app.evidence import MethodAtLayers
from app.panels import Panel
from app.schemas import (
    Compared,
    CompareQuery,
    CompareResponse,
    ExplainQuery,
    ExplainResponse,
    ImageInfo,
    ModelId,
    ModelInfo,
    Overlay,
    Prediction,
    PredictQuery,
    PredictResponse,
)
from app.settings import Settings

__all__ = ["Answer", "Explainer"]

T = TypeVar("T")
Response = TypeVar("Response", ExplainResponse, CompareResponse)
Rows = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Input:
    """One row of a batch: a squashed photo and the classes asked for, -1 for none."""

    image: npt.NDArray[np.uint8]
    class_index: int = -1
    versus_index: int = -1


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A photo's size, the model's input, and what is drawn on, where anything is."""

    photo: ImageInfo
    squashed: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a photo, and what the model says of it.

    Attributes:
        query: the parameters.
        decoded: the photo.
        given: the boxes that came with it, clipped to it.
        versus: the class to explain against, -1 for none.
        rows: the model's outputs.
    """

    query: CompareQuery
    decoded: _Decoded
    given: list[images.Box]
    versus: int
    rows: Rows


@dataclass(frozen=True)
class Answer(Generic[Response]):
    """Figures, and the body to send.

    Attributes:
        response: the figures; without the picture where `body` is the picture.
        body: JSON, or the picture alone where that was asked for.
    """

    response: Response
    body: bytes


class Explainer:
    """A model version in service."""

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings) -> None:
        """Put a loaded model into service; `start` starts its threads."""
        self.card = bundle.card
        self.engine = engine
        self.settings = settings
        self.admission = Admission(settings.max_pending, settings.max_pending_bytes)
        self._model_id = ModelId(name=self.card.name, version=self.card.version)
        self._batcher: Batcher[Cut, Input, Rows] = Batcher(
            self._infer,
            max_batch=settings.max_batch,
            max_pending=settings.max_pending,
            wait_s=settings.batch_wait_s(on_gpu=engine.on_gpu),
        )
        self._pool = ThreadPoolExecutor(settings.image_threads, thread_name_prefix="image")

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Verify the model version that the settings name, load it and warm it up.

        Raises:
            StartupError: it cannot be served; the message says what to mend.
        """
        bundle = bundles.load(settings.model_path)
        engine = engines.create(bundle, **settings.engine_options)
        engine.warm_up(settings.max_batch)
        return cls(bundle, engine, settings)

    def start(self) -> None:
        """Start taking requests."""
        self._batcher.start()

    def stop(self) -> None:
        """Finish what waits, then free the model; blocks, so it is not for the event loop."""
        self._batcher.stop()
        until = time.monotonic() + self.settings.deadline_s
        while self.admission.busy and time.monotonic() < until:
            time.sleep(0.01)  # what has left the model is being drawn
        self._pool.shutdown()
        self.engine.close()

    @property
    def ready(self) -> bool:
        """Loaded, warmed, worker alive."""
        return self._batcher.alive

    async def predict(
        self, data: bytes, query: PredictQuery, remaining_s: float
    ) -> PredictResponse:
        """The likeliest breeds of an encoded photo.

        Raises:
            RequestError: the photo cannot be used.
            DeadlineExceeded: no answer within `remaining_s`.
        """
        clock = Clock(remaining_s)
        decoded = await self._in_pool(clock, self._decode, clock, data)
        rows = await self._run_model(clock, Cut.EXPLAIN, Input(decoded.squashed))
        return PredictResponse(
            model=self._model_id,
            image=decoded.photo,
            predictions=self._top(self._probabilities(rows), query.top_k),
            confidence=self._confidence(rows),
            timings_ms=clock.timings_ms,
        )

    async def explain(
        self, data: bytes, query: ExplainQuery, remaining_s: float, *, picture_as: str | None = None
    ) -> Answer[ExplainResponse]:
        """The likeliest breeds, and where the evidence for one of them lies.

        Args:
            data: the encoded photo.
            query: what is asked.
            remaining_s: seconds until the answer comes too late.
            picture_as: one of `overlay.MEDIA_TYPES`, for the picture alone in place of JSON.

        Raises:
            RequestError: the photo or a parameter cannot be used.
            DeadlineExceeded: no answer within `remaining_s`.
        """
        sets = [MethodAtLayers.parse(self.card, query.method, query.layers)]

        def respond(panels: Sequence[Panel], **about: Any) -> ExplainResponse:
            return ExplainResponse(
                explanation=panels[0].explanation, localization=panels[0].localization, **about
            )

        return await self._answer(data, query, Clock(remaining_s), sets, respond, picture_as)

    async def compare(
        self, data: bytes, query: CompareQuery, remaining_s: float, *, picture_as: str | None = None
    ) -> Answer[CompareResponse]:
        """CAM, Grad-CAM at the last layer and over the last six, from one call of the model.

        A model without a head for CAM has the other two. See `explain` for arguments and errors.
        """
        asked = [(Method.CAM, "last")] if self.card.has_cam else []
        asked += [(Method.GRADCAM, "last"), (Method.GRADCAM, "last6")]
        named = [MethodAtLayers.parse(self.card, method, layers) for method, layers in asked]
        sets = list(dict.fromkeys(named))  # of one layer, the last is the last six

        def respond(panels: Sequence[Panel], **about: Any) -> CompareResponse:
            explanations = [
                Compared(explanation=panel.explanation, localization=panel.localization)
                for panel in panels
            ]
            return CompareResponse(explanations=explanations, **about)

        return await self._answer(data, query, Clock(remaining_s), sets, respond, picture_as)

    async def _answer(
        self,
        data: bytes,
        query: CompareQuery,
        clock: Clock,
        sets: Sequence[MethodAtLayers],
        respond: Callable[..., Response],
        picture_as: str | None,
    ) -> Answer[Response]:
        """Ask the model once, and locate and draw each layer set's evidence."""
        for layers in sets:
            evidence.fused_rule(self.card, layers, query.rule)  # refused before any work
        asked = await self._ask(data, query, clock, sets)

        def finish() -> Answer[Response]:
            """All that is left to do off the event loop: JSON of a picture takes a while too."""
            with clock.lap("render"):
                found = [self._panel(asked, layers) for layers in sets]
                file, picture = _picture(asked, found, picture_as)
            response = respond(
                found, **self._about(asked), overlay=picture, timings_ms=clock.timings_ms
            )
            return Answer(response, file if picture_as else response.model_dump_json().encode())

        return await self._in_pool(clock, finish)

    def describe(self) -> ModelInfo:
        """The model in service and the engine that runs it."""
        shared = self.card.model_dump(include=set(ModelInfo.model_fields))
        return ModelInfo(**shared, methods=self.card.methods, engine=self.engine.info)

    # -- decode

    def _decode(self, clock: Clock, data: bytes, size: int | None = None) -> _Decoded:
        """The model's input, and the photo with its longer side at most `size` for drawing.

        The input does not depend on what is drawn: for a large overlay, a JPEG that was decoded at
        a small scale is decoded again.
        """
        with clock.lap("decode"):
            limit, model_input = self.settings.max_pixels, self.card.input
            side = images.enough_for(model_input.size)
            photo = images.decode(data, max_pixels=limit, side=side)
            squashed = images.squash(photo.pixels, model_input.size, model_input.resize)
            pixels = None
            if size:
                shorter, longer = sorted((photo.width, photo.height))
                needed = min(size * 15 // 16, longer)  # a little less is scaled up, unseen
                if max(photo.pixels.shape[:2]) < needed:
                    side = math.ceil(needed * shorter / longer)
                    photo = images.decode(data, max_pixels=limit, side=side)
                pixels = images.fit(photo, size)
            return _Decoded(ImageInfo(width=photo.width, height=photo.height), squashed, pixels)

    # -- batch

    async def _ask(
        self, data: bytes, query: CompareQuery, clock: Clock, sets: Sequence[MethodAtLayers]
    ) -> _Asked:
        """Decode the photo, and run as much of the model as the layers need."""
        target = self._class_index("target", query.target)
        versus = self._class_index("versus", query.versus)
        if query.versus is not None and target == versus:
            raise RequestError("`target` and `versus` name the same class.")
        size = (query.size or self.settings.overlay_size) if query.overlay else None
        decoded = await self._in_pool(clock, self._decode, clock, data, size)
        photo = decoded.photo
        given = [images.clip_box(box, photo.width, photo.height) for box in query.box]
        last = all(layers.name == "last" for layers in sets)
        cut = Cut.EXPLAIN if last else Cut.EXPLAIN_DEEP
        rows = await self._run_model(clock, cut, Input(decoded.squashed, target, versus))
        if int(rows["target_index"]) == versus:
            raise RequestError("`versus` names the class that is explained: the likeliest.")
        return _Asked(query, decoded, given, versus, rows)

    async def _run_model(self, clock: Clock, cut: Cut, row: Input) -> Rows:
        outcome = await self._batcher.submit(cut, row, deadline_s=clock.remaining_s)
        clock.laps_s["inference"] = outcome.work_s
        return outcome.result

    def _infer(self, cut: Cut, inputs: Sequence[Input]) -> list[Rows]:
        """Run a batch on the inference thread and cut the result into rows."""
        arrays = self.engine.run(
            cut,
            Batch(
                np.stack([row.image for row in inputs]),
                np.array([row.class_index for row in inputs], np.int32),
                np.array([row.versus_index for row in inputs], np.int32),
            ),
        )
        return [{name: array[row] for name, array in arrays.items()} for row in range(len(inputs))]

    # -- locate

    def _panel(self, asked: _Asked, layers: MethodAtLayers) -> Panel:
        query, rows = asked.query, asked.rows
        found = evidence.find(self.card, rows, layers, rule=query.rule, threshold=query.threshold)
        versus = None
        if asked.versus >= 0:
            versus = self._prediction(self._probabilities(rows), asked.versus)
        return panels.make(
            found, layers, asked.decoded.photo, asked.given, versus=versus, curve=query.curve
        )

    # -- what the model says, and what it calls things

    def _about(self, asked: _Asked) -> dict[str, Any]:
        """What every explanation's answer begins with."""
        probabilities = self._probabilities(asked.rows)
        return {
            "model": self._model_id,
            "image": asked.decoded.photo,
            "predictions": self._top(probabilities, asked.query.top_k),
            "confidence": self._confidence(asked.rows),
            "target": self._prediction(probabilities, int(asked.rows["target_index"])),
        }

    def _probabilities(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Calibrated, where the model is."""
        if self.card.confidence is None:
            return rows["probabilities"]
        return confidence.probabilities(rows["logits"], self.card.confidence.temperature)

    def _confidence(self, rows: Rows) -> Literal["ok", "low"] | None:
        ok = confidence.is_ok(self.card, rows)
        return None if ok is None else "ok" if ok else "low"

    def _class_index(self, parameter: str, name: str | None) -> int:
        """The class that a parameter names by index, synset or breed; -1 for None.

        Raises:
            UnknownTarget: the model has no such class.
        """
        if name is None:
            return -1
        index = self.card.class_index(name)
        if index is None:
            raise UnknownTarget(
                f"`{parameter}`: the model has no class {name!r}; GET /model lists its "
                f"{len(self.card.labels)}."
            )
        return index

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

    async def _in_pool(self, clock: Clock, work: Callable[..., T], *args: Any) -> T:
        """Run on an image thread, within the time that is left."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(clock.remaining_s):
                return await loop.run_in_executor(self._pool, work, *args)
        except TimeoutError as error:
            raise DeadlineExceeded("The photo was not processed in time.") from error


def _picture(
    asked: _Asked, found: Sequence[Panel], picture_as: str | None
) -> tuple[bytes, Overlay | None]:
    """The picture as a file, and as it stands in JSON: without data where it is the body."""
    pixels, photo = asked.decoded.pixels, asked.decoded.photo
    if pixels is None:
        return b"", None
    drawn = [panels.draw(panel, pixels, asked.query, photo, asked.given) for panel in found]
    whole = overlay.side_by_side(drawn)
    file = overlay.encode(whole, picture_as or overlay.MEDIA_TYPES[0])
    text = "" if picture_as else base64.b64encode(file).decode("ascii")
    height, width = whole.shape[:2]
    return file, Overlay(width=width, height=height, panel_width=pixels.shape[1], data=text)
