"""The JSON that `evaluate` writes and `report` reads: the figures of one version over one split.

Evaluation
├── Summary: accuracy, calibration and mean IoUs; model.json keeps these as its `metrics`
├── localization: Localization   boxes and heatmaps, by method, layer set and rule
├── curves: Curves               mean IoU by threshold
├── breeds: Breed
├── confusion                    photos by true and predicted breed
├── reliability: ReliabilityBin  accuracy by stated probability
├── per_photo: PhotoResult
├── faithfulness, randomization, perturbation  over a sample
└── gallery: Gallery             photos under their heatmaps
"""

from collections.abc import Mapping
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from app.bundle import Method, Rule
from training.evaluation.inference import FUSED
from training.evaluation.perturbation import Perturbation

__all__ = [
    "AccuracySummary",
    "Baselines",
    "BoxMetrics",
    "BoxSummary",
    "Breed",
    "ByMethod",
    "Compared",
    "Comparison",
    "Confusion",
    "Curve",
    "Curves",
    "Estimate",
    "Evaluation",
    "Faithfulness",
    "Gallery",
    "GalleryPhoto",
    "InsertionDeletion",
    "Interval",
    "Localization",
    "ModelName",
    "OnSample",
    "Overlay",
    "PhotoResult",
    "Randomization",
    "ReliabilityBin",
    "Result",
    "Similarity",
    "Summary",
]

T = TypeVar("T")

ByMethod = dict[Method, dict[str, T]]
"""By method, then by layer set: `last`, `last6` or a layer's name."""

Interval = tuple[float, float]
"""The lower and the upper edge of a 95 % interval."""


class Result(BaseModel):
    """Finite figures that do not change, under the names below and no others."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid")


class Estimate(Result):
    """A figure over a split, rounded to four decimals; see `metrics.estimate`.

    Differences are paired by photo. They are None where there is nothing to compare with.
    """

    value: float
    interval: Interval
    difference: float | None = Field(None, description="to the constant box's")
    difference_interval: Interval | None = None
    difference_to_heatmap: float | None = Field(
        None, description="of the rule `fused` to the rule `heatmap`"
    )
    difference_to_heatmap_interval: Interval | None = None


class BoxMetrics(Result):
    """Figures of boxes and, but for the rule `fused`, of the heatmap they come from."""

    mean_iou: Estimate
    gt_known_localization: Estimate
    top1_localization: Estimate
    max_box_acc_v2: Estimate | None = Field(None, description="None at single layers")
    pointing_game: Estimate | None = None
    energy_in_box: Estimate | None = None


class InsertionDeletion(Result):
    """Areas under the curves of insertion (more is better) and deletion (less is better)."""

    insertion: Estimate
    deletion: Estimate


class Similarity(Result):
    """To the heatmaps of the model whose weights are as trained.

    Over the photos where neither heatmap is blank or constant, which leaves rank correlation
    undefined; both figures are None where there are none.
    """

    rank_correlation: Estimate | None = None
    structural_similarity: Estimate | None = None
    blank: int | None = Field(
        None,
        description="photos left out because a heatmap is blank or constant; None in older files, "
        "which take their rank correlation as 0",
    )


class Baselines(Result, Generic[T]):
    """Of boxes that are guessed without a look at the photo."""

    constant_box: T
    full_frame: T


class Localization(Result):
    """Figures of boxes and heatmaps over the photos with boxes, for each photo's true class."""

    photos: int
    methods: ByMethod[BoxMetrics] = Field(description="by the rule `heatmap`")
    baselines: Baselines[BoxMetrics]
    customary: BoxMetrics = Field(description="Grad-CAM, last layer, 15 % of the maximum")
    fused: ByMethod[BoxMetrics] = Field(description="by the rule `fused`, where calibrated")

    def rule(self, method: Method) -> Rule:
        """The service's default rule at the last layer."""
        return Rule.FUSED if "last" in self.fused.get(method, {}) else Rule.HEATMAP

    def served(self, method: Method) -> BoxMetrics | None:
        """At the last layer by the service's default rule; None: the model lacks the method."""
        by_rule = self.fused if self.rule(method) is Rule.FUSED else self.methods
        return by_rule.get(method, {}).get("last")


