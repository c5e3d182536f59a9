import shutil
from pathlib import Path

import pytest

from app.bundle import Label
from tests.training.folders import CLASSES, write_photos
from training.config import TrainConfig
from training.data.dataset import Dataset
from training.data.loading import load_dataset, load_for_model
from training.data.stanford_dogs import load_stanford_dogs
from training.errors import DataError

RED = Label(index=0, synset="n00000001", name="red dog")
BLUE = Label(index=1, name="Blue_Dog")


def _colours(dataset: Dataset) -> set[tuple[int, str]]:
    examples = (*dataset.train, *dataset.validation, *dataset.test)
    return {(example.label, example.name.split("/")[-2]) for example in examples}


def test_source_decides(tmp_path: Path, prepared: Path) -> None:
    write_photos(tmp_path, 10)

    mine = load_dataset(TrainConfig(source="folder", data_dir=tmp_path, test_share=0.3))
    dogs = load_dataset(TrainConfig(data_dir=prepared))

    assert mine.sizes == {"train": 15, "validation": 2, "test": 3}
    assert dogs.name == "stanford_dogs"


def test_folder_has_to_be_named() -> None:
    with pytest.raises(DataError, match="--source folder needs --data-dir"):
        load_dataset(TrainConfig(source="folder"))


def test_folder_without_training_photos(tmp_path: Path) -> None:
    write_photos(tmp_path / "test", 2)

    with pytest.raises(DataError, match="none to train on"):
        load_dataset(TrainConfig(source="folder", data_dir=tmp_path))


def test_classes_take_the_models_labels_and_order(tmp_path: Path) -> None:
    write_photos(tmp_path, 4)  # in the folder's own order, blue is first

    read = load_for_model("folder", tmp_path, (RED, BLUE), config={})

    assert read.labels == (RED, BLUE)
    assert _colours(read) == {(0, CLASSES[0]), (1, CLASSES[1])}


def test_a_model_of_some_classes_is_measured_on_its_own_folder(tmp_path: Path) -> None:
    write_photos(tmp_path, 4)
    write_photos(tmp_path / "other", 4, offset=10)
    (tmp_path / "other" / CLASSES[0]).rename(tmp_path / "green dog")
    shutil.rmtree(tmp_path / "other")

    with pytest.raises(DataError, match="green dog"):
        load_for_model("folder", tmp_path, (RED, BLUE), config={})
    read = load_for_model(
        "folder", tmp_path, (RED, BLUE), config={"breeds": ["red dog", "blue dog"]}
    )

    assert _colours(read) == {(0, CLASSES[0]), (1, CLASSES[1])}


def test_stanford_dogs_takes_the_models_order(prepared: Path) -> None:
    labels = (
        Label(index=0, name="dingo"),
        Label(index=1, synset="n02088364", name="beagle"),
        Label(index=2, name="golden_retriever"),
    )

    read = load_for_model("stanford_dogs", prepared, labels, config={})

    assert read.labels == labels
    assert len(read.test) == 10
    for example in read.test:
        breed = int(example.name.removeprefix("test-").removesuffix(".jpg")) % 3
        assert example.label == {0: 1, 1: 2, 2: 0}[breed]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            (RED, Label(index=1, name="dingo")),
            r"to the model: blue.dog\. Missing from the data: dingo",
        ),
        (
            (RED.model_copy(update={"synset": "n00000009"}), BLUE),
            r"to the model: red dog\. Missing from the data: red dog",
        ),
    ],
)
def test_other_classes_than_the_models(
    tmp_path: Path, labels: tuple[Label, ...], message: str
) -> None:
    write_photos(tmp_path, 3)

    with pytest.raises(DataError, match=message):
        load_for_model("folder", tmp_path, labels, config={})


def test_a_model_may_know_more_classes_than_the_photos_show(tmp_path: Path, prepared: Path) -> None:
    write_photos(tmp_path, 3)
    dingo = Label(index=0, name="dingo")
    labels = (
        dingo,
        *(label.model_copy(update={"index": i}) for i, label in enumerate((BLUE, RED), 1)),
    )

    mine = load_for_model("folder", tmp_path, labels, config={})
    cat = Label(index=0, name="cat")
    absent = Label(index=1, synset="n02085620", name="chihuahua")
    beagle = Label(index=2, synset="n02088364", name="beagle")
    dogs = load_for_model(
        "stanford_dogs",
        prepared,
        (cat, absent, beagle, dingo.model_copy(update={"index": 3})),
        config={},
    )

    assert mine.labels == labels
    assert _colours(mine) == {(1, CLASSES[1]), (2, CLASSES[0])}
    assert {example.label for example in dogs.test} == {2, 3}


def test_photos_of_one_class_or_of_classes_without_training_photos_will_do(
    tmp_path: Path, prepared: Path
) -> None:
    write_photos(tmp_path / "one" / "test", 2)
    shutil.rmtree(tmp_path / "one" / "test" / CLASSES[1])
    write_photos(tmp_path / "two" / "test", 2)
    write_photos(tmp_path / "two" / "train", 2, offset=2)
    shutil.rmtree(tmp_path / "two" / "train" / CLASSES[1])

    single = load_for_model("folder", tmp_path / "one", (RED, BLUE), config={})
    two = load_for_model("folder", tmp_path / "two", (RED, BLUE), config={})
    beagle = Label(index=0, synset="n02088364", name="beagle")
    dogs = load_for_model("stanford_dogs", prepared, (beagle,), config={})

    assert _colours(single) == {(0, CLASSES[0])}
    assert {example.label for example in two.train} == {0}
    assert {example.label for example in two.test} == {0, 1}
    assert {example.label for example in dogs.test} == {0}


def test_photos_of_no_class_of_the_model_are_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="no photo of any of the model's classes"):
        load_for_model("stanford_dogs", prepared, (Label(index=0, name="cat"),), config={})


def test_stanford_dogs_is_split_as_it_was_for_the_models_training(prepared: Path) -> None:
    trained = load_dataset(TrainConfig(data_dir=prepared, seed=5, validation_share=0.3))
    config = TrainConfig(data_dir=prepared, seed=5, validation_share=0.3).public()

    read = load_for_model("stanford_dogs", prepared, trained.labels, config=config)

    assert read == trained
    assert load_for_model("stanford_dogs", prepared, trained.labels, config={}) != trained


def test_training_limit_holds_for_training_photos_alone(prepared: Path) -> None:
    trained = load_stanford_dogs(prepared, limit=6)

    read = load_for_model("stanford_dogs", prepared, trained.labels, config={"limit": 6})

    assert (read.train, read.validation) == (trained.train, trained.validation)
    assert len(trained.train) + len(trained.validation) == 6
    assert (len(trained.test), len(read.test)) == (6, 10)


def test_folder_is_split_as_it_was_for_the_models_training(tmp_path: Path) -> None:
    write_photos(tmp_path, 12)
    config = TrainConfig(source="folder", data_dir=tmp_path, seed=5, test_share=0.25)
    trained = load_dataset(config)

    read = load_for_model("folder", tmp_path, trained.labels, config=config.public())

    assert read == trained
    assert load_for_model("folder", tmp_path, trained.labels, config={}) != trained
