import pytest

from training.config import Stage, TrainConfig
from training.progress import Progress, bar

STAGES = (Stage(size=32, epochs=2), Stage(size=64, epochs=1))


def test_time_left_goes_with_pixels() -> None:
    config = TrainConfig(stages=STAGES, weights="none")
    bar = Progress(config, step=0, steps_per_epoch=10)

    # 20 steps at 32 px and 10 at 64 px, which cost four times as much each.
    assert bar.seconds_left(10, 5.0) == pytest.approx(25)
    assert bar.seconds_left(25, 20.0) == pytest.approx(10)
    assert bar.seconds_left(30, 30.0) == 0


def test_time_left_counts_from_where_the_run_was_resumed() -> None:
    config = TrainConfig(stages=STAGES, weights="none")

    assert Progress(config, step=20, steps_per_epoch=10).seconds_left(25, 7.0) == pytest.approx(7)


def test_frozen_steps_are_a_third_of_the_price() -> None:
    config = TrainConfig(stages=(Stage(size=32, epochs=2),), head_epochs=1)

    assert Progress(config, step=0, steps_per_epoch=3).seconds_left(3, 1.0) == pytest.approx(3)


def test_bar_tells_photos_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(stages=STAGES, weights="none", batch_size=4)
    with Progress(config, step=10, steps_per_epoch=10) as bar:
        bar.advance(11, loss=0.5, rate=0.01)

    told = capsys.readouterr().err
    assert "epoch 2/3 at 32 px" in told
    assert "44/120 photos" in told
    assert "photo/s" in told
    assert "left, loss 0.500, rate 0.0100" in told
    assert ", ," not in told


def test_log_gets_a_line_at_the_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in bar("photos", range(500)):
        pass

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\r" not in told
    assert told.startswith("photos: 100%")
    assert "500/500" in told


def test_log_gets_a_line_an_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with bar("photos", total=20) as progress:
        progress._time = lambda: now[0]
        for _ in range(20):
            now[0] += 10
            progress.update()

    shares = [line.split("|")[0] for line in capsys.readouterr().err.splitlines()]
    assert shares == [f"photos: {share:3}%" for share in (15, 30, 45, 60, 75, 90, 100)]


def test_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    for _ in bar("photos", range(3)):
        pass

    assert capsys.readouterr().err.count("\r") >= 2


def test_bar_of_a_host_that_is_not_the_chief(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(TrainConfig(stages=STAGES), step=0, steps_per_epoch=10, shown=False) as bar:
        bar.advance(1, loss=0.5, rate=0.01)

    assert capsys.readouterr().err == ""
