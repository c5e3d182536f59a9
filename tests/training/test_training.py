import csv
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.pictures import dataset
from training import feeding, training
from training.config import Stage, TrainConfig
from training.errors import DataError
from training.training import HISTORY_COLUMNS, Interrupted, Run, learning_rate

CONFIG = TrainConfig(
    weights="none",
    stages=(Stage(size=32, epochs=1), Stage(size=40, epochs=1)),
    input_size=48,
    batch_size=4,
    precision="float32",
)


def _history(directory: Path) -> list[dict[str, str]]:
    with (directory / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_learning_rate_is_one_cycle() -> None:
    config = TrainConfig(learning_rate=0.1, warmup=0.2)

    rates = [learning_rate(config, step, 100) for step in range(101)]

    assert rates[0] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(0.055)
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05)  # half-way down the half cosine
    assert rates[100] == pytest.approx(0)
    assert rates[40] == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))


def test_too_few_photos_for_a_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        Run(tmp_path, CONFIG, dataset(train=3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupts."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole", CONFIG, dataset())
    run.fit()
    return run


def test_run_leaves_curves_history_weights_and_configuration(whole: Run) -> None:
    history = _history(whole.directory)

    assert [tuple(row) for row in history] == [HISTORY_COLUMNS] * 2
    assert [(row["epoch"], row["size"], row["steps"]) for row in history] == [
        ("1", "32", "3"),
        ("2", "40", "6"),
    ]
    assert float(history[-1]["learning_rate"]) == pytest.approx(
        learning_rate(CONFIG, 5, 6), rel=1e-4
    )
    assert (whole.directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (whole.directory / "best.weights.h5").stat().st_size > 90e6
    stored = (whole.directory / "config.json").read_text()
    assert TrainConfig.model_validate_json(stored) == CONFIG


def test_validation_figures_are_those_of_the_kept_weights(whole: Run) -> None:
    history = _history(whole.directory)
    best = max(history, key=lambda row: float(row["val_accuracy"]))
    kept = Run(whole.directory, CONFIG, whole.dataset)
    kept.model.load_weights(whole.directory / "best.weights.h5")

    loss, accuracy = kept.validate()

    assert accuracy == pytest.approx(float(best["val_accuracy"]), abs=1e-4)
    assert loss == pytest.approx(float(best["val_loss"]), rel=1e-2)


def test_interrupted_run_resumes_as_if_nothing_had_happened(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    real = feeding.train_batches

    def batches(*args: Any, **options: Any) -> Iterator[Any]:
        for number, batch in enumerate(real(*args, **options)):
            if number == 1:
                signal.raise_signal(signal.SIGINT)  # Ctrl-C in the second step
            yield batch

    first = Run(directory, CONFIG, dataset())
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_batches", batches)
        with pytest.raises(Interrupted):
            first.fit()
    assert first.step == 2
    assert not (directory / "history.csv").exists()

    second = Run(directory, CONFIG, dataset())
    assert second.step == 2
    second.fit()

    assert second.step == whole.step == 6
    ours, theirs = _history(directory), _history(whole.directory)
    for column in ("epoch", "size", "steps", "learning_rate"):
        assert [row[column] for row in ours] == [row[column] for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=2e-2)
    for variable, expected_variable in zip(
        second.model.trainable_variables, whole.model.trainable_variables, strict=True
    ):
        a, b = np.asarray(variable), np.asarray(expected_variable)
        assert np.linalg.norm(a - b) <= 0.02 * np.linalg.norm(b) + 1e-4


def test_finished_run_takes_no_further_step(whole: Run) -> None:
    again = Run(whole.directory, CONFIG, whole.dataset)
    before = (whole.directory / "history.csv").read_text()

    again.fit()

    assert again.step == 6
    assert (whole.directory / "history.csv").read_text() == before
