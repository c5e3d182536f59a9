import pytest

from training.report.wording import comparison_text


@pytest.mark.parametrize(
    ("difference", "edges", "text"),
    [
        (0.125, (0.1, 0.15), "better by 0.125 [0.100, 0.150]"),
        (-0.125, (-0.15, -0.1), "worse by 0.125 [0.100, 0.150]"),
        (0.002, (-0.01, 0.014), "unclear: +0.002 [-0.010, +0.014]"),
        (0.0, (0.0, 0.0), "unclear: +0.000 [+0.000, +0.000]"),
        (None, None, ""),
    ],
)
def test_more_is_better(
    difference: float | None, edges: tuple[float, float] | None, text: str
) -> None:
    assert comparison_text(difference, edges) == text


def test_less_is_better_of_deletion() -> None:
    better = comparison_text(-0.125, (-0.15, -0.1), less_is_better=True)
    worse = comparison_text(0.125, (0.1, 0.15), less_is_better=True)

    assert better == "better by 0.125 [0.100, 0.150]"
    assert worse == "worse by 0.125 [0.100, 0.150]"
