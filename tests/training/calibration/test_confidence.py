"""The temperature and the limits, on figures whose answer is known."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Bundle
from app.confidence import is_ok, probabilities
from tests.training.fake_engine import FakeEngine
from tests.training.pictures import dataset
from tests.training.small_networks import LAYERS
from training.calibration.confidence import (
    SURE,
    TAILS,
    best_temperature,
    calibrate_confidence,
    limits,
    reference,
)
from training.errors import DataError
from training.evaluation.metrics import expected_calibration_error

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]


def _drawn(temperature: float, count: int = 20000) -> tuple[Floats, Labels]:
    """Logits, and labels drawn by what they say at that temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (count, 5))
    shares = np.exp(logits / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    labels = (rng.random((count, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_by_which_labels_were_drawn_is_found(temperature: float) -> None:
    logits, labels = _drawn(temperature)

    fitted = best_temperature(logits, labels)

    assert fitted == pytest.approx(temperature, rel=0.04)
    assert expected_calibration_error(probabilities(logits, fitted), labels) < 0.015


def _loss(logits: Floats, labels: Labels, temperature: float) -> float:
    scaled = logits / temperature
    most = scaled.max(axis=1, keepdims=True)
    sums = most[:, 0] + np.log(np.exp(scaled - most).sum(axis=1))
    return float(np.mean(sums - scaled[np.arange(len(labels)), labels]))


@pytest.mark.parametrize("offset", [0, 1000])
def test_no_temperature_of_a_grid_is_likelier(offset: float) -> None:
    logits, labels = _drawn(1.7, count=300)

    fitted = best_temperature((logits + offset).astype(np.float32), labels)

    grid = np.geomspace(0.05, 20, 2000)
    losses = [_loss(logits, labels, temperature) for temperature in grid.tolist()]
    assert 0 < np.argmin(losses) < 1999
    assert fitted == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)
    assert _loss(logits, labels, fitted) <= min(losses) + 1e-6


def test_temperature_of_what_says_the_opposite_is_the_greatest() -> None:
    logits = np.array([[9.0, -9.0]] * 8)

    assert best_temperature(logits, np.ones(8, int)) == 20


@pytest.mark.parametrize("count", [4, 50])
def test_photos_that_are_all_right_tell_no_more_than_laplace_s_rule(count: int) -> None:
    """Two classes, equal margins: the likeliest's probability is a sigmoid."""
    margin, sure = 3.0, (count + 1) / (count + 2)

    fitted = best_temperature(np.tile([margin, 0.0], (count, 1)), np.zeros(count, int))

    assert 1 / (1 + np.exp(-margin / fitted)) == pytest.approx(sure, abs=1e-4)


def _share(measures: Floats, fitted: Sequence[float]) -> float:
    return float((measures >= np.array(fitted)).all(axis=1).mean())


@pytest.mark.parametrize("sure", [0.5, 0.9, SURE, 1.0])
@pytest.mark.parametrize("count", [1, 20, 1000])
def test_one_limit_alone_leaves_the_share(sure: float, count: int) -> None:
    measures = np.random.default_rng(1).random((count, 1))

    assert _share(measures, limits(measures, (1.0,), sure)) == np.ceil(sure * count) / count


def test_limits_leave_the_share_and_are_in_proportion() -> None:
    measures = np.random.default_rng(2).random((3000, 3))

    fitted = limits(measures, TAILS)

    beyond = [int((measures[:, i] < fitted[i]).sum()) for i in range(3)]
    assert beyond[0] == beyond[1] > 50
    assert beyond[2] == beyond[0] // 3
    assert 0.95 <= _share(measures, fitted) < 0.951
    # One photo more beyond each, and it would be less.
    ordered = np.sort(measures, axis=0)
    stricter = [ordered[count + 1, i] for i, count in enumerate(beyond)]
    assert _share(measures, stricter) < 0.95


def test_surer_limits_are_wider() -> None:
    measures = np.random.default_rng(3).random((300, 2))

    fitted = [limits(measures, (1.0, 1.0), sure) for sure in (0.5, 0.8, 0.9, 0.95, 1.0)]

    for i in range(2):
        assert [pair[i] for pair in fitted] == sorted((pair[i] for pair in fitted), reverse=True)
    assert fitted[-1] == measures.min(axis=0).tolist()
    assert len({tuple(pair) for pair in fitted}) == 5


def test_photos_that_tie_are_ok_together() -> None:
    likeliest = np.repeat([0.2, 0.9], [10, 90])
    familiar = -np.repeat([1.0, 7.0], [90, 10])[::-1]
    measures = np.stack([likeliest, familiar], axis=1)

    assert limits(measures, (1.0, 1.0), 0.95) == [0.2, -7.0]
    # The same photos are sure and usual.
    assert limits(measures, (1.0, 1.0), 0.9) == [0.9, -1.0]
    assert limits(np.full((9, 2), 0.5), (1.0, 1.0)) == [0.5, 0.5]


VALIDATION = dataset(held_out=12).validation


def _foreground(novelty: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Maps whose greatest value is a function of the photo's novelty, at every layer."""
    maps = np.stack([np.cos(9 * novelty), novelty - 5], axis=-1)[:, None]
    return {name: maps for name in ("foreground", *(f"foreground_{layer}" for layer in LAYERS))}


def _pretend(logits: npt.NDArray[np.float32], novelty: npt.NDArray[np.float32]) -> FakeEngine:
    """Each photo's row of these, in the order in which they come."""
    rows = iter(range(len(logits)))

    def outputs(photos: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        own = [next(rows) for _ in photos]
        return {"logits": logits[own], "novelty": novelty[own], **_foreground(novelty[own])}

    return FakeEngine(outputs)


@pytest.fixture
def figures() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1, (12, 5)).astype(np.float32)
    logits[np.arange(12), [example.label for example in VALIDATION]] += 1
    return logits, rng.random(12, np.float32)


@pytest.mark.parametrize("measured", [True, False])
def test_confidence_of_the_validation_photos(
    small_bundle: Bundle,
    figures: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    measured: bool,
) -> None:
    logits, novelty = figures
    labels = np.array([example.label for example in VALIDATION])
    card = small_bundle.card if measured else small_bundle.card.replace(novelty=None)

    fitted = calibrate_confidence(Bundle(small_bundle.path, card), _pretend(*figures), VALIDATION)

    assert fitted.photos == 12
    assert fitted.temperature == best_temperature(logits, labels)
    sure = probabilities(logits, fitted.temperature)
    familiar = -novelty if measured else np.zeros_like(novelty)
    expected = limits(np.stack([sure.max(axis=1), np.cos(9 * novelty), familiar], axis=1), TAILS)
    assert [fitted.least_probability, fitted.least_foreground] == expected[:2]
    assert fitted.most_novelty == (-expected[2] if measured else None)
    assert fitted.ece == round(expected_calibration_error(sure, labels), 4)
    plain = probabilities(logits, 1.0)
    assert fitted.ece_before == round(expected_calibration_error(plain, labels), 4)
    assert fitted.ece != fitted.ece_before
    calibrated = card.replace(confidence=fitted)
    rows: Sequence[bool | None] = [
        is_ok(
            calibrated,
            {"logits": logits[row], "novelty": novelty[row]}
            | {name: maps[0] for name, maps in _foreground(novelty[row : row + 1]).items()},
        )
        for row in range(12)
    ]
    assert rows == [True] * 12  # one of twelve less would be under 95 %
    likeliest = np.bincount(sure.argmax(axis=1), minlength=5) / 12
    assert fitted.reference is not None
    assert fitted.reference.classes == pytest.approx(likeliest, abs=1e-4)
    assert fitted.reference.low == 0
    if measured:
        assert fitted.reference.novelty is not None
        assert fitted.reference.novelty[1.0] == 1  # nothing is beyond the limit
    else:
        assert fitted.reference.novelty is None


def test_reference_is_the_share_at_or_under_each_bound() -> None:
    shares = np.array([[0.5, 0.5], [0.05, 0.95], [0.3, 0.7], [0.0, 1.0]], np.float64)
    novelty = np.array([0.3, 0.31, 1.0, 50.0])

    made = reference(shares, novelty, low=0.25)

    assert made.classes == (0.25, 0.75)
    assert made.low == 0.25
    assert made.probability == {
        **dict.fromkeys((0.05, 0.1, 0.2, 0.3, 0.4), 0.0),
        **dict.fromkeys((0.5, 0.6), 0.25),
        **dict.fromkeys((0.7, 0.8, 0.9), 0.5),
        **dict.fromkeys((0.95, 0.99), 0.75),
        1.0: 1.0,
    }
    assert made.novelty == {
        0.3: 0.25,
        **dict.fromkeys((0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 0.5),
        **dict.fromkeys((1.0, 1.25, 1.5, 2.0, 3.0), 0.75),
    }


def test_no_validation_photos(small_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="no validation photos"):
        calibrate_confidence(small_bundle, FakeEngine(lambda _: {}), ())
