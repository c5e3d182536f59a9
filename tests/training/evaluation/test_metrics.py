import numpy as np
import pytest

from training.evaluation.metrics import (
    CONSTANT_BOX,
    best_iou,
    estimate,
    expected_calibration_error,
    in_top_k,
    interval,
    mean,
    reliability,
    resample,
)
from training.evaluation.schema import Estimate, ReliabilityBin


def test_best_iou_takes_the_best_of_several_boxes() -> None:
    box = (0.0, 0.0, 2.0, 2.0)

    assert best_iou(box, [(10.0, 10.0, 12.0, 12.0), (0.0, 0.0, 2.0, 1.0)]) == pytest.approx(0.5)
    assert best_iou(box, [box]) == 1.0
    assert best_iou(None, [box]) == 0.0


def test_constant_box_is_centred_80_by_90_percent() -> None:
    xmin, ymin, xmax, ymax = CONSTANT_BOX

    assert (xmax - xmin, ymax - ymin) == pytest.approx((0.8, 0.9))
    assert (xmin + xmax, ymin + ymax) == pytest.approx((1, 1))


def test_in_top_k_by_hand() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    labels = np.array([1, 2, 1])

    assert in_top_k(scores, labels, 1).tolist() == [True, False, False]
    assert in_top_k(scores, labels, 2).tolist() == [True, False, True]
    assert in_top_k(scores, labels, 3).all()


def test_in_top_k_by_row() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])

    assert in_top_k(scores, np.array([1, 2]), 1).tolist() == [True, False]


def test_expected_calibration_error_by_hand() -> None:
    sure = np.array([0.75, 0.75, 0.75, 0.75, 0.5, 1.0])
    probabilities = np.stack([1 - sure, sure], axis=1)
    labels = np.array([1, 1, 0, 0, 0, 1])  # of the four, two are right; of 0.5, the first counts

    # (4 * |0.5 - 0.75| + |1 - 0.5| + |1 - 1|) / 6
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.25)


def test_expected_calibration_error_is_of_each_bin_apart() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])

    # In one bin, 0.1 over and 0.6 under would make 0.5 / 2.
    assert expected_calibration_error(probabilities, np.array([0, 1])) == pytest.approx(0.35)


def test_reliability_by_hand() -> None:
    sure = np.array([0.75, 0.79, 0.5, 1.0])
    probabilities = np.stack([1 - sure, sure], axis=1)

    bins = reliability(probabilities, np.array([1, 0, 0, 1]))  # at 0.5, the first class counts

    assert [number for number, share in enumerate(bins) if share.photos] == [7, 11, 14]
    assert bins[7] == ReliabilityBin(low=0.4667, high=0.5333, photos=1, confidence=0.5, accuracy=1)
    assert bins[11] == ReliabilityBin(low=0.7333, high=0.8, photos=2, confidence=0.77, accuracy=0.5)
    assert bins[14] == ReliabilityBin(low=0.9333, high=1, photos=1, confidence=1, accuracy=1)
    assert bins[0] == ReliabilityBin(low=0, high=0.0667, photos=0, confidence=None, accuracy=None)


def test_calibration_error_is_that_of_the_bins() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 200)
    labels = rng.integers(4, size=200)

    bins = [share for share in reliability(probabilities, labels) if share.photos]

    gaps = [share.photos * abs((share.accuracy or 0) - (share.confidence or 0)) for share in bins]
    error = expected_calibration_error(probabilities, labels)
    assert sum(gaps) / 200 == pytest.approx(error, abs=1e-4)


def test_expected_calibration_error_of_what_is_right_as_often_as_it_says() -> None:
    probabilities = np.repeat([[0.75, 0.25], [0.1, 0.9]], [4, 10], axis=0)
    labels = np.array([0, 0, 0, 1, *[1] * 9, 0])

    assert expected_calibration_error(probabilities, labels) == pytest.approx(0, abs=1e-12)


def test_samples_draw_as_many_photos_with_replacement() -> None:
    weights = resample(8, seed=3)

    assert weights.shape == (1000, 8)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert set(np.unique(weights * 8).tolist()) <= set(range(9))
    assert (weights == 0).mean() == pytest.approx((7 / 8) ** 8, abs=0.02)
    np.testing.assert_array_equal(weights, resample(8, seed=3))
    assert (weights != resample(8, seed=4)).any()


def test_interval_of_a_share_is_that_of_the_binomial() -> None:
    """Of 100 photos, half are right: the share is 50 +- 1.96 * sqrt(100 / 4) percent."""
    right = np.arange(100) < 50

    low, high = interval(mean(right)(resample(100, seed=0)))

    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.015)


def test_interval_of_what_does_not_vary_has_no_width() -> None:
    assert interval(mean(np.full(5, 0.25))(resample(5, seed=0))) == pytest.approx((0.25, 0.25))


def test_interval_leaves_out_the_outer_fortieths() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_estimate_has_value_interval_and_paired_differences() -> None:
    values, guess = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.25, 0.25, 0.25, 1.25])
    weights = np.array([[1, 0, 0, 0], [0, 0, 0, 1]])  # the two samples there are

    paired = estimate(mean(values), weights, mean(guess), heatmap=mean(1 - values))

    assert paired == Estimate(
        value=0.25,
        interval=(0.025, 0.975),
        difference=-0.25,  # of every photo, so of every sample
        difference_interval=(-0.25, -0.25),
        difference_to_heatmap=-0.5,
        difference_to_heatmap_interval=(-0.95, 0.95),  # -1 and 1 in the two samples
    )
    assert estimate(mean(values), weights) == Estimate(value=0.25, interval=(0.025, 0.975))
