"""What is learnt from photos, against Keras and numpy over the same photos."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Label
from app.images import Box
from tests.training.folders import CLASSES, write_photos
from tests.training.pictures import dataset, photo
from tests.training.small_networks import nested, small_resnet
from training.data.batches import inference_batches
from training.data.dataset import Example
from training.errors import DataError
from training.export import layer_choice
from training.export import survey as surveys
from training.export.foreground import DescriptorTransform, RidgeRegression
from training.export.layer_choice import RawMaps
from training.export.novelty import residual
from training.export.survey import Survey, TrainingPhotos, choose, survey
from training.graph.keras_reader import from_keras
from training.networks.preprocessing import Preprocessing

LAYERS = ["middle_out", "last_out"]

PHOTOS = dataset(train=37).train
"""Two batches and a part of one."""

MIXED = [
    example if index % 3 else replace(example, boxes=()) for index, example in enumerate(PHOTOS)
]
"""Boxes of 24 among them, in each of the batches."""


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_resnet()


@pytest.fixture(scope="module")
def outputs(model: keras.Model) -> list[npt.NDArray[np.float32]]:
    """Activations of `LAYERS` and the features of all photos, at once."""
    return _outputs(model, [*LAYERS, "avg_pool"])


def _outputs(model: keras.Model, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    (batch, _labels), *_ = inference_batches(PHOTOS, size=32, batch_size=len(PHOTOS))
    image = keras.applications.resnet50.preprocess_input(np.array(batch))
    part = keras.Model(model.input, [model.get_layer(name).output for name in names])
    return [np.asarray(output) for output in part(image, training=False)]


def _survey(model: keras.Model, examples: list[Example]) -> Survey:
    return survey(from_keras(model), LAYERS, examples, size=32, preprocessing=Preprocessing.CAFFE)


def _close(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    assert np.linalg.norm(actual - expected) <= 1e-3 * np.linalg.norm(expected)


def test_enough_boxes_teach_the_projections(
    model: keras.Model,
    outputs: list[npt.NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surveys, "ENOUGH_BOXES", 24)
    boxed = [index for index, example in enumerate(MIXED) if example.boxes]

    learnt = _survey(model, MIXED)

    assert (learnt.rule, learnt.photos, learnt.surveyed) == ("boxes", 24, 37)
    for name, maps in zip(LAYERS, outputs, strict=False):
        ridge = RidgeRegression()
        ridge.add(maps[boxed], [MIXED[index].boxes for index in boxed])
        _close(learnt.projections[name].direction, ridge.projection().direction)
        assert learnt.projections[name].offset == pytest.approx(ridge.projection().offset, rel=1e-3)


def test_layers_are_chosen_by_photos_that_did_not_teach(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "ENOUGH_BOXES", 37)
    layers = ["early_out", "last_out"]
    tried: list[tuple[list[RawMaps], list[Sequence[Box]], tuple[str, ...], int]] = []

    def last_alone(*arguments: Any) -> tuple[str, ...]:
        tried.append(arguments)
        return ("last_out",)

    monkeypatch.setattr(layer_choice, "best_layers", last_alone)

    learnt = survey(from_keras(model), layers, PHOTOS, size=32, preprocessing=Preprocessing.CAFFE)

    assert learnt.layers == ("last_out",)
    [(raw, boxes, candidates, size)] = tried
    assert (candidates, size) == (tuple(layers), 32)
    # 19 of 37 teach, at least: two batches of 16 have been seen before the third is tried.
    assert boxes == [example.boxes for example in PHOTOS[32:]]
    for name, maps in zip(layers, _outputs(model, layers), strict=True):
        ridge = RidgeRegression()
        ridge.add(maps[:32], [example.boxes for example in PHOTOS[:32]])
        projection = ridge.projection()
        expected = maps[32:] @ projection.direction - projection.offset
        np.testing.assert_allclose([row[name] for row in raw], expected, atol=2e-3)


def test_batches_without_a_box_teach_nothing(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "ENOUGH_BOXES", 10)
    plain = [replace(example, boxes=()) for example in PHOTOS[16:]]

    learnt, alone = _survey(model, [*PHOTOS[:16], *plain]), _survey(model, list(PHOTOS[:16]))

    assert (learnt.photos, learnt.surveyed) == (16, 37)
    for name in LAYERS:
        _close(learnt.projections[name].direction, alone.projections[name].direction)


def test_with_fewer_boxes_all_photos_are_transformed(
    model: keras.Model,
    outputs: list[npt.NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surveys, "ENOUGH_BOXES", 25)

    learnt = _survey(model, MIXED)

    assert (learnt.rule, learnt.photos, learnt.surveyed) == ("ddt", 37, 37)
    assert learnt.layers == ("last_out",)  # no layer has a finer map
    for name, maps in zip(LAYERS, outputs, strict=False):
        transform = DescriptorTransform()
        transform.add(maps)
        projection = learnt.projections[name]
        _close(projection.direction, transform.projection().direction)
        descriptors = maps.reshape(-1, maps.shape[-1]).astype(np.float64)
        mean = descriptors.mean(axis=0)
        first = np.linalg.svd(descriptors - mean, full_matrices=False).Vh[0]
        assert abs(projection.direction @ first) == pytest.approx(1, abs=1e-4)
        assert projection.offset == pytest.approx(mean @ projection.direction, rel=1e-3)


def test_residual_is_of_what_the_head_reads_of_all_photos(
    model: keras.Model, outputs: list[npt.NDArray[np.float32]]
) -> None:
    actual, expected = _survey(model, MIXED).residual, residual(outputs[-1])

    assert actual is not None
    assert expected is not None
    assert actual.directions.shape == (16, 8)
    # Of equal spans: single directions turn with what rounding does to the eigenvectors.
    _close(actual.directions @ actual.directions.T, expected.directions @ expected.directions.T)
    _close(actual.directions @ actual.offset, expected.directions @ expected.offset)


def test_too_few_photos_have_no_residual(model: keras.Model) -> None:
    assert _survey(model, list(PHOTOS[:3])).residual is None


def test_photos_with_boxes_are_chosen_first() -> None:
    boxed = {example.name for example in MIXED if example.boxes}

    few, more = choose(MIXED, 10, seed=1), choose(MIXED, 30, seed=1)

    assert len(few) == len({example.name for example in few} & boxed) == 10
    assert len(more) == len({example.name for example in more}) == 30
    assert boxed < {example.name for example in more}
    assert choose(MIXED, 10, seed=1) == few
    assert choose(MIXED, 10, seed=2) != few
    assert sorted(example.name for example in choose(MIXED, 99, 0)) == sorted(
        example.name for example in MIXED
    )


def test_photos_are_chosen_evenly_by_class() -> None:
    boxed = [photo(0, seed) for seed in range(9)] + [photo(1, seed) for seed in range(3)]
    plain = [replace(photo(1, seed), boxes=()) for seed in range(10, 19)]
    plain += [replace(photo(0, seed), boxes=()) for seed in range(10, 12)]

    def counts(count: int) -> dict[tuple[int, bool], int]:
        chosen = choose(boxed + plain, count, seed=3)
        return Counter((example.label, bool(example.boxes)) for example in chosen)

    assert counts(4) == {(0, True): 2, (1, True): 2}
    assert counts(8) == {(0, True): 5, (1, True): 3}  # all of the second class, then the first's
    assert counts(16) == {(0, True): 9, (1, True): 3, (0, False): 2, (1, False): 2}
    assert counts(20) == {(0, True): 9, (1, True): 3, (0, False): 2, (1, False): 6}


def test_nested_models_are_surveyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "ENOUGH_BOXES", 24)
    model = nested()
    backbone = model.get_layer("backbone")
    (batch, _labels), *_ = inference_batches(PHOTOS, size=32, batch_size=len(PHOTOS))
    maps = np.asarray(backbone(np.array(batch) / 127.5 - 1, training=False))
    ridge = RidgeRegression()
    ridge.add(maps, [example.boxes for example in PHOTOS])

    learnt = survey(
        from_keras(model), ["last_out"], PHOTOS, size=32, preprocessing=Preprocessing.NONE
    )

    _close(learnt.projections["last_out"].direction, ridge.projection().direction)
    expected = residual(maps.mean(axis=(1, 2)))
    assert learnt.residual is not None
    assert expected is not None
    directions, expected_directions = learnt.residual.directions, expected.directions
    _close(directions @ directions.T, expected_directions @ expected_directions.T)


def test_training_photos_are_those_of_the_training_split(tmp_path: Path) -> None:
    for split, offset in (("train", 0), ("validation", 10), ("test", 20)):
        write_photos(tmp_path / split, 3, offset=offset)
    labels = [Label(index=0, name="blue dog"), Label(index=1, name="red dog")]

    examples = TrainingPhotos("folder", tmp_path, count=4).examples(labels)

    assert Counter(example.label for example in examples) == {0: 2, 1: 2}
    for example in examples:
        assert example.name.startswith(f"train/{CLASSES[1 - example.label]}/")


def test_photos_to_test_with_are_not_learnt_from(tmp_path: Path) -> None:
    write_photos(tmp_path / "test", 3)
    labels = [Label(index=0, name="blue dog"), Label(index=1, name="red dog")]

    with pytest.raises(DataError, match="no training photos"):
        TrainingPhotos("folder", tmp_path).examples(labels)
