import csv
import math
import resource
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.bundle import Label
from tests.training.pictures import dataset
from tests.training.small_networks import tiny_net
from training.config import Stage, TrainConfig
from training.data import batches as data_batches
from training.errors import DataError, RunError
from training.fit import history
from training.fit import run as loop
from training.fit.devices import Devices
from training.fit.history import HISTORY_COLUMNS, plot
from training.fit.run import Interrupted, Run
from training.fit.schedule import learning_rate

CONFIG = TrainConfig(
    weights="none",
    stages=(Stage(size=32, epochs=1), Stage(size=40, epochs=1)),
    input_size=48,
    batch_size=4,
    precision="float32",
)


def _tiny(_config: TrainConfig, labels: Sequence[Label]) -> keras.Model:
    return tiny_net(len(labels))


def _run(directory: Path, config: TrainConfig = CONFIG, *, train: int = 14) -> Run:
    return Run(directory, config, dataset(train=train), build=_tiny)


def _changed(**values: Any) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG.model_dump() | values)


def _weights(run: Run) -> dict[str, Any]:
    return {variable.path: np.asarray(variable) for variable in run.model.variables}


def _history(directory: Path) -> list[dict[str, str]]:
    with (directory / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _assert_same_history(directory: Path, other: Path) -> None:
    for row, expected in zip(_history(directory), _history(other), strict=True):
        for column in ("epoch", "size", "steps", "learning_rate"):
            assert row[column] == expected[column]
        for column in ("loss", "val_loss"):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-3)


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
    """A run that nothing interrupts, and whose curves are drawn."""
    run = _run(tmp_path_factory.mktemp("runs") / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "plot", plot)
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
    stored = (whole.directory / "config.json").read_text()
    assert TrainConfig.model_validate_json(stored) == CONFIG


def test_functions_are_traced_once_for_each_size(whole: Run) -> None:
    steps = whole._steps

    whole.predict(np.zeros((1, 48, 48, 3), np.float32))

    assert steps.predict.experimental_get_tracing_count() == 1
    assert steps.train.experimental_get_tracing_count() == len(CONFIG.stages)


def test_validation_figures_are_those_of_the_kept_weights(whole: Run) -> None:
    history = _history(whole.directory)
    best = max(history, key=lambda row: float(row["val_accuracy"]))
    kept = _run(whole.directory)
    kept.model.load_weights(whole.directory / "best.weights.h5")

    loss, accuracy = kept.validate()

    assert accuracy == pytest.approx(float(best["val_accuracy"]), abs=1e-4)
    assert loss == pytest.approx(float(best["val_loss"]), rel=1e-2)


def _stopping(monkeypatch: pytest.MonkeyPatch, *, in_step: int) -> None:
    """Ctrl-C in a step of the first epoch, counted from 1."""
    real = data_batches.train_batches

    def batches(*args: Any, **options: Any) -> Iterator[Any]:
        for number, batch in enumerate(real(*args, **options), start=1):
            if number == in_step:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(loop, "train_batches", batches)


@pytest.mark.parametrize("in_step", [2, 3], ids=["within an epoch", "at its end"])
def test_interrupted_run_resumes_as_if_nothing_had_happened(
    whole: Run, tmp_path: Path, in_step: int
) -> None:
    directory = tmp_path / "run"
    first = _run(directory)
    with pytest.MonkeyPatch.context() as patch:
        _stopping(patch, in_step=in_step)
        with pytest.raises(Interrupted):
            first.fit()
    assert first.step == in_step
    assert not (directory / "history.csv").exists()

    assert first.position == "the beginning: it has no checkpoint yet"
    second = _run(directory)
    assert second.step == in_step
    [checkpoint] = (directory / "checkpoints").iterdir()
    saved = datetime.fromtimestamp(checkpoint.stat().st_mtime)
    assert second.position == (
        f"epoch 1 of 2, step {in_step} of 6, saved on {saved:%Y-%m-%d at %H:%M:%S}"
    )
    second.fit()

    assert second.step == whole.step == 6
    _assert_same_history(directory, whole.directory)
    expected_weights = _weights(whole)
    for path, weight in _weights(second).items():
        np.testing.assert_allclose(weight, expected_weights[path], rtol=1e-3, atol=1e-5)


