import os
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core import constants

from app import images
from tests import needs
from tests.training.pictures import photo
from training import cli
from training.data import labels
from training.data.dataset import Example
from training.data.stanford_dogs import load_stanford_dogs
from training.errors import DataError


def test_breeds_present_become_the_classes(prepared: Path) -> None:
    read = load_stanford_dogs(prepared)

    assert [(label.index, label.synset, label.name) for label in read.labels] == [
        (0, "n02088364", "beagle"),
        (1, "n02099601", "golden retriever"),
        (2, "n02115641", "dingo"),
    ]
    assert read.sizes == {"train": 37, "validation": 3, "test": 10}


def test_boxes_are_shares_of_width_and_height(prepared: Path) -> None:
    read = load_stanford_dogs(prepared)

    for example in read.test:
        index = int(example.name.removeprefix("test-").removesuffix(".jpg"))
        expected = photo(index % 2, index).boxes if index % 4 == 0 else ()
        assert np.allclose(example.boxes, expected, atol=1e-6)
        assert images.decode(example.read()).width == 60


def test_validation_is_taken_from_each_class_of_train_by_the_seed(prepared: Path) -> None:
    first = load_stanford_dogs(prepared, validation_share=0.25, seed=1)
    again = load_stanford_dogs(prepared, validation_share=0.25, seed=1)
    other = load_stanford_dogs(prepared, validation_share=0.25, seed=2)

    def names(examples: tuple[Example, ...]) -> set[str]:
        return {example.name for example in examples}

    assert names(first.validation) == names(again.validation)
    assert names(first.validation) != names(other.validation)
    assert not names(first.validation) & names(first.train)
    assert names(first.validation) | names(first.train) == {f"train-{i}.jpg" for i in range(40)}
    held_out = np.bincount([example.label for example in first.validation])
    assert held_out.tolist() == [4, 3, 3]  # a quarter, rounded, of 14, 13 and 13


@pytest.mark.parametrize(
    "breeds",
    [("beagle", "DINGO"), ("n02088364", "n02115641"), ("n02115641-dingo", "Beagle")],
)
def test_named_breeds_are_kept_in_the_data_sets_order(
    prepared: Path, breeds: tuple[str, ...]
) -> None:
    read = load_stanford_dogs(prepared, breeds=breeds)

    assert [label.name for label in read.labels] == ["beagle", "dingo"]
    assert {example.label for example in read.train} == {0, 1}
    assert all(int(example.name[6:-4]) % 3 == 2 * example.label for example in read.train)


@pytest.mark.parametrize(
    ("breeds", "message"),
    [
        (("beagle", "poodle-ish"), "No such breed: poodle-ish"),
        (("beagle", "chihuahua"), "No training photo of n02085620-chihuahua"),
        (("beagle",), "two classes"),
    ],
)
def test_breeds_that_cannot_be_used(prepared: Path, breeds: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_stanford_dogs(prepared, breeds=breeds)


def test_directory_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No prepared TFDS data set"):
        load_stanford_dogs(tmp_path)


def test_limit(prepared: Path) -> None:
    read = load_stanford_dogs(prepared, limit=20)

    assert len(read.train) + len(read.validation) == 20
    assert len(read.validation) == 3
    assert len(read.test) == 10


def test_data_out_of_reach_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # An address that refuses at once stands for a machine without internet.
    for name in [name for name in os.environ if name.lower().endswith("proxy")]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / "tfds"))

    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--run", str(tmp_path / "run")])

    error = str(ended.value.code)
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "images.tar" in error
    assert "t.load('stanford_dogs', data_dir='DIR')" in error
    assert "--data-dir DIR" in error
    assert "error: " not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_real_data() -> None:
    read = load_stanford_dogs(needs.shared("tfds120"))

    assert read.labels == labels.read(labels.STANFORD_DOGS)
    assert read.sizes == {"train": 10362, "validation": 1152, "test": 2066}
    assert sum(bool(example.boxes) for example in read.train + read.validation) == 5934
    assert all(example.boxes for example in read.test)
    crops = [example for example in read.train if example.name.endswith("_crop.jpg")]
    assert crops
    assert not any(example.boxes for example in crops)
