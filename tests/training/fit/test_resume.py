"""Runs that are stopped by signals and resumed in new processes, beside one that is not."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.settings import PROJECT
from tests.training.command_line import hint

EPOCHS = 4
"""Long enough to be stopped in, long before their end."""

# A small rate: a network trained from scratch at a large one magnifies the last bit of a sum.
# `test_run` resumes at another size.
OPTIONS = [
    *("--architecture", "custom_cnn", "--weights", "none"),
    *("--stages", f"48x{EPOCHS}", "--input-size", "48"),
    *("--batch-size", "4", "--precision", "float32", "--learning-rate", "0.001"),
]
TOLERANCE = 0.02
"""Of an epoch's mean loss, relative to the uninterrupted run's."""


def _start(*options: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", "train", *map(str, options)],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        text=True,
    )


def _history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _newest(run: Path) -> int:
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0)


def _wait_for_a_checkpoint_of_the_second_epoch(process: subprocess.Popen[str], run: Path) -> None:
    deadline = time.monotonic() + 240
    seen = None
    while seen is None or _newest(run) < seen + 2:
        if seen is None and (run / "history.csv").exists():
            seen = _newest(run)
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = _start("--run", run, "--data-dir", prepared, *OPTIONS)
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_stopped_run_ends_as_one_that_was_not(
    whole: Path, prepared: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    often = ["--checkpoint-minutes", "0.0001"]
    process = _start("--run", run, "--data-dir", prepared, *OPTIONS, *often)
    _wait_for_a_checkpoint_of_the_second_epoch(process, run)
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130
        python, _, rest = hint(stderr).partition(" ")
        assert Path(python).absolute() == Path(sys.executable)
        assert rest == f"-m training train --run {run} --resume"
    else:
        assert process.returncode == -signal.SIGKILL
    before = _history(run)
    assert len(before) < EPOCHS

    resumed = _start("--run", run, "--resume")
    _, stderr = resumed.communicate(timeout=280)

    assert resumed.returncode == 0, stderr
    ours, theirs = _history(run), _history(whole)
    assert ours[: len(before)] == before
    for column in ("epoch", "size", "steps", "learning_rate"):
        assert [row[column] for row in ours] == [row[column] for row in theirs]
    assert ours[-1]["steps"] == str(9 * EPOCHS)
    for row, expected in zip(ours, theirs, strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=TOLERANCE)
