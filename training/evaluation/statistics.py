"""Estimates of heatmaps beside the constant box's, and their order by method and layer set."""

from collections.abc import Mapping
from typing import TypeVar

from app.evidence import MethodAtLayers
from training.evaluation.metrics import CONSTANT_BOX, FULL_FRAME, Floats, Statistic, estimate
from training.evaluation.schema import ByMethod, Result

__all__ = ["BASELINES", "Statistics", "by_method", "estimates"]

BASELINES = {"constant_box": CONSTANT_BOX, "full_frame": FULL_FRAME}
"""Boxes as shares of the frame; as heatmaps, they are even inside."""

T = TypeVar("T")
Metrics = TypeVar("Metrics", bound=Result)

Statistics = Mapping[str, Statistic]
"""By the figure's name."""


def estimates(
    metrics: type[Metrics],
    statistics: Statistics,
    weights: Floats,
    baseline: Statistics | None = None,
    *,
    heatmap: Statistics | None = None,
) -> Metrics:
    """Every statistic's estimate, with its differences; see `estimate`.

    Args:
        metrics: the class whose fields are the statistics' names.
        statistics: the figures.
        weights: `[R, N]`, see `resample`.
        baseline: the same figures of the constant box.
        heatmap: the same figures by the rule `heatmap`.
    """
    return metrics(
        **{
            name: estimate(
                statistic,
                weights,
                baseline[name] if baseline else None,
                heatmap=heatmap[name] if heatmap else None,
            )
            for name, statistic in statistics.items()
        }
    )


def by_method(figures: Mapping[MethodAtLayers, T]) -> ByMethod[T]:
    """The same, by method, then by layer set."""
    nested: ByMethod[T] = {}
    for layers, figure in figures.items():
        nested.setdefault(layers.method, {})[layers.name] = figure
    return nested
