"""What a response is made as, by the request's `Accept` header (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.errors import NotAcceptable

__all__ = ["negotiate"]


def negotiate(accept: Sequence[str], offers: Sequence[str]) -> str:
    """The offer that `Accept` prefers; the first of them on a tie.

    The most specific range that matches an offer gives its weight. A range whose weight is not a
    number from 0 to 1 is malformed and left out. Parameters (`;charset=utf-8`) do not matter, as
    offers have none.

    Args:
        accept: the values of every `Accept` header of the request; none accepts anything.
        offers: media types, without parameters.

    Raises:
        NotAcceptable: it allows none.
    """
    header = ",".join(accept)
    if not header.strip():
        return offers[0]
    parsed = parse_accept_header(header, MIMEAccept)
    ranges = MIMEAccept((media_range.partition(";")[0], weight) for media_range, weight in parsed)
    # Not `best_match`: it breaks ties by the ranges' specificity, not by the order of offers.
    best = max(offers, key=ranges.quality)
    if ranges.quality(best) <= 0:
        raise NotAcceptable(f"This endpoint returns {' or '.join(offers)}.")
    return best
