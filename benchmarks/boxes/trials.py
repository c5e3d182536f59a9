"""The trials: rules with options, among which the photos of the other half choose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.bundle import DEFAULT_THRESHOLD, Method, ModelCard, Rule
from app.heatmaps import locate_all
from benchmarks.boxes.crossfit import RULES
from benchmarks.boxes.maps import MIRRORED, name
from benchmarks.boxes.rules import (
    Find,
    everything,
    inferior_removed,
    peak_region,
    strongest_region,
)
from training.calibration.boxes import THRESHOLDS, WEIGHTS

__all__ = ["Option", "Trial", "trials"]

Map = npt.NDArray[np.float32]

Row = Mapping[str, Map]
"""One photo's raw maps."""

Search = Callable[[Row], Map]
"""Turns raw maps into the map that is searched for a box: `[S, S]`, zero without evidence."""

PERCENTILES = (0.15, 0.3, 0.45, 0.6)
"""For IVR; options to choose from, like thresholds."""

LAST, LAST6 = "last", "last6"

TITLES = {
    Method.CAM: "CAM",
    Method.GRADCAM: "Grad-CAM",
    Method.GRADCAMPP: "Grad-CAM++",
    Method.LAYERCAM: "LayerCAM",
    Method.HIRESCAM: "HiResCAM",
}

SOURCES = {"ddt": "DDT", "boxes": "boxes"}

FUSED = ((Method.CAM, LAST), (Method.GRADCAM, LAST), (Method.LAYERCAM, LAST6))
"""The methods and layer sets with which the foreground is fused here."""


@dataclass(frozen=True)
class Option:
    """A way to look for a box, at several thresholds."""

    search: Search
    find: Find = locate_all
    thresholds: Sequence[float] = THRESHOLDS


@dataclass(frozen=True)
class Trial:
    """A row of a table.

    Attributes:
        title: unique.
        options: one of them is chosen, together with its threshold.
        learnt: whether it depends on the foreground's directions.
        pooled: titles of earlier trials whose options it adds to its own.
        served: the service's rule that works the same way, if there is one.
    """

    title: str
    options: tuple[Option, ...] = ()
    learnt: bool = False
    pooled: tuple[str, ...] = ()
    served: Rule | None = None


