"""The temperature and the limits, on figures whose answer is known."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Bundle
from app.confidence import is_ok, probabilities
from tests.training.pictures import dataset
from tests.training.pretend import Pretend
from training.confidence import SURE, best_temperature, calibrate_confidence, limits
from training.errors import DataError
from training.metrics import expected_calibration_error

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

    found = best_temperature(logits, labels)

    assert found == pytest.approx(temperature, rel=0.04)
    assert expected_calibration_error(probabilities(logits, found), labels) < 0.015


def _loss(logits: Floats, labels: Labels, temperature: float) -> float:
    scaled = logits / temperature
    most = scaled.max(axis=1, keepdims=True)
    sums = most[:, 0] + np.log(np.exp(scaled - most).sum(axis=1))
    return float(np.mean(sums - scaled[np.arange(len(labels)), labels]))


@pytest.mark.parametrize("offset", [0, 1000])
def test_no_temperature_of_a_grid_is_likelier(offset: float) -> None:
    logits, labels = _drawn(1.7, count=300)

    found = best_temperature((logits + offset).astype(np.float32), labels)

    grid = np.geomspace(0.05, 20, 2000)
    losses = [_loss(logits, labels, temperature) for temperature in grid.tolist()]
    assert 0 < np.argmin(losses) < 1999
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)
    assert _loss(logits, labels, found) <= min(losses) + 1e-6


def test_temperature_of_what_says_the_opposite_is_the_greatest() -> None:
    logits = np.array([[9.0, -9.0]] * 8)

    assert best_temperature(logits, np.ones(8, int)) == 20


@pytest.mark.parametrize("count", [4, 50])
def test_photos_that_are_all_right_tell_no_more_than_laplace_s_rule(count: int) -> None:
    """Two classes, equal margins: the likeliest's probability is a sigmoid."""
    margin, sure = 3.0, (count + 1) / (count + 2)

    found = best_temperature(np.tile([margin, 0.0], (count, 1)), np.zeros(count, int))

    assert 1 / (1 + np.exp(-margin / found)) == pytest.approx(sure, abs=1e-4)


def _share(likeliest: Floats, novelty: Floats | None, found: tuple[float, float | None]) -> float:
    ok = likeliest >= found[0]
    if novelty is not None and found[1] is not None:
        ok &= novelty <= found[1]
    return float(ok.mean())


@pytest.mark.parametrize("sure", [0.5, 0.9, SURE, 1.0])
@pytest.mark.parametrize("count", [1, 20, 1000])
def test_limit_of_probability_alone_leaves_the_share(sure: float, count: int) -> None:
    likeliest = np.random.default_rng(1).random(count)

    found = limits(likeliest, None, sure)

    assert found[1] is None
    assert _share(likeliest, None, found) == np.ceil(sure * count) / count


def test_limits_leave_the_share_and_are_alike() -> None:
    rng = np.random.default_rng(2)
    likeliest, novelty = rng.random(2000), rng.exponential(1, 2000)

    found = limits(likeliest, novelty)

    assert found[1] is not None
    below, above = int((likeliest < found[0]).sum()), int((novelty > found[1]).sum())
    assert below == above
    assert 0.95 <= _share(likeliest, novelty, found) < 0.951
    # One photo more beyond either, and it would be less.
    stricter = np.sort(likeliest)[below + 1], np.sort(novelty)[-above - 2]
    assert _share(likeliest, novelty, stricter) < 0.95


def test_surer_limits_are_wider() -> None:
    rng = np.random.default_rng(3)
    likeliest, novelty = rng.random(300), rng.random(300)

    found = [limits(likeliest, novelty, sure) for sure in (0.5, 0.8, 0.9, 0.95, 1.0)]

    assert found == sorted(found, key=lambda pair: -pair[0])
    assert [pair[1] for pair in found] == sorted(pair[1] or 0 for pair in found)
    assert found[-1] == (likeliest.min(), novelty.max())
    assert len(set(found)) == 5


def test_photos_that_tie_are_ok_together() -> None:
    likeliest = np.repeat([0.2, 0.9], [10, 90])
    novelty = np.repeat([1.0, 7.0], [90, 10])[::-1]

    assert limits(likeliest, novelty, 0.95) == (0.2, 7.0)
    assert limits(likeliest, novelty, 0.9) == (0.9, 1.0)  # the same photos are sure and usual
    assert limits(np.full(9, 0.5), np.full(9, 2.0)) == (0.5, 2.0)


VALIDATION = dataset(held_out=12).validation


def _pretend(logits: npt.NDArray[np.float32], novelty: npt.NDArray[np.float32]) -> Pretend:
    """Each photo's row of these, in the order in which they come."""
    rows = iter(range(len(logits)))

    def outputs(photos: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        own = [next(rows) for _ in photos]
        return {"logits": logits[own], "novelty": novelty[own]}

    return Pretend(outputs)


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
    card = small_bundle.card if measured else small_bundle.card.model_copy(update={"novelty": None})

    found = calibrate_confidence(Bundle(small_bundle.path, card), _pretend(*figures), VALIDATION)

    assert found.photos == 12
    assert found.temperature == best_temperature(logits, labels)
    sure = probabilities(logits, found.temperature)
    assert (found.least_probability, found.most_novelty) == limits(
        sure.max(axis=1), novelty if measured else None
    )
    assert found.ece == round(expected_calibration_error(sure, labels), 4)
    plain = probabilities(logits, 1.0)
    assert found.ece_before == round(expected_calibration_error(plain, labels), 4)
    assert found.ece != found.ece_before
    told = card.model_copy(update={"confidence": found})
    rows: Sequence[bool | None] = [
        is_ok(told, {"logits": each, "novelty": far})
        for each, far in zip(logits, novelty, strict=True)
    ]
    assert rows == [True] * 12  # one of twelve less would be under 95 %


def test_no_validation_photos(small_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="no validation photos"):
        calibrate_confidence(small_bundle, Pretend(lambda _: {}), ())