class Curve(Result):
    """Mean IoU by threshold, for one heatmap and rule."""

    mean_iou: list[float] = Field(description="at each of the thresholds")
    best_threshold: float = Field(description="for these very photos")
    best_mean_iou: float
    oracle_mean_iou: float = Field(
        description="at the best threshold for each photo, picked with its true box in hand"
    )
    threshold: float = Field(description="the service's")
    calibrated: bool = Field(description="false: `threshold` is the default one")
    foreground: float | None = Field(None, description="the foreground's weight, rule `fused`")


class Curves(Result):
    """One method and layer set's curves, by rule."""

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
        """The curves there are."""
        return {Rule.HEATMAP: self.heatmap} | ({Rule.FUSED: self.fused} if self.fused else {})


class Breed(Result):
    """One breed's photos."""

    photos: int
    photos_with_boxes: int
    top1: float
    mean_iou: ByMethod[float] | None = Field(
        None, description="by the rule `heatmap`; None without boxes"
    )
    mean_iou_baselines: Baselines[float] | None = None


class Confusion(Result):
    """Photos of one breed that are taken for another."""

    true: str
    predicted: str
    count: int
    share: float = Field(description="of the true breed's photos")


class ReliabilityBin(Result):
    """Photos whose likeliest breed has a probability between two edges."""

    low: float
    high: float
    photos: int
    confidence: float | None = Field(None, description="mean probability; None without photos")
    accuracy: float | None = Field(None, description="None without photos")


class PhotoResult(Result):
    """One photo with boxes: the likeliest breed, and the IoU of its boxes by each rule."""

    name: str
    breed: str
    predicted: str
    right: bool
    iou: ByMethod[float] = Field(description="by the rule `heatmap`")
    fused: ByMethod[float]


class Overlay(Result):
    """A photo under a heatmap, with the heatmap's box and the true ones."""

    iou: float
    rule: Rule
    media_type: Literal["image/jpeg"]
    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    data: Base64Bytes = Field(description="the picture: base64 in JSON, bytes as an attribute")


class GalleryPhoto(PhotoResult):
    """A photo of the gallery."""

    overlays: dict[Method, Overlay]


class Gallery(Result):
    """Photos to look at; see `training.evaluation.gallery`."""

    correct: list[GalleryPhoto]
    best: list[GalleryPhoto]
    worst: list[GalleryPhoto]


class Faithfulness(Result):
    """Insertion and deletion over a sample of photos."""

    photos: int
    methods: ByMethod[InsertionDeletion]
    baselines: Baselines[InsertionDeletion]


class Randomization(Result):
    """The model randomisation check over a sample of photos.

    `down_to` has the similarities by layer: from the head down to that one, all layers hold their
    weights in a random order.
    """

    photos: int
    down_to: dict[str, ByMethod[Similarity]]


class OnSample(InsertionDeletion):
    """Figures of heatmaps and their boxes over a sample; None where no photo has a box."""

    mean_iou: Estimate | None = None
    gt_known_localization: Estimate | None = None
    pointing_game: Estimate | None = None


class Compared(OnSample):
    """A method over the sample of `Comparison`, with what it costs."""

    threshold: float | None = Field(None, description="the best over all photos of the sample")
    rank_correlation: Estimate | None = Field(None, description="with Grad-CAM, last layer")
    structural_similarity: Estimate | None = Field(None, description="with Grad-CAM, last layer")
    similarity_blank: int | None = Field(
        None,
        description="photos that both leave out: this heatmap or Grad-CAM's is blank or "
        "constant for the top-1; None in older files, and for Grad-CAM, last layer, itself",
    )
    blank: int = Field(
        description="photos whose heatmap is blank for one class or both: the true one, the top-1"
    )
    model_calls: float = Field(description="photos that the model runs on for one heatmap, mean")
    seconds: float = Field(description="for one heatmap, mean")


class Comparison(Result):
    """Methods that perturb photos beside those that look into the model, over a sample."""

    photos: int
    samples: int = Field(description="perturbed photos for each heatmap")
    perturbation: dict[Perturbation, Compared]
    methods: ByMethod[Compared] = Field(description="by the rule `heatmap`")
    baselines: Baselines[OnSample]


class ModelName(Result):
    """Which model version was measured."""

    name: str
    version: int
    head: str
    classes: int | None = Field(None, description="how many; None in older files")


class _SplitSummary(Result):
    split: str
    note: str | None = Field(None, description="what to know of these photos")
    photos: int
    photos_with_boxes: int


