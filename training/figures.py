"""Figures of heatmaps as JSON has them: each beside the constant box's, in a tree."""

from collections.abc import Mapping
from typing import Any, TypeVar

from app.evidence import MethodAtLayers
from training.metrics import CONSTANT_BOX, FULL_FRAME, Floats, Statistic, estimate

__all__ = ["BASELINES", "Statistics", "beside", "of_methods", "tree"]

BASELINES = {"constant_box": CONSTANT_BOX, "full_frame": FULL_FRAME}
"""Boxes as shares of the frame; as heatmaps, they are even inside."""

T = TypeVar("T")

Statistics = Mapping[str, Statistic]
"""By the figure's name."""


def of_methods(
    methods: Mapping[MethodAtLayers, Statistics],
    baselines: Mapping[str, Statistics],
    weights: Floats,
) -> dict[str, Any]:
    """The methods' estimates, and those of `BASELINES`, over the photos that `weights` are of."""
    constant = baselines["constant_box"]
    return {
        "photos": weights.shape[1],
        "methods": tree({key: beside(one, constant, weights) for key, one in methods.items()}),
        "baselines": {
            name: beside(one, None if name == "constant_box" else constant, weights)
            for name, one in baselines.items()
        },
    }


def beside(every: Statistics, constant: Statistics | None, weights: Floats) -> dict[str, Any]:
    """Each statistic's estimate, with its difference to the constant box's; see `estimate`."""
    return {
        name: estimate(statistic, weights, constant[name] if constant else None)
        for name, statistic in every.items()
    }


def tree(leaves: Mapping[MethodAtLayers, T]) -> dict[str, dict[str, T]]:
    """By method, then by layer set."""
    found: dict[str, dict[str, T]] = {}
    for layers, leaf in leaves.items():
        found.setdefault(layers.method.value, {})[layers.name] = leaf
    return found
