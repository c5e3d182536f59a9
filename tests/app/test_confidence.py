from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.bundle import Confidence, Foreground, ModelCard, Novelty
from app.confidence import calibrated, is_ok, probabilities

LOG2 = np.log(2).astype(np.float32)


class TestProbabilities:
    @pytest.mark.parametrize(
        ("temperature", "expected"),
        [
            # Logits 0, log 2 and 2 log 2: 1, 2 and 4 to the power of 1 / temperature.
            (1.0, [1 / 7, 2 / 7, 4 / 7]),
            (0.5, [1 / 21, 4 / 21, 16 / 21]),
            (2.0, [1 / (3 + 2**0.5), 2**0.5 / (3 + 2**0.5), 2 / (3 + 2**0.5)]),
            (1e6, [1 / 3, 1 / 3, 1 / 3]),
            (1e-3, [0, 0, 1]),
        ],
    )
    def test_by_hand(self, temperature: float, expected: list[float]) -> None:
        shares = probabilities(np.array([0, LOG2, 2 * LOG2], np.float32), temperature)
        assert shares.dtype == np.float32
        np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)

    def test_each_row_by_itself(self) -> None:
        logits = np.array([[[0, LOG2]], [[5, 5]]], np.float32)
        np.testing.assert_allclose(
            probabilities(logits, 1.0), [[[1 / 3, 2 / 3]], [[1 / 2, 1 / 2]]], rtol=1e-6
        )

    @pytest.mark.parametrize("shift", [0, 1000, -1000])
    def test_great_logits_do_not_overflow(self, shift: float) -> None:
        logits = np.array([0, 1, 2], np.float32) + np.float32(shift)
        exact = np.exp([0, 4, 8]) / np.exp([0, 4, 8]).sum()
        np.testing.assert_allclose(probabilities(logits, 0.25), exact, rtol=1e-5)

    @given(
        logits=arrays(np.float32, 5, elements=st.floats(-30, 30, width=32)),
        temperature=st.floats(0.05, 20),
    )
    def test_they_sum_to_1_and_keep_their_order(
        self, logits: npt.NDArray[np.float32], temperature: float
    ) -> None:
        shares = probabilities(logits, temperature)
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        assert (np.diff(shares[np.argsort(logits, kind="stable")]) >= 0).all()


def limited(card: ModelCard, **changes: Any) -> ModelCard:
    limits: dict[str, Any] = {
        "temperature": 0.5,
        "least_probability": 0.75,
        "least_foreground": 0.5,
        "most_novelty": 3.0,
        "photos": 100,
        "ece": 0.01,
        "ece_before": 0.1,
    }
    novelty = Novelty(dimensions=2, photos=100)
    return card.replace(novelty=novelty, confidence=Confidence(**limits | changes))


FOREGROUND = np.array([[-2.0, 0.25], [0.5, 0.0]], np.float32)

# With temperature 0.5: 16/21 = 0.762 for the likeliest; without, 4/7 = 0.571.
SURE: dict[str, npt.NDArray[Any]] = {
    "logits": np.array([0, LOG2, 2 * LOG2], np.float32),
    "novelty": np.array(3.0, np.float32),
    "foreground": FOREGROUND,
}


class TestCalibrated:
    def test_softmax_over_the_cards_temperature(self, uncalibrated: ModelCard) -> None:
        shares = calibrated(limited(uncalibrated), SURE)
        np.testing.assert_allclose(shares, [1 / 21, 4 / 21, 16 / 21], rtol=1e-5)

    def test_the_graphs_own_without_one(self, uncalibrated: ModelCard) -> None:
        own = np.array([0.2, 0.3, 0.5], np.float32)
        assert calibrated(uncalibrated, SURE | {"probabilities": own}) is own


class TestIsOk:
    def test_within_all_limits(self, uncalibrated: ModelCard) -> None:
        assert is_ok(limited(uncalibrated), SURE) is True

    @pytest.mark.parametrize(
        "changes",
        [
            {"least_probability": 0.77},
            {"temperature": 1.0},
            {"most_novelty": 2.99},
            {"least_foreground": 0.51},
        ],
        ids=str,
    )
    def test_each_limit_alone_makes_it_low(
        self, uncalibrated: ModelCard, changes: dict[str, float]
    ) -> None:
        assert is_ok(limited(uncalibrated, **changes), SURE) is False

    @pytest.mark.parametrize("novelty", [np.nan, np.inf])
    def test_novelty_that_is_no_number_is_low(
        self, uncalibrated: ModelCard, novelty: float
    ) -> None:
        assert is_ok(limited(uncalibrated), SURE | {"novelty": np.array(novelty)}) is False

    def test_without_a_limit_novelty_is_not_read(self, uncalibrated: ModelCard) -> None:
        card = limited(uncalibrated, most_novelty=None)
        rest = {"logits": SURE["logits"], "foreground": FOREGROUND}
        assert is_ok(card, rest) is True
        assert is_ok(card, rest | {"logits": np.zeros(3, np.float32)}) is False

    def test_foreground_is_that_of_the_finest_of_its_layers(self, uncalibrated: ModelCard) -> None:
        first, last = uncalibrated.layer_names[0], uncalibrated.layer_names[-1]
        foreground = Foreground(rule="boxes", photos=200, layers=(first, last))
        card = limited(uncalibrated.replace(foreground=foreground))
        assert is_ok(card, SURE | {f"foreground_{first}": FOREGROUND}) is True
        assert is_ok(card, SURE | {f"foreground_{first}": FOREGROUND - 1}) is False

    @pytest.mark.parametrize("likeliest", [0.74, 0.76])
    def test_probabilities_that_the_caller_has_are_not_computed_again(
        self, uncalibrated: ModelCard, likeliest: float
    ) -> None:
        shares = np.array([1 - likeliest, likeliest], np.float32)
        outputs = {name: value for name, value in SURE.items() if name != "logits"}
        assert is_ok(limited(uncalibrated), outputs, shares) is (likeliest >= 0.75)

    def test_none_where_the_model_is_not_calibrated(self, uncalibrated: ModelCard) -> None:
        assert is_ok(uncalibrated, SURE) is None
