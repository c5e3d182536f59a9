"""From one photo's row of outputs to a method's evidence: heatmap, box and peak.

The service, calibration and evaluation all go through here, so that what is measured is what is
served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app import engines, heatmaps, images
from app.bundle import Fused, Method, ModelCard, Rule
from app.errors import MethodUnavailable, RequestError
from app.heatmaps import Heatmap
from app.images import Box

__all__ = [
    "CURVE_THRESHOLDS",
    "Evidence",
    "MethodAtLayers",
    "enlarged",
    "find",
    "foreground_of",
    "fused_rule",
    "heatmap_of",
]

Map = npt.NDArray[np.float32]
Outputs = Mapping[str, npt.NDArray[Any]]
"""One photo's row of the model's outputs, by name."""


CURVE_THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 50))
"""0.02 to 0.98: where curves of IoU over thresholds have their points."""


@dataclass(frozen=True, slots=True)
class MethodAtLayers:
    """A method at the layers whose maps it fuses.

    Attributes:
        method: the method.
        name: of the layer set, under which it is calibrated: `last`, `last6` or the layers' names.
        layer_names: the layers, first to last.
    """

    method: Method
    name: str
    layer_names: tuple[str, ...]

    @classmethod
    def of(cls, card: ModelCard, method: Method, layers: Sequence[str]) -> "MethodAtLayers":
        """With the name that the model's card has for the layers."""
        return cls(method, card.layer_set(layers), tuple(layers))

    @classmethod
    def parse(cls, card: ModelCard, method: Method, layers: str) -> "MethodAtLayers":
        """As a request names the layers: `last`, `last6`, or names with commas between.

        Raises:
            MethodUnavailable: it is CAM, and the model's head is not one for it.
            RequestError: the model does not expose such a layer, or has CAM at the last alone.
        """
        if method is Method.CAM and not card.has_cam:
            raise MethodUnavailable(
                "CAM needs a head of global average pooling and one Dense layer, which model "
                f"{card.name!r} does not have. Use /gradcam."
            )
        names = card.layer_names
        if method is Method.CAM and layers not in ("last", names[-1]):
            raise RequestError("CAM has the last layer alone: `last`.")
        if layers in ("last", "last6"):
            return cls.of(card, method, names[-1:] if layers == "last" else names[-6:])
        chosen = {name.strip() for name in layers.split(",")}
        unknown = sorted(chosen.difference(names))
        if unknown:
            raise RequestError(
                f"The model does not expose {', '.join(map(repr, unknown))}. "
                f"Its layers are {', '.join(names)}; or `last` or `last6`, each by itself."
            )
        return cls.of(card, method, [name for name in names if name in chosen])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a method sees its evidence in a photo.

    Attributes:
        heatmap: at its map's size.
        values: the heatmap at the model's input size, `[S, S]`; None unless its status is `ok`.
        rule: what the box is put around.
        threshold: share of `searched`'s maximum.
        searched: `[S, S]`, where the box is looked for: `values` by the rule `heatmap`.
    """

    heatmap: Heatmap
    values: Map | None
    rule: Rule
    threshold: float
    searched: Map | None

    def box(self, width: int, height: int) -> Box | None:
        """The box in an upright photo of that size, pixels; None without evidence."""
        if self.searched is None:
            return None
        return _in_photo(
            heatmaps.locate(self.searched, self.threshold), self.searched, width, height
        )

    def boxes(self, thresholds: Sequence[float], width: int, height: int) -> list[Box | None]:
        """The boxes at several rising thresholds; see `box`."""
        if self.searched is None:
            return [None] * len(thresholds)
        boxes = heatmaps.locate_all(self.searched, thresholds)
        return [_in_photo(box, self.searched, width, height) for box in boxes]

    def peak(self, width: int, height: int) -> tuple[float, float] | None:
        """Where the heatmap is greatest, x and y in photo pixels; None without evidence."""
        if self.values is None:
            return None
        rows, columns = self.heatmap.values.shape
        point = heatmaps.peak(self.heatmap.values)
        return images.scale_point(point, (columns, rows), (width, height))


def fused_rule(card: ModelCard, spec: MethodAtLayers, rule: Rule | None) -> Fused | None:
    """The calibrated weights of the rule `fused` where it applies; None where `heatmap` does.

    Args:
        card: the model's.
        spec: the method and its layers.
        rule: the requested rule; default: `fused` where it is calibrated for these layers.

    Raises:
        MethodUnavailable: `fused` is requested and not calibrated for these layers.
    """
    if rule is Rule.HEATMAP:
        return None
    fused = card.fused.get(spec.method, {}).get(spec.name)
    if fused is None and rule is Rule.FUSED:
        raise MethodUnavailable(
            f"The rule `fused` is not calibrated for {spec.method.value} at these layers of "
            f"model {card.name!r}. Use `heatmap`."
        )
    return fused


def find(
    card: ModelCard,
    outputs: Outputs,
    spec: MethodAtLayers,
    *,
    rule: Rule | None = None,
    threshold: float | None = None,
    foreground: Map | None = None,
) -> Evidence:
    """The evidence of a method at its layers.

    Args:
        card: the model's.
        outputs: one photo's.
        spec: the method and its layers.
        rule: see `fused_rule`.
        threshold: share of the maximum, over 0 to 1; default: the calibrated one.
        foreground: `enlarged` of `foreground_of`, `[S, S]`, for callers that explain a photo more
            than once; default: computed where the rule needs it.

    Raises:
        MethodUnavailable: `fused` is requested and not calibrated for these layers.
    """
    fused = fused_rule(card, spec, rule)
    heatmap = heatmap_of(card, outputs, spec)
    # Enlarged first: the largest region is looked for at the input's size, `[S, S]`.
    values = enlarged(card, heatmap) if heatmap.status == "ok" else None
    searched = values
    if fused and values is not None:
        if foreground is None:
            foreground = enlarged(card, foreground_of(card, outputs))
        searched = heatmaps.blend(values, foreground, fused.foreground)
    calibrated = fused.threshold if fused else card.threshold(spec.method, spec.name)
    return Evidence(
        heatmap=heatmap,
        values=values,
        rule=Rule.FUSED if fused else Rule.HEATMAP,
        threshold=calibrated if threshold is None else threshold,
        searched=searched,
    )


def heatmap_of(card: ModelCard, outputs: Outputs, spec: MethodAtLayers) -> Heatmap:
    """A method's heatmap at the finest of its maps' sizes, `[h, w]`."""
    names = [engines.layer_output(card, spec.method, layer) for layer in spec.layer_names]
    return heatmaps.from_maps([outputs[name] for name in names], signed=spec.method.signed)


def foreground_of(card: ModelCard, outputs: Outputs) -> Heatmap:
    """The class-agnostic foreground's heatmap at the finest of its maps' sizes, `[h, w]`."""
    names = [engines.layer_output(card, "foreground", layer) for layer in card.foreground_layers]
    return heatmaps.from_maps([outputs[name] for name in names], signed=card.foreground.signed)


def enlarged(card: ModelCard, heatmap: Heatmap) -> Map:
    """A heatmap's values at the model's input size, `[S, S]`."""
    return heatmaps.resize(heatmap.values, card.input.size, card.input.size)


def _in_photo(box: Box | None, searched: Map, width: int, height: int) -> Box | None:
    """A box in pixels of `searched`, `[S, S]`, carried to a photo of `width` x `height`."""
    rows, columns = searched.shape
    return images.scale_box(box, (columns, rows), (width, height)) if box else None