class AccuracySummary(Result):
    """Accuracy and, where the model is calibrated, how far its probabilities can be trusted."""

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    ece: float | None = Field(None, description="expected calibration error, as served")
    confidence_ok: float | None = Field(None, description="share of the photos")


class BoxSummary(Result):
    """The main figures of `Localization`; empty or None where no photo has a box."""

    gt_known_localization: float | None = Field(None, description="of `/gradcam`'s box")
    gt_known_localization_interval: Interval | None = None
    gt_known_localization_customary: float | None = None
    gt_known_localization_baselines: dict[str, float] | None = None
    mean_iou: ByMethod[float] = Field(default_factory=dict)
    mean_iou_intervals: ByMethod[Interval] = Field(default_factory=dict)
    mean_iou_fused: ByMethod[float] = Field(default_factory=dict)
    mean_iou_fused_intervals: ByMethod[Interval] = Field(default_factory=dict)
    mean_iou_customary: float | None = None
    mean_iou_baselines: dict[str, float] = Field(default_factory=dict)


class Summary(BoxSummary, AccuracySummary, _SplitSummary):
    """What `model.json` keeps of an evaluation.

    The last base class's fields come first, as pydantic orders them: split, accuracy, boxes.
    """

    most_confused: list[Confusion]
    engine: str


class Evaluation(Summary):
    """Every figure that `evaluate` measures."""

    model: ModelName
    localization: Localization | None = Field(description="`{}` in JSON: no photo has a box")
    curves: ByMethod[Curves]
    breeds: dict[str, Breed]
    confusion: dict[str, dict[str, int]] | None = Field(
        None, description="photos by true, then predicted breed; None in older files"
    )
    reliability: list[ReliabilityBin] | None = Field(
        None, description="the bins of `ece`; None where it is"
    )
    per_photo: list[PhotoResult]
    faithfulness: Faithfulness | None = None
    randomization: Randomization | None = None
    perturbation: Comparison | None = None
    gallery: Gallery | None = None

    def dump(self) -> dict[str, Any]:
        """The JSON's object. Figures that were not measured are left out."""
        figures = self.model_dump(mode="json", exclude_none=True)
        return figures if self.localization else figures | {"localization": {}}

    def summary(self) -> dict[str, Any]:
        """What `model.json` keeps, JSON-ready; see `Summary`."""
        return self.model_dump(mode="json", include=set(Summary.model_fields), exclude_none=True)

    @field_validator("localization", mode="before")
    @classmethod
    def _none_without_boxes(cls, localization: Any) -> Any:
        return localization or None

    @model_validator(mode="after")
    def _has_every_method(self) -> Self:
        """What is measured of boxes has its curves, and its IoUs for each photo.

        What is compared has Grad-CAM at the last layer.
        """
        compared, localization = self.perturbation, self.localization
        if compared is not None and "last" not in compared.methods.get(Method.GRADCAM, {}):
            raise ValueError("perturbation lacks Grad-CAM's figures at the last layer")
        if compared is not None and not compared.perturbation:
            raise ValueError("perturbation has no method")
        if localization is None:
            return self
        if Method.GRADCAM not in localization.methods or not all(
            "last" in layer_sets for layer_sets in localization.methods.values()
        ):
            raise ValueError("localization lacks a method's figures at the last layer")
        if not self.per_photo:
            raise ValueError("per_photo has no photo, and localization has figures of some")
        expected = _main_sets(localization.methods), _main_sets(localization.fused)
        if any(
            (_main_sets(photo.iou), _main_sets(photo.fused)) != expected for photo in self.per_photo
        ):
            raise ValueError("per_photo has other methods or layer sets than localization")
        if (self._curve_sets(Rule.HEATMAP), self._curve_sets(Rule.FUSED)) != expected:
            raise ValueError("curves has other methods or layer sets than localization")
        return self

    def _curve_sets(self, rule: Rule) -> set[tuple[Method, str]]:
        return _main_sets(
            {
                method: {name: curves for name, curves in sets.items() if rule in curves.rules}
                for method, sets in self.curves.items()
            }
        )


def _main_sets(figures: Mapping[Method, Mapping[str, object]]) -> set[tuple[Method, str]]:
    """The methods at the last layer and the last six, which have every figure."""
    return {(method, name) for method, sets in figures.items() for name in sets if name in FUSED}
