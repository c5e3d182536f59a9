"""A report's plots, as PNG files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from app.bundle import Rule
from training.evaluation.schema import ByMethod, Curves
from training.report.wording import heatmap_name, layers_name

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

__all__ = ["curves", "histogram"]

BINS = [step / 20 for step in range(21)]
"""IoU's, each 0.05 wide."""

_COLOURS = {Rule.HEATMAP: "tab:blue", Rule.FUSED: "tab:orange"}
_CONSTANT = "tab:red"


def histogram(ious: Mapping[Rule, Sequence[float]], constant_box: float) -> bytes:
    """Counts of photos over their IoU, by rule, with each mean and the constant box's.

    Selvaraju et al., Grad-CAM, 2017, score boxes so; the means are dashed, the constant box's is
    dotted.

    Args:
        ious: of the same photos.
        constant_box: its mean IoU.
    """
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for rule, values in ious.items():
        style: dict[str, Any] = (
            {"alpha": 0.5} if rule is Rule.HEATMAP else {"histtype": "step", "linewidth": 2}
        )
        colour, mean = _COLOURS[rule], float(np.mean(values))
        axis.hist(values, BINS, color=colour, label=f"rule {rule.value}", **style)
        axis.axvline(
            mean, color=colour, linestyle="--", label=f"mean by the rule {rule.value}, {mean:.3f}"
        )
    axis.axvline(
        constant_box,
        color=_CONSTANT,
        linestyle=":",
        linewidth=2,
        label=f"mean of the constant box, {constant_box:.3f}",
    )
    axis.set(xlabel="IoU with the true box", ylabel="photos", xlim=(0, 1))
    axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return _png(figure)


def curves(methods: ByMethod[Curves], constant_box: float) -> bytes:
    """Mean IoU over the threshold: a panel a method, the service's thresholds as dots.

    Args:
        methods: by method, then by layer set.
        constant_box: its mean IoU.
    """
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)  # rounded up
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(4 * columns, 3.2 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, (method, sets) in zip(axes.flat, methods.items(), strict=False):
        for layers, by_rule in sets.items():
            _panel(axis, layers, by_rule)
        axis.axhline(constant_box, color=_CONSTANT, linestyle=":", label="constant box")
        axis.set(title=heatmap_name(method), xlim=(0, 1), ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.supxlabel("threshold, share of the maximum")
    figure.supylabel("mean IoU")
    return _png(figure)


def _panel(axis: Any, layers: str, curves: Curves) -> None:
    for rule, curve in curves.rules.items():
        (line,) = axis.plot(
            curves.thresholds,
            curve.mean_iou,
            color=_COLOURS[rule],
            linestyle="-" if layers == "last" else "--",
            label=f"{layers_name(layers)}, {rule.value}",
        )
        height = float(np.interp(curve.threshold, curves.thresholds, curve.mean_iou))
        axis.plot(curve.threshold, height, "o", color=line.get_color(), markersize=6)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    # White wherever the page is dark, and no date or version: the same figures, the same file.
    figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return file.getvalue()