def test_resumed_run_drops_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    def run(name: str) -> Run:
        return Run(
            tmp_path / name,
            _changed(stages=["32x2"]),
            dataset(),
            build=lambda _config, labels: tiny_net(len(labels), dropout=0.5),
        )

    whole = run("whole")
    whole.fit()
    with pytest.MonkeyPatch.context() as patch:
        _stopping(patch, in_step=2)
        with pytest.raises(Interrupted):
            run("run").fit()

    resumed = run("run")
    resumed.fit()

    ours, theirs = (list(_weights(trained).values()) for trained in (resumed, whole))
    for weight, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=1e-5)
    _assert_same_history(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = _run(
        tmp_path_factory.mktemp("runs") / "three", _changed(stages=["32x3"], input_size=32), train=8
    )
    run.fit()
    return run


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(4, id="of a middle epoch", marks=pytest.mark.slow),
        pytest.param(6, id="of the last epoch"),
    ],
)
def test_stop_at_the_last_step(three_epochs: Run, tmp_path: Path, step: int) -> None:
    """No epoch's row is lost or holds another's, and there are best weights."""
    config, signalled = three_epochs.config, []
    first = _run(tmp_path / "run", config, train=8)
    real = first._steps.train

    def taking(*arguments: Any) -> Any:
        if first.step == step - 1:
            signalled.append(step)
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    first._steps.train = taking
    with pytest.raises(Interrupted):
        first.fit()
    assert (first.step, first.epochs, signalled) == (step, step // 2 - 1, [step])
    assert len(_history(tmp_path / "run")) == step // 2 - 1

    second = _run(tmp_path / "run", config, train=8)
    second.fit()

    assert [row["epoch"] for row in _history(tmp_path / "run")] == ["1", "2", "3"]
    _assert_same_history(tmp_path / "run", three_epochs.directory)
    assert (second.finished, second.step) == (True, 6)
    assert (tmp_path / "run" / "best.weights.h5").exists()


def test_signal_while_validating(whole: Run, tmp_path: Path) -> None:
    first = _run(tmp_path)
    real = first.validate

    def validate() -> tuple[float, float]:
        signal.raise_signal(signal.SIGINT)
        return real()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "validate", validate)
        with pytest.raises(Interrupted):
            first.fit()
    assert (first.step, first.epochs) == (3, 1)
    assert len(_history(tmp_path)) == 1

    second = _run(tmp_path)
    second.fit()

    assert second.step == whole.step
    _assert_same_history(tmp_path, whole.directory)


def test_kill_between_an_epochs_row_and_its_checkpoint(whole: Run, tmp_path: Path) -> None:
    first = _run(tmp_path, _changed(checkpoint_minutes=1e-9))
    real = first._write

    def write(*arguments: Any) -> None:
        real(*arguments)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "_write", write)
        with pytest.raises(SystemExit):
            first.fit()
    assert len(_history(tmp_path)) == 1

    second = _run(tmp_path)
    assert (second.step, second.epochs) == (3, 0)
    second.fit()

    assert second.step == whole.step
    _assert_same_history(tmp_path, whole.directory)


def test_second_signal_is_left_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(tmp_path)
    _stopping(monkeypatch, in_step=1)
    seen: list[Any] = []
    monkeypatch.setattr(run, "_save", lambda: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run.fit()

    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) == before


