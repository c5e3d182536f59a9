"""A model version on disk: the SavedModel beside `assets.extra/model.json`.

`model.json` is a promise to whoever reads it; `ModelCard` is its schema.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from app.errors import BundleError
from app.wording import listed, near

__all__ = [
    "CARD_PATH",
    "DEFAULT_THRESHOLD",
    "INT8_PATH",
    "NOVELTY_BOUNDS",
    "PROBABILITY_BOUNDS",
    "Architecture",
    "Bundle",
    "BundleError",
    "Confidence",
    "Data",
    "Foreground",
    "Fused",
    "Input",
    "Int8",
    "Int8Figures",
    "Label",
    "Layer",
    "Method",
    "ModelCard",
    "Novelty",
    "Reference",
    "Rule",
    "check_different",
    "checksums",
    "comparable",
    "find_version",
    "load",
    "near_classes",
]

CARD_PATH = Path("assets.extra/model.json")

INT8_PATH = Path("assets.extra/openvino/int8.xml")
"""Of OpenVINO's graph in 8-bit integers, where a version has one; the weights lie beside it."""

DEFAULT_THRESHOLD = 0.15
"""Share of the maximum, the customary one, for a method and layer set not yet calibrated."""


PROBABILITY_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Of the likeliest class's probability: where `Reference` and `/metrics` count photos."""

NOVELTY_BOUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Of the novelty over `Confidence.most_novelty`, likewise."""


class Architecture(StrEnum):
    """Networks that `training` builds, and `keras`: one that its user brought."""

    RESNET50 = "resnet50"
    EFFICIENTNET_LITE2 = "efficientnet_lite2"
    CUSTOM_CNN = "custom_cnn"
    KERAS = "keras"


class Method(StrEnum):
    """Ways to a heatmap; the value is the model output's name."""

    CAM = "cam"
    GRADCAM = "gradcam"
    GRADCAMPP = "gradcampp"
    LAYERCAM = "layercam"
    HIRESCAM = "hirescam"

    @property
    def signed(self) -> bool:
        """Whether the heatmap comes from the map's signed values, by min and max."""
        return self is Method.CAM


class Rule(StrEnum):
    """What a box is put around: the largest region at or over a threshold of ..."""

    HEATMAP = "heatmap"
    """... the method's own heatmap."""

    FUSED = "fused"
    """... the mean of that and the foreground's, which knows of no class; see `Fused`."""


Threshold = Annotated[float, Field(gt=0, le=1)]
"""Share of a heatmap's maximum."""


MAX_NAME = 200
"""Characters of a name in `model.json`."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Turn the direction of the text after them."""


def _printable(name: str) -> str:
    """A name as it may stand in a line of a log, in a header or on a page."""
    for character in name:
        # Control characters, halves of characters, and separators of lines and paragraphs.
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI:
            raise ValueError(f"a name holds the character U+{ord(character):04X}")
    if name != name.strip():
        raise ValueError("a name starts or ends with a space")
    return name


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]


Version = Annotated[int, Field(ge=1, le=2**63 - 1)]
"""Number of a model version; the file of ratings holds 64 bits."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Strict):
    """One class."""

    index: int = Field(ge=0)
    synset: Name | None = Field(default=None, description="WordNet id, where there is one")
    name: Name = Field(description="display name")


class Layer(_Strict):
    """A layer whose maps the model gives."""

    name: Name
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Input(_Strict):
    """What the graph takes: uint8 RGB `[N, size, size, 3]`."""

    size: int = Field(gt=0, description="pixels")
    resize: Literal["bilinear", "bicubic"] = "bilinear"


class Foreground(_Strict):
    """Where the `foreground` outputs' directions come from, and which of them make its heatmap."""

    rule: Literal["boxes", "ddt", "channel_sum"] = Field(
        description="boxes: by ridge regression on what lies in boxes of the training split; ddt: "
        "the first principal direction; channel_sum: no photos were at hand"
    )
    photos: int = Field(ge=0, description="training photos they were found on")
    layers: tuple[str, ...] = Field(
        default=(), description="whose maps are fused; none: the last layer's alone"
    )

    @property
    def signed(self) -> bool:
        """Whether the heatmap comes from the maps' signed values, by min and max.

        Boxes teach a direction where zero is. DDT's zero is the mean descriptor's, and the sum over
        channels knows none.
        """
        return self.rule != "boxes"


