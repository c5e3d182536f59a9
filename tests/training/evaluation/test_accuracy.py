import numpy as np

from app.bundle import Label
from training.evaluation.accuracy import PAIRS, accuracy, confusion, most_confused
from training.evaluation.schema import Estimate

NAMES = [Label(index=index, name=name) for index, name in enumerate("abcdefg")]


def _sure_of(*classes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.eye(len(NAMES))[list(classes)]


def test_accuracy_by_hand() -> None:
    labels = np.array([0, 1, 2, 6])
    probabilities = np.tile(np.linspace(0.4, 0.1, len(NAMES)), (4, 1))  # a, b, c, ... g

    top1, top5 = (accuracy(probabilities, labels, k, seed=0) for k in (1, 5))

    assert (top1.value, top5.value) == (0.25, 0.75)
    for share in (top1, top5):
        low, high = share.interval
        assert low < share.value < high


def test_accuracy_without_a_fault_has_no_spread() -> None:
    for k in (1, 5):
        share = accuracy(_sure_of(0, 1), np.array([0, 1]), k, seed=0)

        assert share == Estimate(value=1.0, interval=(1.0, 1.0))


def test_confusion_counts_photos_by_true_and_predicted_breed() -> None:
    labels = np.array([3, 0, 0, 0, 1])

    counts = confusion(NAMES, labels, _sure_of(3, 6, 0, 6, 0))

    assert counts == {"a": {"a": 1, "g": 2}, "b": {"a": 1}, "d": {"d": 1}}
    assert list(counts) == ["a", "b", "d"]


def test_pairs_go_by_photos_then_by_share() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 3])
    predicted = _sure_of(1, 1, 0, 0, 1, 0, 3)

    pairs = most_confused(NAMES, labels, predicted)

    assert [(pair.true, pair.predicted, pair.count, pair.share) for pair in pairs] == [
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
