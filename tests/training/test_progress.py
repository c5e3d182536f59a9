import pytest

from training.config import Stage, TrainConfig
from training.progress import Progress

STAGES = (Stage(size=32, epochs=2), Stage(size=64, epochs=1))


def test_time_left_goes_with_pixels() -> None:
    config = TrainConfig(stages=STAGES, weights="none")
    progress = Progress(config, step=0, steps_per_epoch=10)

    # 20 steps at 32 px and 10 at 64 px, which cost four times as much each.
    assert progress.seconds_left(0, 100.0) is None
    assert progress.seconds_left(10, 105.0) == pytest.approx(25)
    assert progress.seconds_left(25, 120.0) == pytest.approx(10)
    assert progress.seconds_left(30, 130.0) == 0


def test_time_left_is_that_of_the_steps_after_the_first() -> None:
    config = TrainConfig(stages=STAGES, weights="none")
    progress = Progress(config, step=20, steps_per_epoch=10)

    # The first step of a resumed run waits for a minute; the others take two seconds each.
    assert progress.seconds_left(21, 60.0) is None
    assert progress.seconds_left(22, 62.0) == pytest.approx(16)
    assert progress.seconds_left(25, 68.0) == pytest.approx(10)


def test_frozen_steps_cost_a_third() -> None:
    config = TrainConfig(stages=(Stage(size=32, epochs=2),), head_epochs=1)
    progress = Progress(config, step=0, steps_per_epoch=3)

    progress.seconds_left(0, 0.0)

    assert progress.seconds_left(3, 1.0) == pytest.approx(3)


def test_layers_frozen_all_the_time_change_nothing() -> None:
    config = TrainConfig(stages=(Stage(size=32, epochs=2),), train_from="conv5")
    progress = Progress(config, step=0, steps_per_epoch=3)

    progress.seconds_left(1, 5.0)

    assert progress.seconds_left(3, 7.0) == pytest.approx(3)


def test_time_left_includes_validation() -> None:
    config = TrainConfig(stages=STAGES, weights="none", batch_size=4, input_size=64)
    progress = Progress(config, step=0, steps_per_epoch=10, validation=30)

    # In photos at 32 px: 80 and 160 are trained on, 3 x 30 x 4 predicted at a third of the price.
    assert progress.seconds_left(0, 0.0) is None
    assert progress.seconds_left(5, 20.0) == pytest.approx(80 + 160 + 120 - 20)
    assert progress.seconds_left(10, 40.0) == pytest.approx(40 + 160 + 120)


def test_log_of_a_run_has_photos_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(stages=STAGES, weights="none", batch_size=4)
    with Progress(config, step=10, steps_per_epoch=10) as progress:
        for step in (11, 12):
            progress.advance(step, loss=0.5, rate=0.01)

    [line] = capsys.readouterr().err.splitlines()
    assert "epoch 2/3 at 32 px" in line
    assert "48/120 photos" in line
    assert "photo/s" in line
    assert "00:00 left, loss 0.500, rate 0.0100" in line
    assert ", ," not in line


def test_time_left_is_unknown_after_a_single_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(TrainConfig(stages=STAGES), step=10, steps_per_epoch=10) as progress:
        progress.advance(11, loss=0.5, rate=0.01)

    assert "? left, loss 0.500" in capsys.readouterr().err


def test_run_without_a_terminal_writes_a_line_an_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with Progress(TrainConfig(stages=STAGES), step=0, steps_per_epoch=20) as progress:
        progress._bar._time = lambda: now[0]
        for step in range(1, 21):
            now[0] += 10
            progress.advance(step, loss=0.5, rate=0.01)

    text = capsys.readouterr().err
    assert "\r" not in text
    # 200 s: a line after 30, 60, ..., 180 s and one at the end.
    assert len(text.splitlines()) == 7


def test_bar_of_a_host_that_is_not_the_chief(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(TrainConfig(stages=STAGES), step=0, steps_per_epoch=10, shown=False) as bar:
        bar.advance(1, loss=0.5, rate=0.01)

    assert capsys.readouterr().err == ""