class Fused(_Strict):
    """The rule `fused` for one method and layer set, calibrated on boxes of the training split."""

    foreground: float = Field(gt=0, lt=1, description="the foreground heatmap's weight")
    threshold: Threshold


class Novelty(_Strict):
    """What the `novelty` output measures the distance from: see `training.export.novelty`."""

    dimensions: int = Field(ge=1, description="of the space that training photos' features span")
    photos: int = Field(ge=2, description="training photos it was found on")


Share = Annotated[float, Field(ge=0, le=1)]


class Reference(_Strict):
    """How the validation photos are answered, which answers in service are compared with.

    Under each bound, the share of the photos that are at or under it.
    """

    probability: dict[float, Share] = Field(description="of the likeliest class")
    novelty: dict[float, Share] | None = Field(
        description="over `most_novelty`; null: the model does not measure it"
    )
    classes: tuple[Share, ...] = Field(
        description="share of the photos whose likeliest class it is, by index"
    )
    low: Share = Field(description="share of the photos whose confidence is low")


class Confidence(_Strict):
    """How probabilities are calibrated and when an answer is doubted: from validation photos.

    An answer's `confidence` is low where its likeliest class has less than `least_probability`, no
    position of the finest foreground map reaches `least_foreground`, or the photo has more than
    `most_novelty`.
    """

    temperature: float = Field(gt=0, description="what logits are divided by")
    least_probability: float = Field(ge=0, le=1)
    least_foreground: float = Field(description="of the raw map's greatest value")
    most_novelty: float | None = Field(description="null: the model does not measure it")
    photos: int = Field(ge=1, description="validation photos")
    ece: float = Field(
        ge=0, le=1, description="expected calibration error on these, with the temperature"
    )
    ece_before: float = Field(ge=0, le=1, description="and without")
    reference: Reference | None = Field(
        None, description="null: calibrated by a version that did not keep it"
    )


class Int8Figures(_Strict):
    """What is measured on validation photos before a graph in 8-bit integers is accepted."""

    top1: Share
    ece: Share | None = Field(None, description="null: the probabilities are not calibrated")
    mean_iou: dict[Method, dict[str, Share]] = Field(
        default_factory=dict, description="by method and layer set; empty: no photo has a box"
    )
    mean_iou_fused: dict[Method, dict[str, Share]] = Field(
        default_factory=dict, description="the same by the rule `fused`"
    )


class Int8(_Strict):
    """The version's graph in 8-bit integers: see `training.export.int8`."""

    calibration_photos: int = Field(ge=1, description="training photos that set its ranges")
    photos: int = Field(ge=1, description="validation photos of the figures")
    precision: Literal["float32", "bfloat16"] = Field(description="that it is compared with")
    before: Int8Figures = Field(description="in that precision")
    after: Int8Figures = Field(description="in 8-bit integers")


class Data(_Strict):
    """What the model was trained on."""

    name: str
    splits: dict[str, int] = Field(description="photos in each split")


