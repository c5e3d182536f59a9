import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from app import images
from tests.training.pictures import dataset, one_hot
from training.config import TrainConfig
from training.data.batches import inference_batches, train_batches
from training.data.dataset import Example


def test_inference_batches_decode_and_squash_as_the_service_does() -> None:
    examples = dataset(train=5).train
    batches = list(inference_batches(examples, size=32, batch_size=2))

    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    photos = np.concatenate([photos for photos, _ in batches])
    for example, actual in zip(examples, photos, strict=True):
        expected = images.squash(images.decode(example.read()).pixels, 32)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("augment", [True, False])
def test_train_batches_repeat_and_resume(augment: bool) -> None:
    examples = dataset(train=11).train

    def epoch(number: int, skip: int = 0) -> list[tuple[tf.Tensor, ...]]:
        return list(
            train_batches(
                examples,
                size=32,
                batch_size=3,
                seed=4,
                epoch=number,
                augment=augment,
                targets=one_hot(examples),
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


def _flips_and_brightness(examples: list[Example], epoch: int) -> npt.NDArray[np.bool_]:
    """Of each example: whether it is flipped, whether it is brighter: `[N, 2]`."""
    [(photos, labels, _)] = train_batches(
        examples,
        size=32,
        batch_size=len(examples),
        seed=7,
        epoch=epoch,
        augment=True,
        targets=one_hot(examples),
    )
    columns = photos.numpy().mean(axis=(1, 3))
    drawn = np.empty((len(examples), 2), bool)
    drawn[labels.numpy(), 0] = columns[:, 0] > columns[:, -1]
    drawn[labels.numpy(), 1] = columns.mean(axis=1) > 128
    return drawn


def test_draws_are_independent_of_each_other_and_of_other_epochs() -> None:
    """On photos that grow brighter to the right, 128 on average."""
    pixels = np.repeat(np.linspace(124, 132, 32).round().astype(np.uint8)[None], 32, axis=0)
    file = io.BytesIO()
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(file, "PNG")
    examples = [Example(f"{index}.png", file.getvalue(), index, ()) for index in range(500)]

    draws = np.concatenate([_flips_and_brightness(examples, epoch) for epoch in range(3)], axis=1)

    assert (np.abs(draws.mean(axis=0) - 0.5) < 0.1).all()
    together = np.corrcoef(draws.T)  # 1 / sqrt(500) is 0.045
    assert np.abs(together - np.eye(6)).max() < 0.2


def test_any_seed_that_the_configuration_takes() -> None:
    examples = dataset(train=4).train
    seed = 2**32 - 1
    assert TrainConfig(seed=seed).seed == seed

    def photos(seed: int) -> npt.NDArray[np.float32]:
        [(photos, _, _)] = train_batches(
            examples,
            size=32,
            batch_size=4,
            seed=seed,
            epoch=0,
            augment=True,
            targets=one_hot(examples),
        )
        return np.asarray(photos)

    np.testing.assert_array_equal(photos(seed), photos(seed))
    assert not np.array_equal(photos(seed), photos(seed - 1))


def test_augmented_photos_stay_in_range_and_keep_their_label() -> None:
    examples = dataset(train=8).train
    [(photos, labels, targets)] = train_batches(
        examples,
        size=32,
        batch_size=8,
        seed=0,
        epoch=0,
        augment=True,
        targets=one_hot(examples),
    )

    assert photos.shape == (8, 32, 32, 3)
    assert 0 <= photos.numpy().min() < photos.numpy().max() <= 255
    red = photos.numpy()[..., 0].mean(axis=(1, 2)) > photos.numpy()[..., 2].mean(axis=(1, 2))
    np.testing.assert_array_equal(red, labels.numpy() == 0)
    np.testing.assert_array_equal(targets.numpy().argmax(axis=1), labels.numpy())


@pytest.mark.parametrize("augment", [True, False])
def test_files_are_read_as_they_are_needed(tmp_path: Path, augment: bool) -> None:
    held = dataset(train=6).train
    filed = []
    for example in held:
        path = tmp_path / example.name
        path.write_bytes(example.read())
        filed.append(Example(example.name, path, example.label, ()))

    def batches(examples: list[Example]) -> list[tuple[tf.Tensor, ...]]:
        return list(
            train_batches(
                examples,
                size=32,
                batch_size=3,
                seed=1,
                epoch=0,
                augment=augment,
                targets=one_hot(examples),
            )
        )

    for ours, expected in zip(batches(filed), batches(list(held)), strict=True):
        np.testing.assert_array_equal(ours[0], expected[0])
        np.testing.assert_array_equal(ours[1], expected[1])
    late = inference_batches(filed, size=32, batch_size=6)
    (tmp_path / held[0].name).unlink()
    with pytest.raises(tf.errors.OpError, match=held[0].name):
        list(late)


@pytest.mark.parametrize("augment", [True, False])
def test_photos_are_fed_upright_in_every_format_that_is_served(augment: bool) -> None:
    """Red above blue, stored on its side; with this seed, each crop holds some of both."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 2] = pixels[:, 30:, 0] = 255  # orientation 8: turn to the left
    exif = Image.Exif()
    exif[0x0112] = 8
    examples = []
    for kind in ("JPEG", "WEBP", "PNG"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, exif=exif)
        examples.append(Example(kind, file.getvalue(), 0, ()))

    [(photos, _, _)] = train_batches(
        examples,
        size=32,
        batch_size=3,
        seed=4,
        epoch=0,
        augment=augment,
        targets=one_hot(examples),
    )

    for photo in photos.numpy():
        assert photo[:4, :, 0].mean() > photo[:4, :, 2].mean()
        assert photo[-4:, :, 2].mean() > photo[-4:, :, 0].mean()


def test_a_crop_of_the_whole_area_is_the_whole_photo() -> None:
    """Two halves of different red: the whole photo has as much of each, a smaller crop need not."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    examples = [Example(f"{index}.png", file.getvalue(), 0, ()) for index in range(24)]

    def bright_share(crop_area: float) -> npt.NDArray[np.float64]:
        [(photos, _, _)] = train_batches(
            examples,
            size=32,
            batch_size=24,
            seed=0,
            epoch=0,
            augment=True,
            targets=one_hot(examples),
            crop_area=crop_area,
        )
        gray = photos.numpy().mean(axis=3)
        shares: npt.NDArray[np.float64] = (gray > gray.mean(axis=(1, 2), keepdims=True)).mean(
            axis=(1, 2)
        )
        return shares

    assert np.ptp(bright_share(1.0)) < 0.1
    assert np.ptp(bright_share(0.1)) > 0.2
