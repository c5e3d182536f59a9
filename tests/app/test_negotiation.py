import pytest

from app.errors import NotAcceptable
from app.negotiation import negotiate

JSON, PNG, WEBP, JPEG = OFFERS = ["application/json", "image/png", "image/webp", "image/jpeg"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/*", PNG),
        ("image/*, */*;q=0.1", PNG),
        ("application/json;q=0.5, image/png", PNG),
        ("application/json ; q=0.9 , image/png;q=0.8", JSON),
        ("image/png, application/json", JSON),
        ("image/png, */*", JSON),
        ("application/json;q=0, */*", PNG),
        ("image/webp", WEBP),
        ("image/png;q=0, image/*", WEBP),
        ("image/jpeg, image/webp;q=0.9", JPEG),
        ("*/*;q=0.5, image/*;q=0.1", JSON),
        (",, image/png ,", PNG),
        # Parameters, in quotes too.
        ("application/json;charset=utf-8", JSON),
        ("image/png;level=1;q=0.4, application/json;q=0.3", PNG),
        ('text/html;x="a,b;q=1";q=0.3, image/png', PNG),
        # What a browser's address bar sends, and Java's URLConnection.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", PNG),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JPEG),
        # RFC 9110 allows a weight to end in a point.
        ("image/png;q=1., image/webp", PNG),
        ("application/json;q=0., */*", PNG),
        # The last of equal ranges counts.
        ("image/png;q=0.9, image/png;q=0.1, image/webp;q=0.5", WEBP),
        ("image/png;*=x", PNG),
    ],
)
def test_the_offer_of_the_greatest_weight(accept: str, expected: str) -> None:
    assert negotiate([accept], OFFERS) == expected


@pytest.mark.parametrize(
    "accept",
    [
        "image/gif",
        "text/html",
        "*/*;q=0",
        "application/json;q=0",
        "application/*;q=0.0",
    ],
)
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="json, image/png, image/webp or image/jpeg"):
        negotiate([accept], OFFERS)


@pytest.mark.parametrize(
    "weight",
    ["nan", "inf", "2", "1.001", "-1", "-0.5", "nonsense", "1e-1", "", "."],
)
def test_a_range_with_a_malformed_weight_is_left_out(weight: str) -> None:
    assert negotiate([f"image/png;q={weight}, image/webp;q=0.1"], OFFERS) == WEBP
    assert negotiate([f"image/png;q={weight}"], OFFERS) == JSON


@pytest.mark.parametrize("accept", ["garbage", ";;;,,", "png", "image/png;q=2", "a b/c", "*"])
def test_what_is_no_range_is_left_out(accept: str) -> None:
    assert negotiate([accept], OFFERS) == JSON
    assert negotiate([f"{accept}, image/webp"], OFFERS) == (JSON if accept == "*" else WEBP)
    if accept != "*":
        with pytest.raises(NotAcceptable):
            negotiate([f"{accept}, text/html"], OFFERS)


def test_without_the_header_anything_is_accepted() -> None:
    assert negotiate([], OFFERS) == JSON
    assert negotiate([], [PNG]) == PNG


def test_several_headers_are_one_list() -> None:
    assert negotiate(["image/png;q=0.2", "image/webp;q=0.3, image/jpeg;q=0.1"], OFFERS) == WEBP


def test_equal_weights_go_by_the_order_of_the_offers() -> None:
    accept = ["image/jpeg, image/png"]
    assert negotiate(accept, OFFERS) == PNG
    assert negotiate(accept, OFFERS[::-1]) == JPEG


def test_java_takes_json_where_there_is_nothing_else() -> None:
    assert negotiate(["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], [JSON]) == JSON


def test_what_stands_far_behind_is_not_read() -> None:
    assert negotiate(["a/b," * 900 + "image/png"], OFFERS) == PNG
    with pytest.raises(NotAcceptable):
        negotiate(["a/b," * 2000 + "image/png"], OFFERS)