class ModelCard(_Strict):
    """The contents of `model.json`."""

    name: Name
    version: Version
    architecture: Name
    head: Literal["gap_dense", "other"]
    input: Input
    labels: tuple[Label, ...] = Field(min_length=2)
    layers: tuple[Layer, ...] = Field(min_length=1, description="first to last")
    foreground: Foreground
    novelty: Novelty | None = Field(None, description="null: there is no such output")
    precision: Literal["float32"] | None = Field(
        None, description="the arithmetic that it needs, which engines then choose; null: any"
    )
    thresholds: dict[Method, dict[str, Threshold]] = Field(
        default_factory=dict,
        description="calibrated, by method and layer set (`last`, `last6` or a layer's name)",
    )
    fused: dict[Method, dict[str, Fused]] = Field(
        default_factory=dict, description="the rule `fused`, by method and layer set"
    )
    confidence: Confidence | None = None
    int8: Int8 | None = Field(None, description="null: there is no graph in 8-bit integers")
    training: dict[str, Any] = Field(default_factory=dict, description="the configuration")
    data: Data | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    provenance: str = ""
    checksums: dict[str, str] = Field(
        default_factory=dict, description="sha256 of every file but this one"
    )

    @field_validator("labels")
    @classmethod
    def _in_order(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        """A label's place is its index: that is how predictions are named."""
        if [label.index for label in labels] != list(range(len(labels))):
            raise ValueError("labels are to be in the order of their indexes, from 0")
        return labels

    @field_validator("labels")
    @classmethod
    def _told_apart(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        check_different(labels)
        return labels

    @field_validator("layers")
    @classmethod
    def _different(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """Maps are looked up by their layer's name."""
        if len({layer.name for layer in layers}) < len(layers):
            raise ValueError("two layers have one name")
        return layers

    @model_validator(mode="after")
    def _has_outputs(self) -> Self:
        """What box and confidence are made of has to be among the model's outputs."""
        if not set(self.foreground.layers) <= set(self.layer_names):
            raise ValueError("foreground.layers are to be among the layers")
        limits = self.confidence
        if limits and limits.most_novelty is not None and self.novelty is None:
            raise ValueError("confidence limits the novelty, which the model does not measure")
        return self

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, validated as a card that is read from a file is.

        `model_copy(update=...)` would take any value and any name.

        Raises:
            ValidationError: the result cannot be a model's card.
        """
        return type(self).model_validate({**dict(self), **changes})

    @property
    def layer_names(self) -> list[str]:
        """The exposed layers, first to last."""
        return [layer.name for layer in self.layers]

    @property
    def methods(self) -> list[Method]:
        """The methods that the model carries."""
        return [method for method in Method if method is not Method.CAM or self.has_cam]

    @property
    def has_cam(self) -> bool:
        """Whether the head is one that CAM is defined for."""
        return self.head == "gap_dense"

    @property
    def foreground_layers(self) -> list[str]:
        """The layers whose `foreground` maps make the foreground's heatmap."""
        return list(self.foreground.layers or self.layer_names[-1:])

    def layer_set(self, layers: Sequence[str]) -> str:
        """The name under which a set of layers is calibrated: `last`, `last6` or their names."""
        names = self.layer_names
        if list(layers) == names[-1:]:
            return "last"
        return "last6" if list(layers) == names[-6:] else ",".join(layers)

    def classes_named(self, name: str) -> list[int]:
        """The classes that a name means: none, one, or several that it fits equally well.

        An index goes before a synset, a synset before a display name, and these as they are written
        before any in another spelling: case, underscores and hyphens between letters do not matter.
        """
        names = _class_names(self.labels)
        exact = names.exact.get(_composed(name.strip()))
        return names.folded.get(comparable(name), []) if exact is None else [exact]

    def threshold(self, method: Method, layer_set: str) -> float:
        """The calibrated threshold, or `DEFAULT_THRESHOLD` where there is none."""
        return self.thresholds.get(method, {}).get(layer_set, DEFAULT_THRESHOLD)

    def write(self, version_dir: Path) -> None:
        """Write `model.json` into a version's directory, whole or not at all."""
        path = version_dir / CARD_PATH
        path.parent.mkdir(exist_ok=True)
        # Beside the version, not in it: there, what a crash leaves would fail the checksums.
        draft = version_dir.with_name(f".{version_dir.name}.model.json.draft")
        draft.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model version on disk, read and verified."""

    path: Path
    card: ModelCard

    @property
    def has_int8(self) -> bool:
        """Whether it has a graph in 8-bit integers."""
        return (self.path / INT8_PATH).is_file()


def find_version(path: Path) -> Path:
    """Turn `models/<name>` into its newest version; leave `models/<name>/<version>` as it is.

    Raises:
        BundleError: there is no such directory, or no version in it.
    """
    if (path / CARD_PATH).is_file() or (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        raise BundleError(f"There is no model at {path}.{_others(path)}")
    versions = [child for child in path.iterdir() if child.is_dir() and child.name.isdecimal()]
    if not versions:
        raise BundleError(f"{path} holds no model version (a directory named by a number).")
    return max(versions, key=lambda child: int(child.name))


def _others(path: Path) -> str:
    """The models, or versions of the model, that stand where this one does not."""
    pattern = "*" if path.name.isdecimal() else "*/*"
    places = path.parent.glob(f"{pattern}/{CARD_PATH}")
    names = {place.relative_to(path.parent).parts[0] for place in places}
    return f" {path.parent} has {listed('{}', sorted(names))}." if names else ""


def load(path: Path) -> Bundle:
    """Read and verify `models/<name>` (its newest version) or `models/<name>/<version>`.

    Raises:
        BundleError: nothing there, a malformed `model.json`, one of another version than the
            directory's number, or a file that is missing, added or differs from its checksum; the
            message names it.
    """
    version_dir = find_version(path)
    try:
        card = ModelCard.model_validate_json((version_dir / CARD_PATH).read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{version_dir / CARD_PATH} is missing.") from error
    except ValidationError as error:
        raise BundleError(f"{version_dir / CARD_PATH} is malformed: {_first(error)}") from error
    # A copy may have any name. A number is what the newest is chosen by; answers have the card's.
    if version_dir.name.isdecimal() and int(version_dir.name) != card.version:
        raise BundleError(
            f"{version_dir} has the number {version_dir.name}, and `version` in its model.json is "
            f"{card.version}: change either."
        )
    actual = checksums(version_dir)
    for name in sorted(card.checksums.keys() | actual.keys()):
        if name not in actual:
            raise BundleError(f"{version_dir / name} is missing.")
        if name not in card.checksums:
            raise BundleError(f"{version_dir / name} is not listed in model.json.")
        if actual[name] != card.checksums[name]:
            raise BundleError(f"{version_dir / name} differs from its checksum in model.json.")
    return Bundle(version_dir, card)


def check_different(labels: Sequence[Label]) -> None:
    """Check that no two classes have one name or one synset; names that differ in case do differ.

    Raises:
        ValueError: two have.
    """
    for kind in ("name", "synset"):
        first: dict[str, int] = {}
        for label in labels:
            name = getattr(label, kind)
            if name is None:
                continue
            index = first.setdefault(_composed(name), label.index)
            if index != label.index:
                raise ValueError(f"classes {index} and {label.index} have one {kind}: {name}")


@dataclass(frozen=True, slots=True)
class _ClassNames:
    """What classes are called.

    Attributes:
        exact: each one's index by its index, synset and name as they are written.
        folded: the indexes of those whose synset or name is `comparable` to one.
    """

    exact: dict[str, int]
    folded: dict[str, list[int]]


@lru_cache(maxsize=8)
def _class_names(labels: tuple[Label, ...]) -> _ClassNames:
    exact = {str(label.index): label.index for label in labels}
    folded: dict[str, list[int]] = {}
    for kind in ("synset", "name"):
        for label in labels:
            if name := getattr(label, kind):
                exact.setdefault(_composed(name), label.index)
                alike = folded.setdefault(comparable(name), [])
                if label.index not in alike:
                    alike.append(label.index)
    return _ClassNames(exact, folded)


def _composed(name: str) -> str:
    """A name with each accented letter as one character: there are two ways to write them."""
    return unicodedata.normalize("NFC", name)


def comparable(name: str) -> str:
    """A class's name, synset or index as names are compared: by their words, in lower case.

    Underscores, and hyphens that follow a letter or digit, count as spaces; `-1` is not class 1.
    """
    return " ".join(re.sub(r"_|(?<=\w)-", " ", _composed(name.casefold())).split())


def near_classes(name: str, labels: Sequence[Label]) -> list[str]:
    """At most five classes: those whose name has these words, then similar spellings."""
    key = comparable(name)
    names = {comparable(label.name): label.name for label in labels}
    names |= {label.synset: f"{label.synset} ({label.name})" for label in labels if label.synset}
    containing = [spelling for spelling in names if key and f" {key} " in f" {spelling} "]
    return [names[spelling] for spelling in dict.fromkeys([*containing, *near(key, names, 5)])][:5]


def checksums(version_dir: Path) -> dict[str, str]:
    """sha256 of every file of a version but `model.json`, by its path in POSIX form."""
    return {
        path.relative_to(version_dir).as_posix(): _sha256(path)
        for path in sorted(version_dir.rglob("*"))
        if path.is_file() and path.relative_to(version_dir) != CARD_PATH
    }


def _first(error: ValidationError) -> str:
    """What is wrong first, in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
