"""What goes over HTTP, both ways."""

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from app.bundle import (
    Confidence,
    Data,
    Foreground,
    Fused,
    Input,
    Label,
    Layer,
    Method,
    Name,
    Rule,
    Version,
)
from app.engines import EngineInfo
from app.preferences import Summary
from app.settings import MAX_OVERLAY_SIZE
from app.wording import listed

__all__ = [
    "MAX_EXPLANATIONS",
    "MAX_OVERLAY_SIZE",
    "MAX_PICTURES",
    "MAX_TARGETS",
    "BoxIoU",
    "CamQuery",
    "CompareQuery",
    "CompareResponse",
    "Compared",
    "Curve",
    "EvidenceQuery",
    "ExplainQuery",
    "ExplainResponse",
    "Explanation",
    "GradcamQuery",
    "Health",
    "HeatmapData",
    "ImageInfo",
    "Limits",
    "Localization",
    "ModelId",
    "ModelInfo",
    "NoQuery",
    "Oracle",
    "Overlay",
    "Photo",
    "PredictQuery",
    "PredictResponse",
    "Prediction",
    "Problem",
    "Rating",
    "RatingsSummary",
    "Status",
]

Status = Literal["ok", "empty", "constant", "nonfinite"]
Box = tuple[float, float, float, float]
Space = Literal["layer", "photo"]
Colormap = Literal["jet", "turbo", "viridis", "inferno", "magma", "plasma", "cividis", "hot"]

MAX_EXPLANATIONS = 12
"""The most explanations in one answer of `/compare`: each target by each method."""

MAX_TARGETS = 4
"""That `/compare` explains in one request: each is a row of the model's batch."""

MAX_PICTURES = 6
"""That an overlay shows side by side: each may have `MAX_OVERLAY_SIZE` squared pixels."""


# Nothing in it matches the same digits in two ways: it would try them all on what does not match.
_NUMBER = r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *"
_BOX_PATTERN = f"^{_NUMBER}(,{_NUMBER}){{3}}$"


def _parse_box(value: object) -> object:
    """`xmin,ymin,xmax,ymax` to numbers."""
    if not isinstance(value, str):
        return value
    edges = tuple(map(float, value.split(","))) if re.fullmatch(_BOX_PATTERN, value) else ()
    if not edges or not all(math.isfinite(edge) for edge in edges):
        raise ValueError("a box is four numbers: xmin,ymin,xmax,ymax")
    if not (edges[0] < edges[2] and edges[1] < edges[3]):
        raise ValueError("a box needs xmin < xmax and ymin < ymax")
    return edges


def _one_each(values: object) -> object:
    """Boxes, unless four numbers came as four of them.

    Raises:
        ValueError: they did.
    """
    edges = values if isinstance(values, list) and len(values) == 4 else [""]
    if all(re.fullmatch(_NUMBER, str(edge)) for edge in edges):
        raise ValueError("a box is one parameter: box=xmin,ymin,xmax,ymax")
    return values


_METHOD_PATTERN = f"^({'|'.join(Method)})(/.+)?$"


def _parse_method(value: object) -> object:
    """`METHOD/LAYERS` to the two; `METHOD` alone is at the last layer."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_METHOD_PATTERN, value):
        raise ValueError(f"must be {listed('{}', Method, 'or')}, with layers as in gradcam/last6")
    method, _, layers = value.partition("/")
    return Method(method), layers or "last"


class _Query(BaseModel):
    """Unknown parameters are refused: a typing error is not to pass in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(_Query):
    """Of endpoints that take no parameters."""


class PredictQuery(_Query):
    """Parameters of `/predict`."""

    top_k: int = Field(
        5,
        ge=1,
        le=1000,
        description="how many classes to list; all of them where it is more than the model has",
    )


