"""What a response is made as, by the request's `Accept` header (RFC 9110, 12.5.1)."""

import re
from collections.abc import Sequence

from werkzeug.http import parse_list_header, parse_options_header

from app.errors import NotAcceptable
from app.wording import listed

__all__ = ["negotiate"]

MAX_LENGTH = 4096
"""Characters of the header that are read: no client sends more, and parsing takes its time."""

_RANGE = re.compile(r"\*|[^\s/]+/[^\s/]+")
_ANY = {"*": "*/*"}  # Java sends both
_WEIGHT = re.compile(r"\d+\.?\d*|\.\d+")  # wider than the RFC's grammar: Java sends `.2`
_HAS_WEIGHT = re.compile(r";\s*q\s*=", re.IGNORECASE)


def negotiate(accept: Sequence[str], offers: Sequence[str]) -> str:
    """The offer that `Accept` prefers; the first of them on a tie.

    The most specific range that matches an offer gives its weight; of equally specific ones, the
    last. What is no range (`garbage`), or has a weight that is not a number from 0 to 1, is left
    out. Other parameters (`;charset=utf-8`) do not matter, as offers have none.

    Args:
        accept: the values of every `Accept` header of the request; without a range in them,
            anything is accepted.
        offers: media types, without parameters.

    Raises:
        NotAcceptable: it allows none.
    """
    weights: dict[str, float] = {}  # by range
    for item in parse_list_header(",".join(accept)[:MAX_LENGTH]):
        media_range, options = parse_options_header(item)
        weight = _weight(item, options)
        if weight is not None and _RANGE.fullmatch(media_range):
            weights[_ANY.get(media_range, media_range.lower())] = weight
    if not weights:
        return offers[0]
    best = max(offers, key=lambda offer: _quality(weights, offer))
    if _quality(weights, best) <= 0:
        raise NotAcceptable(f"This endpoint returns {listed('{}', offers, 'or')}.")
    return best


def _weight(item: str, options: dict[str, str]) -> float | None:
    """The weight of a range, 1 by default; None if it is malformed."""
    value = options.get("q")
    if value is None:
        # werkzeug leaves out a parameter that it cannot read, such as `q=` or `q = 1`.
        return None if _HAS_WEIGHT.search(re.sub(r'"[^"]*"', "", item)) else 1.0
    if not _WEIGHT.fullmatch(value) or float(value) > 1:
        return None
    return float(value)


def _quality(weights: dict[str, float], offer: str) -> float:
    """An offer's weight, by the most specific range: `a/b` before `a/*` before `*/*`."""
    for media_range in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
