"""Which scale a plot's axis needs."""

from collections.abc import Iterable

__all__ = ["span_decades"]

_RATIO = 100


def span_decades(values: Iterable[float]) -> bool:
    """Whether the values that are above zero span two decades or more: a log axis shows them."""
    shown = [value for value in values if value > 0]
    return bool(shown) and max(shown) >= _RATIO * min(shown)
