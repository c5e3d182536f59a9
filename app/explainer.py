"""The way one photo takes: decode -> batch -> locate -> render."""

import asyncio
import base64
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import engines, heatmaps, images, overlay
from app.admission import Admission
from app.batching import Batcher
from app.bundle import Bundle, Method
from app.engines import Cut, Engine
from app.errors import DeadlineExceeded, MethodUnavailable, RequestError, UnknownTarget
from app.schemas import (
    BoxIoU,
    ExplainQuery,
    ExplainResponse,
    Explanation,
    ImageInfo,
    Localization,
    ModelId,
    ModelInfo,
    Overlay,
    Prediction,
    PredictQuery,
    PredictResponse,
)
from app.settings import Settings

__all__ = ["Explained", "Explainer"]

T = TypeVar("T")
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
class Explained:
    """An answer: its figures, and the body to send.

    Attributes:
        response: the figures; without the picture where `body` is the picture.
        body: JSON, or the picture alone where that was asked for.
    """

    response: ExplainResponse
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
        self._layer_names = self.card.layer_names
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
        clock = _Clock(remaining_s)
        decoded = await self._in_pool(clock, self._decode, clock, data)
        rows = await self._run_model(clock, Cut.EXPLAIN, Input(decoded.squashed))
        return PredictResponse(
            model=self._model_id,
            image=decoded.photo,
            predictions=self._top(rows["probabilities"], query.top_k),
            timings_ms=clock.timings_ms,
        )

    async def explain(
        self, data: bytes, query: ExplainQuery, remaining_s: float, *, picture_as: str | None = None
    ) -> Explained:
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
        clock = _Clock(remaining_s)
        layers = self._layers(query)
        target = self._class_index("target", query.target)
        versus = self._class_index("versus", query.versus)
        if query.versus is not None and target == versus:
            raise RequestError("`target` and `versus` name the same class.")
        size = (query.size or self.settings.overlay_size) if query.overlay else None
        decoded = await self._in_pool(clock, self._decode, clock, data, size)
        photo = decoded.photo
        given = [images.clip_box(box, photo.width, photo.height) for box in query.box]
        cut = Cut.EXPLAIN if layers == self._layer_names[-1:] else Cut.EXPLAIN_DEEP
        rows = await self._run_model(clock, cut, Input(decoded.squashed, target, versus))

        def finish() -> Explained:
            """All that is left to do off the event loop: JSON of a picture takes a while too."""
            if int(rows["target_index"]) == versus:
                raise RequestError("`versus` names the class that is explained: the likeliest.")
            with clock.lap("render"):
                explanation, values = self._locate(rows, query, layers, photo, versus)
                file, picture = b"", None
                if decoded.pixels is not None:
                    pixels = _draw(decoded.pixels, values, query, photo, explanation.box, given)
                    file = overlay.encode(pixels, picture_as or overlay.MEDIA_TYPES[0])
                    picture = Overlay(width=pixels.shape[1], height=pixels.shape[0], data="")
            if picture is not None and picture_as is None:
                text = base64.b64encode(file).decode("ascii")
                picture = picture.model_copy(update={"data": text})
            response = ExplainResponse(
                model=self._model_id,
                image=photo,
                predictions=self._top(rows["probabilities"], query.top_k),
                target=self._prediction(rows["probabilities"], int(rows["target_index"])),
                explanation=explanation,
                localization=_localize(explanation, values, given, photo),
                overlay=picture,
                timings_ms=clock.timings_ms,
            )
            body = file if picture_as else response.model_dump_json().encode()
            return Explained(response, body)

        return await self._in_pool(clock, finish)

    def describe(self) -> ModelInfo:
        """The model in service and the engine that runs it."""
        shared = self.card.model_dump(include=set(ModelInfo.model_fields))
        return ModelInfo(**shared, methods=self.card.methods, engine=self.engine.info)

    # -- decode

    def _decode(self, clock: "_Clock", data: bytes, size: int | None = None) -> "_Decoded":
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

    async def _run_model(self, clock: "_Clock", cut: Cut, row: Input) -> Rows:
        outcome = await self._batcher.submit(cut, row, deadline_s=clock.remaining_s)
        clock.laps_s["inference"] = outcome.work_s
        return outcome.result

    def _infer(self, cut: Cut, inputs: Sequence[Input]) -> list[Rows]:
        """Run a batch on the inference thread and cut the result into rows."""
        arrays = self.engine.run(
            cut,
            np.stack([each.image for each in inputs]),
            np.array([each.class_index for each in inputs], np.int32),
            np.array([each.versus_index for each in inputs], np.int32),
        )
        return [{name: array[row] for name, array in arrays.items()} for row in range(len(inputs))]

    # -- locate

    def _locate(
        self, rows: Rows, query: ExplainQuery, layers: list[str], photo: ImageInfo, versus: int
    ) -> tuple[Explanation, npt.NDArray[np.float32] | None]:
        """The explanation, and the heatmap at the model's input size if it has evidence."""
        outputs = [engines.layer_output(self.card, query.method, layer) for layer in layers]
        heatmap = heatmaps.from_maps(
            [rows[output] for output in outputs], signed=query.method.signed
        )
        threshold = query.threshold
        if threshold is None:
            threshold = self.card.threshold(query.method, self.card.layer_set(layers))
        box = point = values = None
        if heatmap.status == "ok":
            size = self.card.input.size
            values = heatmaps.resize(heatmap.values, size, size)
            whole = (photo.width, photo.height)
            box = heatmaps.locate(values, threshold)
            box = images.scale_box(box, (size, size), whole) if box else None
            height, width = heatmap.values.shape
            point = images.scale_point(heatmaps.peak(heatmap.values), (width, height), whole)
        explanation = Explanation(
            method=query.method,
            layers=layers,
            versus=self._prediction(rows["probabilities"], versus) if versus >= 0 else None,
            threshold=threshold,
            box=box,
            peak=point,
            status=heatmap.status,
        )
        return explanation, values

    # -- what the model calls things

    def _layers(self, query: ExplainQuery) -> list[str]:
        """The layers asked for, first to last."""
        if query.method is Method.CAM and not self.card.has_cam:
            raise MethodUnavailable(
                "CAM needs a head of global average pooling and one Dense layer, which model "
                f"{self.card.name!r} does not have. Use /gradcam."
            )
        if query.layers == "last":
            return self._layer_names[-1:]
        if query.layers == "last6":
            return self._layer_names[-6:]
        asked = {name.strip() for name in query.layers.split(",")}
        unknown = sorted(asked.difference(self._layer_names))
        if unknown:
            raise RequestError(
                f"`layers`: the model does not expose {', '.join(map(repr, unknown))}. "
                f"It has {', '.join(self._layer_names)}; or `last`, or `last6`."
            )
        return [name for name in self._layer_names if name in asked]

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

    async def _in_pool(self, clock: "_Clock", work: Callable[..., T], *args: Any) -> T:
        """Run on an image thread, within the time that is left."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(clock.remaining_s):
                return await loop.run_in_executor(self._pool, work, *args)
        except TimeoutError as error:
            raise DeadlineExceeded("The photo was not processed in time.") from error


class _Clock:
    """Where one request's time goes, and how much it has left."""

    def __init__(self, remaining_s: float) -> None:
        self._begun = time.monotonic()
        self._end = self._begun + remaining_s
        self.laps_s: dict[str, float] = {}

    @property
    def remaining_s(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.laps_s[name] = time.monotonic() - begun

    @property
    def timings_ms(self) -> dict[str, float]:
        """The laps, and as `queue` all the waiting between them."""
        waited = time.monotonic() - self._begun - sum(self.laps_s.values())
        laps = self.laps_s | {"queue": max(0.0, waited)}
        order = ("decode", "queue", "inference", "render")
        return {name: round(1000 * laps[name], 3) for name in order if name in laps}


def _draw(
    pixels: npt.NDArray[np.uint8],
    values: npt.NDArray[np.float32] | None,
    query: ExplainQuery,
    photo: ImageInfo,
    found: images.Box | None,
    given: list[images.Box],
) -> npt.NDArray[np.uint8]:
    """Heatmap and boxes over the scaled photo."""
    height, width = pixels.shape[:2]
    if values is not None:
        values = heatmaps.resize(values, width, height)
    picture = overlay.render(pixels, values, colormap=query.colormap, alpha=query.alpha)

    def scaled(box: images.Box) -> images.Box:
        return images.scale_box(box, (photo.width, photo.height), (width, height))

    overlay.draw_boxes(
        picture,
        found=scaled(found) if found else None,
        given=[scaled(box) for box in given],
    )
    return picture


def _localize(
    explanation: Explanation,
    values: npt.NDArray[np.float32] | None,
    given: list[images.Box],
    photo: ImageInfo,
) -> Localization | None:
    """Hold the explanation's box and heatmap against the boxes given."""
    if not given:
        return None
    found = explanation.box
    every = [BoxIoU(box=box, iou=heatmaps.iou(box, found) if found else 0.0) for box in given]
    best = max(every, key=lambda each: each.iou)
    energy, hit = 0.0, False
    if values is not None and explanation.peak is not None:
        height, width = values.shape
        in_heatmap = images.scale_box(best.box, (photo.width, photo.height), (width, height))
        energy = heatmaps.energy_in_box(values, in_heatmap)
        hit = heatmaps.peak_in_box(explanation.peak, best.box)
    return Localization(
        box=best.box, iou=best.iou, energy_in_box=energy, peak_in_box=hit, all=every
    )
