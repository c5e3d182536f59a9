"""Names and numbers as the report and the terminal show them."""

from app.bundle import Method, Rule
from training.evaluation.schema import Estimate, Evaluation, Interval

__all__ = [
    "BLANK_AS_ZERO",
    "clear_of_zero",
    "comparison_text",
    "difference_text",
    "estimate_text",
    "heatmap_name",
    "interval_text",
    "layers_name",
    "seconds_text",
    "shows_top5",
]

_METHODS = {
    Method.CAM: "CAM",
    Method.GRADCAM: "Grad-CAM",
    Method.GRADCAMPP: "Grad-CAM++",
    Method.LAYERCAM: "LayerCAM",
    Method.HIRESCAM: "HiResCAM",
}

_LAYERS = {"last": "last layer", "last6": "last six layers"}


BLANK_AS_ZERO = "count as 0, as an older version of evaluate wrote these figures"
"""What a similarity does with blank heatmaps where they are not counted."""


def heatmap_name(method: Method, layers: str | None = None, rule: Rule | None = None) -> str:
    """`Grad-CAM, last layer, rule fused`, or as much of it as is passed."""
    parts = [_METHODS[method]]
    if layers is not None:
        parts.append(layers_name(layers))
    if rule is not None:
        parts.append(f"rule {rule.value}")
    return ", ".join(parts)


def layers_name(layers: str) -> str:
    """A layer set, in words."""
    return _LAYERS.get(layers, layers)


def interval_text(edges: Interval) -> str:
    """`[0.571, 0.602]`."""
    return f"[{edges[0]:.3f}, {edges[1]:.3f}]"


def estimate_text(estimate: Estimate | None) -> str:
    """`0.585 [0.571, 0.602]`; empty for None."""
    return "" if estimate is None else f"{estimate.value:.3f} {interval_text(estimate.interval)}"


def difference_text(difference: float | None, edges: Interval | None) -> str:
    """`+0.021 [+0.010, +0.033]`; empty for None."""
    if difference is None or edges is None:
        return ""
    return f"{difference:+.3f} [{edges[0]:+.3f}, {edges[1]:+.3f}]"


def seconds_text(seconds: float) -> str:
    """`0.0234`, `11.2` or `1,235`: three digits, or all before the point."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def comparison_text(
    difference: float | None, edges: Interval | None, *, less_is_better: bool = False
) -> str:
    """`better by 0.021 [0.010, 0.033]`, or `worse by ...`; empty for None.

    `unclear: +0.002 [-0.010, +0.014]` where the interval holds zero.
    """
    if difference is None or edges is None:
        return ""
    if not clear_of_zero(edges):
        return f"unclear: {difference_text(difference, edges)}"
    word = "better" if (edges[0] > 0) is not less_is_better else "worse"
    low, high = sorted(map(abs, edges))
    return f"{word} by {abs(difference):.3f} {interval_text((low, high))}"


def shows_top5(evaluation: Evaluation) -> bool:
    """Whether top-5 accuracy says anything: of five classes or fewer, it is always 1."""
    classes = evaluation.model.classes
    return classes is None or classes > 5


def clear_of_zero(edges: Interval) -> bool:
    """Whether a difference's interval says that two figures differ."""
    return edges[0] > 0 or edges[1] < 0
