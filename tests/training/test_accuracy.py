import numpy as np

from app.bundle import Label
from training.accuracy import PAIRS, accuracy, most_confused

NAMES = [Label(index=index, name=name) for index, name in enumerate("abcdefg")]


def _sure_of(*classes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.eye(len(NAMES))[list(classes)]


def test_accuracy_by_hand() -> None:
    labels = np.array([0, 1, 2, 6])
    probabilities = np.tile(np.linspace(0.4, 0.1, len(NAMES)), (4, 1))  # a, b, c, ... g

    figures = accuracy(probabilities, labels, seed=0)

    assert (figures["top1"], figures["top5"]) == (0.25, 0.75)
    for k in (1, 5):
        low, high = figures[f"top{k}_interval"]
        assert low < figures[f"top{k}"] < high


def test_accuracy_without_a_fault_has_no_spread() -> None:
    figures = accuracy(_sure_of(0, 1), np.array([0, 1]), seed=0)

    assert figures == {
        "top1": 1.0,
        "top1_interval": [1.0, 1.0],
        "top5": 1.0,
        "top5_interval": [1.0, 1.0],
    }


def test_pairs_go_by_photos_then_by_share() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 3])
    predicted = _sure_of(1, 1, 0, 0, 1, 0, 3)

    pairs = most_confused(NAMES, labels, predicted)

    assert [(pair["true"], pair["predicted"], pair["count"], pair["share"]) for pair in pairs] == [
        ("a", "b", 2, 0.6667),
        ("c", "a", 1, 1.0),
        ("b", "a", 1, 0.5),
    ]


def test_no_more_pairs_than_are_of_use() -> None:
    others = [(true, other) for true in range(4) for other in range(7) if other != true]
    labels = np.array([true for true, _ in others])

    pairs = most_confused(NAMES, labels, _sure_of(*(other for _, other in others)))

    assert len(pairs) == PAIRS
    assert most_confused(NAMES, labels, np.eye(7)[labels]) == []
