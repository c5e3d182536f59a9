import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.config import TrainConfig
from training.export.survey import TrainingPhotos
from training.hints import command, photo_options


@pytest.mark.parametrize(
    ("python", "shown"),
    [
        (".venv/bin/python", ".venv/bin/python"),
        ("python", "{here}/python"),  # by its name alone, a shell would look for it in PATH
        ("/elsewhere/bin/python", "/elsewhere/bin/python"),
    ],
)
def test_python_is_told_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    monkeypatch.setattr(sys, "executable", str(here / python))

    line = command("train", "--run", "runs/of mine", "--resume")

    assert line == f"{shown.format(here=here)} -m training train --run 'runs/of mine' --resume"


def test_photos_are_told_where_they_are_not_the_default() -> None:
    own: dict[str, Any] = {
        "source": "folder",
        "data_dir": Path("/my photos"),
        "boxes": Path("/boxes.csv"),
    }

    assert photo_options(TrainConfig()) == []
    assert photo_options(TrainConfig(data_dir=Path("/tfds"))) == ["--data-dir", Path("/tfds")]
    assert photo_options(TrainConfig(**own)) == [
        *("--source", "folder"),
        *("--data-dir", Path("/my photos")),
        *("--boxes", Path("/boxes.csv")),
    ]
    assert photo_options(TrainingPhotos(**own)) == photo_options(TrainConfig(**own))
    assert photo_options(TrainingPhotos()) == []


def test_a_shell_takes_it_as_it_is_meant() -> None:
    run = "no run's $HOME; `here`"

    line = command("export", "--run", run)
    done = subprocess.run(
        f"printf '%s\\n' {line}", shell=True, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[1:] == ["-m", "training", "export", "--run", run]