def test_configuration_is_whole_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = _run(tmp_path).directory / "config.json"
    real, before = Path.write_bytes, stored.read_text()

    def write_half(path: Path, content: bytes) -> int:
        real(path, content[: len(content) // 2])
        raise OSError("no room")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(RunError, match="no room"):
        _run(tmp_path)

    assert stored.read_text() == before


def test_finished_run_takes_no_further_step(whole: Run) -> None:
    again = _run(whole.directory)
    assert again.finished
    before = (whole.directory / "history.csv").read_text()

    again.fit()

    assert again.step == 6
    assert (whole.directory / "history.csv").read_text() == before


def test_constant_rate() -> None:
    config = TrainConfig(schedule="constant", learning_rate=0.01)

    assert {learning_rate(config, step, 70) for step in range(71)} == {0.01}


def test_head_is_trained_at_the_peak_before_the_cycle() -> None:
    stages = (Stage(size=32, epochs=5),)
    config = TrainConfig(stages=stages, head_epochs=1, learning_rate=0.1, warmup=0.25)

    rates = [learning_rate(config, step, 50) for step in range(51)]

    assert rates[:10] == [0.1] * 10
    assert rates[10] == pytest.approx(0.01)
    assert max(rates[10:]) == rates[20] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0)


def test_frozen_epoch_trains_the_head_alone(tmp_path: Path) -> None:
    # No file is read: the network is the test's own.
    run = _run(tmp_path, _changed(weights="imagenet", head_epochs=1))
    before = _weights(run)
    snapshots: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_save", lambda: snapshots.append(_weights(run)))
        run.fit()

    after_head, after_all = snapshots
    for path, weight in before.items():
        same = np.array_equal(weight, after_head[path])
        assert same == (not path.startswith("predictions/")), path
        assert not np.array_equal(weight, after_all[path]), path


def test_patience_ends_the_run_with_its_best_weights(tmp_path: Path) -> None:
    config = _changed(stages=("32x6",), patience=2)
    run = _run(tmp_path, config)
    accuracies = iter((0.5, 0.7, 0.7, 0.25))  # a tie is no improvement, 0.7 in float32 neither
    snapshots: list[dict[str, Any]] = []

    def validate() -> tuple[float, float]:
        snapshots.append(_weights(run))
        return 1.0, next(accuracies)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "validate", validate)
        run.fit()

    assert run.stopped_early
    assert (run.epochs, run.step) == (4, 12)
    assert [row["val_accuracy"] for row in _history(tmp_path)][-1] == "0.25000"
    for path, weight in _weights(run).items():
        np.testing.assert_array_equal(weight, snapshots[1][path])
    assert _run(tmp_path, config).finished


@pytest.mark.slow
def test_seed_repeats_a_run_and_another_does_not(whole: Run, tmp_path: Path) -> None:
    def figures(directory: Path) -> list[list[str]]:
        return [
            [row[name] for name in HISTORY_COLUMNS if name != "seconds"]
            for row in _history(directory)
        ]

    for name, config in (("same", CONFIG), ("other", _changed(seed=1))):
        _run(tmp_path / name, config).fit()

    assert figures(tmp_path / "same") == figures(whole.directory)
    assert figures(tmp_path / "other") != figures(whole.directory)


def test_batches_that_do_not_divide_among_devices(tmp_path: Path) -> None:
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(DataError, match="cannot be shared equally by 3 devices"):
        Run(tmp_path, CONFIG, dataset(), devices=Devices(Three()))


def test_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "plot", plot)  # this picture is what does not fit
    config = _changed(stages=["32x1"])
    run = _run(tmp_path, config)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be written .* --resume"):
            run.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    _run(tmp_path, config).fit()
    assert len(_history(tmp_path)) == 1


def test_run_that_diverges_ends_before_its_weights_are_kept(tmp_path: Path) -> None:
    run = _run(tmp_path, _changed(learning_rate=1e30))

    with pytest.raises(RunError, match=r"^The loss is (nan|inf) at step \d+ of 6, at a learning"):
        run.fit()

    assert not (tmp_path / "best.weights.h5").exists()
    assert not (tmp_path / "history.csv").exists()


def test_teacher_that_cannot_answer_leaves_no_run_behind(tmp_path: Path) -> None:
    config = _changed(teachers=[tmp_path / "absent"])

    with pytest.raises(DataError, match="absent cannot be loaded"):
        _run(tmp_path / "run", config)

    assert not (tmp_path / "run").exists()


def test_divergence_at_an_epochs_end_is_not_kept_either(tmp_path: Path) -> None:
    """One step in an epoch: its loss is still finite, and validation's no longer."""
    run = _run(tmp_path, _changed(learning_rate=1e30), train=4)

    with pytest.raises(RunError, match=r"^The loss is (nan|inf) at step 1 of 2"):
        run.fit()

    assert not (tmp_path / "best.weights.h5").exists()
