"""A report's plots, as SVG elements."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot, ticker

from app.bundle import Rule
from training.axes import span_decades
from training.evaluation.schema import Curves, ReliabilityBin
from training.report.svg import INK, STYLE, inline
from training.report.wording import layers_name

__all__ = ["curves", "histogram", "reliability"]

BINS = [step / 20 for step in range(21)]
"""IoU's, each 0.05 wide."""

# Told apart by those who see red and green alike: Okabe and Ito, Color universal design, 2008.
_COLOURS = {Rule.HEATMAP: "#0072b2", Rule.FUSED: "#d55e00"}
_SIZE = (4.4, 3.4)  # inches: text can be read where a plot is as wide as a phone


def histogram(
    name: str, title: str, ious: Mapping[Rule, Sequence[float]], constant_box: float
) -> str:
    """Counts of photos over their IoU, by rule, with each mean and the constant box's.

    Selvaraju et al., Grad-CAM, 2017, score boxes so; the means are dashed, the constant box's is
    dotted.

    Args:
        name: see `inline`.
        title: see `inline`.
        ious: of the same photos.
        constant_box: its mean IoU.
    """
    with matplotlib.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=_SIZE, layout="constrained")
        for rule, values in ious.items():
            style: dict[str, Any] = (
                {"alpha": 0.5} if rule is Rule.HEATMAP else {"histtype": "step", "linewidth": 2}
            )
            colour, mean = _COLOURS[rule], float(np.mean(values))
            label = f"rule {rule.value}, mean {mean:.3f}"
            axis.hist(values, BINS, color=colour, label=label, **style)
            axis.axvline(mean, color=colour, linestyle="--")
        axis.axvline(
            constant_box,
            color=INK,
            linestyle=":",
            linewidth=2,
            label=f"constant box, mean {constant_box:.3f}",
        )
        axis.set(xlabel="IoU with the true box", ylabel="photos", xlim=(0, 1))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.grid()
        figure.legend(loc="outside upper left", ncols=2)
        return inline(figure, name, title)


def curves(name: str, title: str, method: Mapping[str, Curves], constant_box: float) -> str:
    """Mean IoU over the threshold, for one method; the service's thresholds as dots.

    Both axes run from 0 to 1 for every method, so that plots can be compared. The IoU is linear
    although it falls to nearly 0 at high thresholds: what matters is its upper end.

    Args:
        name: see `inline`.
        title: see `inline`.
        method: its curves by layer set.
        constant_box: its mean IoU.
    """
    with matplotlib.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=_SIZE, layout="constrained")
        for layers, by_rule in method.items():
            _curves_of(axis, layers, by_rule)
        axis.axhline(constant_box, color=INK, linestyle=":", label="constant box")
        axis.set(
            xlabel="threshold, share of the maximum", ylabel="mean IoU", xlim=(0, 1), ylim=(0, 1)
        )
        axis.grid()
        figure.legend(loc="outside upper left", ncols=2)
        return inline(figure, name, title)


def _curves_of(axis: Any, layers: str, curves: Curves) -> None:
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


def reliability(name: str, title: str, bins: Sequence[ReliabilityBin]) -> str:
    """Accuracy over the stated probability, beside the diagonal; below it, counts of photos.

    DeGroot and Fienberg, The comparison and evaluation of forecasters, 1983.

    Args:
        name: see `inline`.
        title: see `inline`.
        bins: those without photos leave a gap.
    """
    filled = [share for share in bins if share.photos]
    middles = [(share.low + share.high) / 2 for share in filled]
    widths = [share.high - share.low for share in filled]
    counts = [share.photos for share in filled]
    with matplotlib.rc_context(STYLE):
        figure, (upper, lower) = pyplot.subplots(
            2,
            1,
            figsize=(_SIZE[0], 4.6),
            height_ratios=(3, 1),
            sharex=True,
            layout="constrained",
        )
        style: dict[str, Any] = {"width": widths, "color": _COLOURS[Rule.HEATMAP], "alpha": 0.5}
        upper.bar(middles, [share.accuracy for share in filled], label="accuracy", **style)
        upper.plot((0, 1), (0, 1), color=INK, linestyle="--", label="perfectly calibrated")
        upper.plot(
            [share.confidence for share in filled],
            [share.accuracy for share in filled],
            "o",
            color=_COLOURS[Rule.FUSED],
            markersize=4,
            label="at the mean probability",
        )
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        lower.bar(middles, counts, **style)
        lower.set(xlabel="stated probability of the likeliest breed", ylabel="photos")
        if span_decades(counts):
            lower.set_yscale("log")
            lower.set_ylim(bottom=0.7)  # a bar of one photo is seen
            lower.set_ylabel("photos (log)")
        for axis in (upper, lower):
            axis.grid()
            axis.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2)
        return inline(figure, name, title)
