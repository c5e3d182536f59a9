"""How a report calls what figures are of, and writes numbers."""

from app.bundle import Rule
from training.report_figures import Estimate, Interval

__all__ = ["clear_of_zero", "interval", "measured", "named", "placed", "signed"]

_METHODS = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcampp": "Grad-CAM++",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}

_LAYERS = {"last": "last layer", "last6": "last six layers"}


def named(method: str, layers: str | None = None, rule: Rule | None = None) -> str:
    """`Grad-CAM, last layer, rule fused`, as far as it is told."""
    parts = [_METHODS.get(method, method)]
    if layers is not None:
        parts.append(placed(layers))
    if rule is not None:
        parts.append(f"rule {rule.value}")
    return ", ".join(parts)


def placed(layers: str) -> str:
    """A layer set, in words."""
    return _LAYERS.get(layers, layers)


def interval(edges: Interval) -> str:
    """`[0.571, 0.602]`."""
    return f"[{edges[0]:.3f}, {edges[1]:.3f}]"


def measured(told: Estimate | None) -> str:
    """`0.585 [0.571, 0.602]`."""
    return "" if told is None else f"{told.value:.3f} {interval(told.interval)}"


def signed(difference: float | None, edges: Interval | None) -> str:
    """`+0.021 [+0.010, +0.033]`."""
    if difference is None or edges is None:
        return ""
    return f"{difference:+.3f} [{edges[0]:+.3f}, {edges[1]:+.3f}]"


def clear_of_zero(edges: Interval) -> bool:
    """Whether a difference's interval says that two figures differ."""
    return edges[0] > 0 or edges[1] < 0
