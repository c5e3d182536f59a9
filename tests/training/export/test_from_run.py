"""Runs that cannot be exported; `test_custom_cnn` and `test_versions` export others."""

from pathlib import Path

import pytest

from training.config import TrainConfig
from training.errors import RunError
from training.export.from_run import export_run


def test_export_needs_a_finished_epoch(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        export_run(tmp_path, tmp_path / "models/x/1", photos=10)
    (tmp_path / "config.json").write_text(TrainConfig().model_dump_json(), encoding="utf-8")
    with pytest.raises(RunError, match="finished epoch"):
        export_run(tmp_path, tmp_path / "models/x/1", photos=10)
