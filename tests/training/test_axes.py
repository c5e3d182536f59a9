import pytest

from training.axes import span_decades


@pytest.mark.parametrize(
    ("values", "wide"),
    [
        ((1, 100), True),
        ((0.5, 20, 49.9), False),
        ((0, 3, 299), False),  # zero has no place on a log axis
        ((0, 3, 300), True),
        ((0.0, 0.0), False),
        ((), False),
    ],
)
def test_two_decades_above_zero(values: tuple[float, ...], wide: bool) -> None:
    assert span_decades(values) is wide
