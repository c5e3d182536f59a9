import numpy as np
import pytest

from training.metrics import CONSTANT_BOX, best_iou, top_k_accuracy


def test_best_iou_takes_the_best_of_several_boxes() -> None:
    found = (0.0, 0.0, 2.0, 2.0)

    assert best_iou(found, [(10.0, 10.0, 12.0, 12.0), (0.0, 0.0, 2.0, 1.0)]) == pytest.approx(0.5)
    assert best_iou(found, [found]) == 1.0
    assert best_iou(None, [found]) == 0.0


def test_constant_box_is_centred_80_by_90_percent() -> None:
    xmin, ymin, xmax, ymax = CONSTANT_BOX

    assert (xmax - xmin, ymax - ymin) == pytest.approx((0.8, 0.9))
    assert (xmin + xmax, ymin + ymax) == pytest.approx((1, 1))


def test_top_k_accuracy_by_hand() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    labels = np.array([1, 2, 1])

    assert top_k_accuracy(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(scores, labels, 2) == pytest.approx(2 / 3)
    assert top_k_accuracy(scores, labels, 3) == 1.0
