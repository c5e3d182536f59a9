from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app import images
from app.settings import PROJECT
from tests.training.pictures import dataset, photo
from training.data import (
    Example,
    inference_batches,
    stanford_dogs,
    train_batches,
)
from training.errors import DataError


def test_breeds_present_become_the_classes(prepared: Path) -> None:
    read = stanford_dogs(prepared)

    assert [(label.index, label.synset, label.name) for label in read.labels] == [
        (0, "n02088364", "beagle"),
        (1, "n02099601", "golden retriever"),
        (2, "n02115641", "dingo"),
    ]
    assert read.sizes == {"train": 37, "validation": 3, "test": 10}


def test_boxes_are_shares_of_width_and_height(prepared: Path) -> None:
    read = stanford_dogs(prepared)

    for example in read.test:
        index = int(example.name.removeprefix("test-").removesuffix(".jpg"))
        expected = photo(index % 2, index).boxes if index % 4 == 0 else ()
        assert np.allclose(example.boxes, expected, atol=1e-6)
        assert images.decode(example.data).width == 60


def test_validation_is_taken_from_each_class_of_train_by_the_seed(prepared: Path) -> None:
    first = stanford_dogs(prepared, validation_share=0.25, seed=1)
    again = stanford_dogs(prepared, validation_share=0.25, seed=1)
    other = stanford_dogs(prepared, validation_share=0.25, seed=2)

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
    read = stanford_dogs(prepared, breeds=breeds)

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
        stanford_dogs(prepared, breeds=breeds)


def test_directory_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No prepared TFDS data set"):
        stanford_dogs(tmp_path)


def test_limit(prepared: Path) -> None:
    read = stanford_dogs(prepared, limit=20)

    assert len(read.train) + len(read.validation) == 20
    assert len(read.validation) == 3
    assert len(read.test) == 10


def test_inference_batches_decode_and_squash_as_the_service_does() -> None:
    examples = dataset(train=5).train
    batches = list(inference_batches(examples, size=32, batch_size=2))

    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    photos = np.concatenate([photos for photos, _ in batches])
    for example, actual in zip(examples, photos, strict=True):
        expected = images.squash(images.decode(example.data).pixels, 32)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("augment", [True, False])
def test_train_batches_repeat_and_resume(augment: bool) -> None:
    examples = dataset(train=11).train

    def epoch(number: int, skip: int = 0) -> list[tuple[tf.Tensor, tf.Tensor]]:
        return list(
            train_batches(
                examples,
                size=32,
                batch_size=3,
                seed=4,
                epoch=number,
                augment=augment,
                skip=skip,
            )
        )

    whole, again, resumed, following = epoch(0), epoch(0), epoch(0, skip=1), epoch(1)
    assert len(whole) == 3
    for first, second in zip(whole, again, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
    for first, second in zip(whole[1:], resumed, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(whole[0][0], following[0][0])


def test_augmented_photos_stay_in_range_and_keep_their_label() -> None:
    examples = dataset(train=8).train
    [(photos, labels)] = train_batches(
        examples, size=32, batch_size=8, seed=0, epoch=0, augment=True
    )

    assert photos.shape == (8, 32, 32, 3)
    assert 0 <= photos.numpy().min() < photos.numpy().max() <= 255
    red = photos.numpy()[..., 0].mean(axis=(1, 2)) > photos.numpy()[..., 2].mean(axis=(1, 2))
    np.testing.assert_array_equal(red, labels.numpy() == 0)


@pytest.mark.skipif(not (PROJECT / "../shared/tfds").is_dir(), reason="needs ../shared/tfds")
def test_real_data() -> None:
    read = stanford_dogs(PROJECT / "../shared/tfds")

    assert len(read.labels) == 10
    assert read.sizes == {"train": 9537, "validation": 1060, "test": 1558}
    assert sum(bool(example.boxes) for example in read.train + read.validation) == 681
    assert sum(bool(example.boxes) for example in read.test) == 319
