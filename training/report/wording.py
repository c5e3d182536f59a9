"""Names and numbers as the report and the terminal show them."""

from app.bundle import Method, Rule
from training.evaluation.schema import Estimate, Interval

__all__ = [
    "clear_of_zero",
    "difference_text",
    "estimate_text",
    "heatmap_name",
    "interval_text",
    "layers_name",
]

_METHODS = {
    Method.CAM: "CAM",
    Method.GRADCAM: "Grad-CAM",
    Method.GRADCAMPP: "Grad-CAM++",
    Method.LAYERCAM: "LayerCAM",
    Method.HIRESCAM: "HiResCAM",
}

_LAYERS = {"last": "last layer", "last6": "last six layers"}


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


def clear_of_zero(edges: Interval) -> bool:
    """Whether a difference's interval says that two figures differ."""
    return edges[0] > 0 or edges[1] < 0
