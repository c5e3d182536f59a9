from dataclasses import replace
from pathlib import Path

import pytest

from app.bundle import Label
from tests.training.pictures import dataset
from training.data.dataset import Dataset, check_fingerprint, write_fingerprint
from training.errors import DataError

ORIGINAL = dataset(train=6)


def test_a_run_accepts_the_photos_that_it_trains_on(tmp_path: Path) -> None:
    check_fingerprint(tmp_path, dataset(train=8))  # the run is new: there is no fingerprint
    write_fingerprint(tmp_path, ORIGINAL)

    check_fingerprint(tmp_path, dataset(train=6))
    check_fingerprint(tmp_path, replace(ORIGINAL, test=()))  # training does not depend on these


@pytest.mark.parametrize(
    "changed",
    [
        dataset(train=8),
        replace(ORIGINAL, train=ORIGINAL.train[::-1]),
        replace(ORIGINAL, train=(replace(ORIGINAL.train[0], label=1), *ORIGINAL.train[1:])),
        replace(ORIGINAL, validation=ORIGINAL.validation[1:]),
        replace(ORIGINAL, labels=(ORIGINAL.labels[0], Label(index=1, name="another dog"))),
    ],
    ids=["photos", "order", "class", "validation", "labels"],
)
def test_a_run_refuses_other_photos(tmp_path: Path, changed: Dataset) -> None:
    write_fingerprint(tmp_path, ORIGINAL)

    with pytest.raises(DataError, match="have changed"):
        check_fingerprint(tmp_path, changed)