class EvidenceQuery(PredictQuery):
    """Parameters of all that explain: `/cam`, `/gradcam` and `/compare`."""

    versus: str | None = Field(
        None, min_length=1, max_length=100, description="explain the target against this class"
    )
    box: Annotated[
        list[Annotated[Box, BeforeValidator(_parse_box)]], BeforeValidator(_one_each)
    ] = Field(
        [],
        max_length=100,
        description="`xmin,ymin,xmax,ymax` in pixels of the upright photo; repeatable",
        json_schema_extra={"items": {"type": "string", "pattern": _BOX_PATTERN}},
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="share of the maximum of what the box is put around, see `rule`; default: "
        "calibrated",
    )
    colormap: Colormap = "jet"
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the heatmap in the overlay")
    size: int | None = Field(
        None,
        ge=16,
        le=MAX_OVERLAY_SIZE,
        description="longest side of the overlay, pixels, or of each picture of `/compare`, of "
        "`photo`, and of what `space=photo` enlarges; never larger than the photo",
    )
    overlay: bool = Field(True, description="false: the figures alone")
    mask: bool = Field(
        False,
        description="the picture is the heatmap alone, 8-bit greyscale, without photo, colours and "
        "boxes",
    )
    heatmap: bool = Field(False, description="the heatmaps and the foreground as numbers")
    space: Space = Field(
        "layer",
        description="size of heatmaps as numbers: `layer`, their layers'; `photo`, that of the "
        "photo, or of the photo scaled to `size`. With `photo`, a mask has that size too",
    )
    photo: bool = Field(
        False, description="the upright photo as it was decoded, without heatmap and boxes"
    )
    rule: Rule | None = Field(
        None,
        description="what the box is put around: `heatmap`, the method's own; `fused`, the "
        "weighted mean of that and the foreground's; default: `fused` where it is calibrated",
    )
    curve: bool = Field(
        False, description="with a box: its IoU at other thresholds too, and which does best"
    )


_Class = Annotated[str, Field(min_length=1, max_length=100)]
_TARGET = (
    "class to explain: index, synset or breed; case is ignored, and underscores and hyphens count "
    "as spaces; default: the likeliest"
)


class _ExplainQuery(EvidenceQuery):
    """Parameters of those that explain one class."""

    target: _Class | None = Field(None, description=_TARGET)


class CamQuery(_ExplainQuery):
    """Parameters of `/cam`."""

    @property
    def method(self) -> Method:
        """The requested method."""
        return Method.CAM

    @property
    def layers(self) -> str:
        """The requested layer set."""
        return "last"


class GradcamQuery(_ExplainQuery):
    """Parameters of `/gradcam`."""

    method: Literal[Method.GRADCAM, Method.GRADCAMPP, Method.LAYERCAM, Method.HIRESCAM] = Field(
        Method.GRADCAM, description="how the layers are weighted"
    )
    layers: str = Field(
        "last", min_length=1, description="`last`, `last6`, or names with commas between"
    )


ExplainQuery = CamQuery | GradcamQuery


class CompareQuery(EvidenceQuery):
    """Parameters of `/compare`."""

    target: list[_Class] = Field(
        [],
        max_length=MAX_TARGETS,
        description=f"{_TARGET}; repeatable: each is explained by each method",
    )
    method: list[Annotated[tuple[Method, str], BeforeValidator(_parse_method)]] = Field(
        [],
        max_length=MAX_EXPLANATIONS,
        description="`METHOD/LAYERS`, or `METHOD` for the last layer; repeatable. Layers are "
        "`last`, `last6`, or names with commas between; `cam` has the last alone. Default: "
        "cam/last where the model has it, gradcam/last and gradcam/last6",
        json_schema_extra={"items": {"type": "string", "pattern": _METHOD_PATTERN}},
    )


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelId(_Answer):
    """The model that answered."""

    name: Name
    version: Version


class ImageInfo(_Answer):
    """The upright photo, pixels."""

    width: int
    height: int


class Prediction(_Answer):
    """A class and its probability."""

    class_index: int
    label: str
    synset: str | None
    probability: float


class Explanation(_Answer):
    """Where the evidence lies. Box and peak are null unless `status` is `ok`."""

    method: Method
    layers: list[str]
    versus: Prediction | None = None
    rule: Rule
    threshold: float
    box: Box | None = Field(description="xmin, ymin, xmax, ymax in photo pixels")
    peak: tuple[float, float] | None = Field(description="x, y in photo pixels")
    status: Status


class BoxIoU(_Answer):
    """A box that was given, clipped to the photo, and its IoU with the explanation's."""

    box: Box
    iou: float


class Oracle(_Answer):
    """The threshold that does best with the answer in hand: no service can know it."""

    threshold: float
    iou: float


class Curve(_Answer):
    """IoU of a box that was given with the explanation's at other thresholds."""

    thresholds: list[float]
    ious: list[float]
    oracle: Oracle


class Localization(BoxIoU):
    """The best of the boxes given; `all` has every one in request order."""

    energy_in_box: float = Field(description="share of the heatmap's sum inside the box")
    peak_in_box: bool
    all: list[BoxIoU]
    curve: Curve | None = None


class Overlay(_Answer):
    """The picture: photo, heatmap and boxes; or the mask."""

    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    panel_width: int = Field(
        description="of one panel; several stand evenly side by side, first and last at the edges"
    )
    data: str = Field(description="base64")


