from dataclasses import replace
from pathlib import Path

import pytest

from app.bundle import Label
from tests.training.pictures import dataset
from training.dataset import check_same, remember
from training.errors import DataError


def test_a_run_knows_its_photos_again(tmp_path: Path) -> None:
    begun = dataset(train=6)
    check_same(tmp_path, begun)  # nothing is noted yet
    remember(tmp_path, begun)

    check_same(tmp_path, dataset(train=6))
    with pytest.raises(DataError, match="have changed"):
        check_same(tmp_path, dataset(train=8))
    renamed = replace(begun, labels=(begun.labels[0], Label(index=1, name="another dog")))
    with pytest.raises(DataError, match="have changed"):
        check_same(tmp_path, renamed)
