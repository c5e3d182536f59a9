"""The JSON that `evaluate` writes, as `report` reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from app.bundle import Rule
from training.errors import ReportError
from training.explanations import FUSED

__all__ = [
    "Areas",
    "Baselines",
    "BoxMetrics",
    "Breed",
    "Confused",
    "Curve",
    "Curves",
    "Estimate",
    "Faithfulness",
    "Figures",
    "Interval",
    "Likeness",
    "Localization",
    "OfMethods",
    "Overlay",
    "Photo",
    "Randomization",
    "Shown",
    "read",
]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


Interval = tuple[float, float]


class Estimate(_Told):
    """A figure, with its difference to the constant box's; see `training.metrics.estimate`."""

    value: float
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None
    difference_to_heatmap: float | None = None
    difference_to_heatmap_interval: Interval | None = None


class BoxMetrics(_Told):
    """Of boxes; and of the heatmap as well, but for the rule `fused`."""

    mean_iou: Estimate
    gt_known_localization: Estimate
    top1_localization: Estimate
    max_box_acc_v2: Estimate | None = None
    pointing_game: Estimate | None = None
    energy_in_box: Estimate | None = None


class Areas(_Told):
    """Of insertion and deletion."""

    insertion: Estimate
    deletion: Estimate


class Likeness(_Told):
    """To the heatmaps of the model as it is."""

    rank_correlation: Estimate
    structural_similarity: Estimate


T = TypeVar("T")
OfMethods = dict[str, dict[str, T]]
"""By method, then by layer set."""


class Baselines(_Told, Generic[T]):
    """Of guesses that look at no photo."""

    constant_box: T
    full_frame: T


class Localization(_Told):
    """Figures of boxes and heatmaps."""

    methods: OfMethods[BoxMetrics]
    fused: OfMethods[BoxMetrics]
    customary: BoxMetrics
    baselines: Baselines[BoxMetrics]

    def served(self, method: str) -> BoxMetrics | None:
        """At the last layer, by the service's default rule; None: not of this model."""
        plain = self.methods.get(method, {}).get("last")
        return self.fused.get(method, {}).get("last", plain)

    def rule(self, method: str) -> Rule:
        """The service's default at the last layer."""
        return Rule.FUSED if "last" in self.fused.get(method, {}) else Rule.HEATMAP


class Curve(_Told):
    """Mean IoU by threshold; see `training.evaluation`."""

    mean_iou: list[float]
    threshold: float
    calibrated: bool
    foreground: float | None = None
    best_threshold: float
    best_mean_iou: float
    oracle_mean_iou: float


class Curves(_Told):
    """Of one method and layer set, by rule."""

    thresholds: list[float]
    heatmap: Curve
    fused: Curve | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if any(len(curve.mean_iou) != len(self.thresholds) for curve in self.rules.values()):
            raise ValueError("there are not as many mean IoUs as thresholds")
        return self

    @property
    def rules(self) -> dict[Rule, Curve]:
        """Those that there are."""
        return {Rule.HEATMAP: self.heatmap} | ({Rule.FUSED: self.fused} if self.fused else {})


class Breed(_Told):
    """One breed's photos."""

    photos: int
    photos_with_boxes: int
    top1: float
    mean_iou: dict[str, dict[str, float]] = Field(default_factory=dict)
    mean_iou_baselines: dict[str, float] = Field(default_factory=dict)


class Confused(_Told):
    """A breed, and another that some of its photos are taken for."""

    true: str
    predicted: str
    count: int
    share: float


class Photo(_Told):
    """One photo with boxes."""

    name: str
    breed: str
    predicted: str
    right: bool
    iou: dict[str, dict[str, float]]
    fused: dict[str, dict[str, float]]


class Overlay(_Told):
    """A picture of a photo under a heatmap, with boxes."""

    iou: float
    rule: Rule
    media_type: Literal["image/jpeg"]
    width: int
    height: int
    data: Base64Bytes


class Shown(Photo):
    """A photo of the gallery."""

    overlays: dict[str, Overlay]


class _Model(_Told):
    name: str
    version: int
    head: str


class Faithfulness(_Told):
    """Of a sample of photos."""

    photos: int
    methods: OfMethods[Areas]
    baselines: Baselines[Areas]


class Randomization(_Told):
    """Of a sample of photos, by the layer down to which all have forgotten."""

    photos: int
    down_to: dict[str, OfMethods[Likeness]]


class Figures(_Told):
    """All of it."""

    split: str
    note: str | None = None
    model: _Model
    engine: str
    photos: int
    photos_with_boxes: int
    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    ece: float | None = None
    confidence_ok: float | None = None
    localization: Localization | None
    curves: dict[str, dict[str, Curves]]
    breeds: dict[str, Breed]
    most_confused: list[Confused]
    per_photo: list[Photo]
    faithfulness: Faithfulness | None = None
    randomization: Randomization | None = None
    gallery: dict[str, list[Shown]] | None = None

    @field_validator("localization", mode="before")
    @classmethod
    def _none_without_boxes(cls, told: Any) -> Any:
        return told or None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """What is measured of boxes has its curves, and is told of each photo."""
        told = self.localization
        if told is None:
            return self
        if "gradcam" not in told.methods or not all("last" in of for of in told.methods.values()):
            raise ValueError("localization lacks a method's figures at the last layer")
        if not self.per_photo:
            raise ValueError("per_photo has no photo, and localization has figures of some")
        wanted = _keys(told.methods), _keys(told.fused)
        if any((_keys(photo.iou), _keys(photo.fused)) != wanted for photo in self.per_photo):
            raise ValueError("per_photo has other methods or layer sets than localization")
        by_rule = [
            {
                method: {layers: one for layers, one in sets.items() if rule in one.rules}
                for method, sets in self.curves.items()
            }
            for rule in Rule
        ]
        if tuple(map(_keys, by_rule)) != wanted:
            raise ValueError("curves has other methods or layer sets than localization")
        return self


def _keys(tree: Mapping[str, Mapping[str, object]]) -> set[tuple[str, str]]:
    """The methods and layer sets whose figures are told at length."""
    return {(method, name) for method, sets in tree.items() for name in sets if name in FUSED}


def read(path: Path) -> Figures:
    """Read what `evaluate --out` wrote.

    Raises:
        ReportError: it cannot be read, or is something else.
    """
    try:
        return Figures.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReportError(f"--figures {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ReportError(
            f"--figures {path} is not what `python -m training evaluate --out FILE` writes: "
            f"{f'{place}: ' if place else ''}{first['msg']}"
        ) from error