class HeatmapData(_Answer):
    """A heatmap as numbers, 0..1; all zero unless the `status` is `ok`."""

    height: int
    width: int
    data: str = Field(description="base64 of little-endian float32, row by row")


class Photo(_Answer):
    """The upright photo, scaled; the overlay has the same size, unless it is a mask."""

    media_type: Literal["image/jpeg"] = "image/jpeg"
    width: int
    height: int
    data: str = Field(description="base64")


class _PhotoAnswer(_Answer):
    model: ModelId
    image: ImageInfo
    predictions: list[Prediction]
    confidence: Literal["ok", "low"] | None = Field(
        description="low: the likeliest class is less likely, or the photo less like those of "
        "training, than with most validation photos; null where the model is not calibrated"
    )


class PredictResponse(_PhotoAnswer):
    """What `/predict` answers."""

    timings_ms: dict[str, float]


class ExplainResponse(_PhotoAnswer):
    """What `/cam` and `/gradcam` answer."""

    target: Prediction
    explanation: Explanation
    localization: Localization | None
    heatmap: HeatmapData | None = Field(description="null unless requested")
    foreground: HeatmapData | None = Field(description="null unless `heatmap` is requested")
    overlay: Overlay | None
    photo: Photo | None = Field(description="null unless requested")
    timings_ms: dict[str, float]


class Compared(_Answer):
    """One of the explanations that `/compare` shows side by side."""

    target: Prediction
    explanation: Explanation
    localization: Localization | None
    heatmap: HeatmapData | None = Field(description="null unless requested")


class CompareResponse(_PhotoAnswer):
    """What `/compare` answers: the explanations in the order of the picture, left to right.

    They come target by target, and the methods of each in the order of the request.
    """

    target: Prediction = Field(description="the first, if there are several")
    explanations: list[Compared]
    foreground: HeatmapData | None = Field(description="null unless `heatmap` is requested")
    overlay: Overlay | None
    photo: Photo | None = Field(description="null unless requested")
    timings_ms: dict[str, float]


class Health(_Answer):
    """What the probes answer with status 200."""

    status: Literal["alive", "ready"]


class Limits(_Answer):
    """What a photo may have at most."""

    upload_bytes: int = Field(description="of the request's body")
    pixels: int = Field(description="width x height")
    side: int = Field(description="pixels of its longer side")


class ModelInfo(_Answer):
    """What `/model` answers: `model.json` less what is internal, the engine in use, and limits."""

    name: str
    version: int
    since: datetime = Field(description="when this version began to serve; UTC")
    architecture: str
    head: str
    input: Input
    labels: tuple[Label, ...]
    layers: tuple[Layer, ...]
    methods: list[Method]
    thresholds: dict[Method, dict[str, float]]
    fused: dict[Method, dict[str, Fused]]
    confidence: Confidence | None
    foreground: Foreground
    data: Data | None
    metrics: dict[str, Any]
    licence: str
    provenance: str
    engine: EngineInfo
    limits: Limits
    ratings: bool = Field(description="whether there is `/ratings`")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="stable: `urn:breedcam:error:` and the error's code")
    title: str
    status: int
    detail: str
    request_id: str


MethodName = Literal[
    "cam/last",
    "gradcam/last",
    "gradcam/last6",
    "gradcampp/last",
    "gradcampp/last6",
    "layercam/last",
    "layercam/last6",
    "hirescam/last",
    "hirescam/last6",
]
"""A method and its layer set."""


class Rating(BaseModel):
    """Which of two heatmaps explains better, as one person sees it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the photo's file, in lower-case hex",
    )
    methods: tuple[MethodName, MethodName] = Field(
        description="`method/layers` in the order in which they were shown; two different ones"
    )
    answer: Literal["first", "second", "same"] = Field(description="which explains better")
    misses: list[MethodName] = Field(
        [], max_length=2, description="those of `methods` that miss the dog"
    )
    rater: str = Field(
        pattern="^[0-9a-f]{32}$", description="a random id of 128 bits that the browser draws"
    )
    model: ModelId | None = Field(
        None, description="whose heatmaps they are, as their answer says; default: that in service"
    )

    @field_validator("methods")
    @classmethod
    def _differ(cls, methods: tuple[str, str]) -> tuple[str, str]:
        if methods[0] == methods[1]:
            raise ValueError("must be two different methods")
        return methods

    @field_validator("misses")
    @classmethod
    def _were_shown(cls, misses: list[str], info: ValidationInfo) -> list[str]:
        if not set(misses) <= set(info.data.get("methods", misses)):
            raise ValueError("must be among `methods`")
        return misses


class RatingsSummary(Summary):
    """What the ratings of the model in service say."""

    model: ModelId