class Catalogue:
    """Makes the trials of one model version."""

    def __init__(
        self, card: ModelCard, foreground_layers: Sequence[str], larger: Sequence[int]
    ) -> None:
        """Take over what differs between models.

        Args:
            card: of a model with CAM.
            foreground_layers: one or two, finer first. Where the rest says nothing of layers, the
                foreground is that of the card's.
            larger: input sizes whose maps are there as well.
        """
        self._card = card
        self._size = card.input.size
        self._layers = {LAST: card.layer_names[-1:], LAST6: card.layer_names[-6:]}
        self._foreground_layers = tuple(foreground_layers)
        served = tuple(card.foreground_layers)
        self._served = served if set(served) <= set(foreground_layers) else self._foreground_layers
        self._larger = tuple(larger)

    def sections(self) -> dict[str, list[Trial]]:
        """The trials under their headings, those to compare with first."""
        return {
            "The rule as it is": [self._plain(Method.CAM), self._plain(Method.GRADCAM)],
            "The customary threshold": [self._customary(method) for method, _ in FUSED[:2]],
            "Normalised from a percentile on (IVR)": [self._ivr(method) for method, _ in FUSED[:2]],
            "Other methods, and several layers": self._methods(),
            "The foreground alone, of no class": self._foregrounds(),
            "Foreground and class together": self._fused(),
            "Layers of the foreground that is fused": self._fused_layers(),
            "With a second pass over the mirror image": self._mirrored(),
            "A larger input": self._enlarged(),
            "Which region": self._regions(),
        }

    def _values(self, maps: Sequence[Map], *, signed: bool) -> Map:
        heatmap = heatmaps.from_maps(maps, signed=signed)
        return heatmaps.resize(heatmap.values, self._size, self._size)

    def _of_method(self, method: Method, layers: str = LAST, view: str = "") -> Search:
        names = [name(method, layer, view) for layer in self._layers[layers]]
        return lambda row: self._values([row[map_name] for map_name in names], signed=method.signed)

    def _of_foreground(
        self, rule: str, layers: Sequence[str] | None = None, view: str = ""
    ) -> Search:
        names = [name(rule, layer, view) for layer in layers or self._served]
        signed = rule != "boxes"  # as `app.bundle.Foreground.signed`
        return lambda row: self._values([row[map_name] for map_name in names], signed=signed)

    def _plain(self, method: Method, layers: str = LAST) -> Trial:
        option = Option(self._of_method(method, layers))
        return Trial(_title(method, layers), (option,), served=Rule.HEATMAP)

    def _customary(self, method: Method) -> Trial:
        option = Option(self._of_method(method), thresholds=(DEFAULT_THRESHOLD,))
        return Trial(f"{TITLES[method]}, threshold {DEFAULT_THRESHOLD:g}", (option,))

    def _ivr(self, method: Method) -> Trial:
        options = (Option(_then(self._of_method(method), percentile)) for percentile in PERCENTILES)
        return Trial(f"{TITLES[method]}, IVR", tuple(options))

    def _methods(self) -> list[Trial]:
        gradients = [method for method in self._card.methods if method is not Method.CAM]
        return [
            self._plain(method, layers)
            for layers in (LAST, LAST6)
            for method in gradients
            if (method, layers) != (Method.GRADCAM, LAST)
        ]

    def _layer_sets(self) -> list[tuple[str, ...]]:
        """Each of the foreground's layers alone, and all of them."""
        sets: list[tuple[str, ...]] = [(layer,) for layer in reversed(self._foreground_layers)]
        return sets if len(sets) == 1 else [*sets, self._foreground_layers]

    def _foregrounds(self) -> list[Trial]:
        return [
            Trial(
                f"{SOURCES[rule]}, {_listed(layers)}",
                (Option(self._of_foreground(rule, layers)),),
                learnt=True,
            )
            for rule in RULES
            for layers in self._layer_sets()
        ]

    def _fused_layers(self) -> list[Trial]:
        gradcam = self._of_method(Method.GRADCAM)
        return [
            Trial(
                f"Grad-CAM + {SOURCES[rule]}, 0.75, {_listed(layers)}",
                (Option(_blend(gradcam, self._of_foreground(rule, layers), 0.75)),),
                learnt=True,
            )
            for rule in RULES
            for layers in self._layer_sets()
        ]

    def _fused(self) -> list[Trial]:
        trials = []
        for rule in RULES:
            for method, layers in FUSED:
                whole = f"{_title(method, layers)} + {SOURCES[rule]}"
                titles = [f"{whole}, {weight:g}" for weight in WEIGHTS]
                for weight, title in zip(WEIGHTS, titles, strict=True):
                    search = _blend(
                        self._of_method(method, layers), self._of_foreground(rule), weight
                    )
                    served = self._serves(method, layers, rule, weight)
                    trials.append(Trial(title, (Option(search),), learnt=True, served=served))
                pooled = (_title(method, layers), *titles)
                trials.append(Trial(f"{whole}, weight chosen too", learnt=True, pooled=pooled))
        return trials

    def _serves(self, method: Method, layers: str, rule: str, weight: float) -> Rule | None:
        fused = self._card.fused.get(method, {}).get(layers)
        same = fused is not None and fused.foreground == weight
        return Rule.FUSED if same and self._card.foreground.rule == rule else None

    def _mirrored(self) -> list[Trial]:
        foreground = self._of_foreground("boxes", view=MIRRORED)
        alone = [
            Trial(
                f"{_title(method, layers)}, mirrored too",
                (Option(self._of_method(method, layers, MIRRORED)),),
            )
            for method, layers in FUSED
        ]
        fused = [
            Trial(
                f"{_title(method, layers)} + boxes, 0.5, mirrored too",
                (Option(_blend(self._of_method(method, layers, MIRRORED), foreground, 0.5)),),
                learnt=True,
            )
            for method, layers in FUSED
        ]
        boxes = Trial("boxes, mirrored too", (Option(foreground),), learnt=True)
        return [*alone, boxes, *fused]

    def _enlarged(self) -> list[Trial]:
        trials = []
        for size in map(str, self._larger):
            cam = self._of_method(Method.CAM, view=size)
            trials.append(Trial(f"CAM, {size} px", (Option(cam),)))
            for rule in RULES:
                search = self._of_foreground(rule, view=size)
                trials.append(Trial(f"{SOURCES[rule]}, {size} px", (Option(search),), learnt=True))
            fused = Option(_blend(cam, self._of_foreground("boxes", view=size), 0.5))
            trials.append(Trial(f"CAM + boxes, 0.5, {size} px", (fused,), learnt=True))
        return trials

    def _regions(self) -> list[Trial]:
        cam, gradcam = self._of_method(Method.CAM), self._of_method(Method.GRADCAM)
        fused = _blend(cam, self._of_foreground("boxes"), 0.5)
        kinds = {"CAM": cam, "Grad-CAM": gradcam, "CAM + boxes, 0.5": fused}
        rules: dict[str, Find] = {
            "the region with the peak": peak_region,
            "the region with the greatest sum": strongest_region,
            "around all regions": everything,
        }
        return [
            Trial(f"{kind}, {title}", (Option(search, find),), learnt=search is fused)
            for kind, search in kinds.items()
            for title, find in rules.items()
        ]


def trials(
    card: ModelCard, foreground_layers: Sequence[str], larger: Sequence[int]
) -> dict[str, list[Trial]]:
    """The trials under their headings; see `Catalogue`."""
    return Catalogue(card, foreground_layers, larger).sections()


def _title(method: Method, layers: str) -> str:
    return TITLES[method] if layers == LAST else f"{TITLES[method]}, last six layers"


def _listed(layers: Sequence[str]) -> str:
    return " and ".join(f"`{layer}`" for layer in layers)


def _then(search: Search, percentile: float) -> Search:
    return lambda row: inferior_removed(search(row), percentile)


def _blend(of_class: Search, foreground: Search, weight: float) -> Search:
    """As the service blends: a photo without evidence for the class has no box."""

    def search(row: Row) -> Map:
        values = of_class(row)
        return heatmaps.blend(values, foreground(row), weight) if values.any() else values

    return search
