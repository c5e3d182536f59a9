from pathlib import Path

import numpy as np
import pytest

from app import engines
from app.bundle import Bundle, Label
from app.engines import Batch, Cut
from tests.training.pictures import photo
from training.errors import DataError
from training.evaluation.inference import squashed
from training.fit.devices import all_devices
from training.fit.targets import answers, mixed_targets, stored_answers


def test_targets_are_smoothed_labels_without_teachers() -> None:
    targets = mixed_targets([2, 0], 4, smoothing=0.2)

    np.testing.assert_allclose(targets, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])


def test_targets_mix_labels_with_answers_by_weight() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2]], np.float32)

    targets = mixed_targets([1], 3, answers=probabilities, weight=0.75)

    np.testing.assert_allclose(targets, [[0.375, 0.475, 0.15]], rtol=1e-6)
    np.testing.assert_array_equal(
        mixed_targets([1], 3, answers=probabilities, weight=0.0), [[0, 1, 0]]
    )


def test_answers_are_the_normalised_product_over_teachers_and_views(small_bundle: Bundle) -> None:
    examples = [photo(index % 2, index) for index in range(11)]
    engine = engines.create(small_bundle)
    images = np.stack([squashed(small_bundle.card, example)[1] for example in examples])
    first, second = (
        engine.run(Cut.PREDICT, Batch.of(view))["probabilities"].astype(np.float64)
        for view in (images, np.ascontiguousarray(images[:, :, ::-1]))
    )
    engine.close()

    rows = answers([small_bundle.path], examples, small_bundle.card.labels)
    twice = answers([small_bundle.path] * 2, examples, small_bundle.card.labels)

    views = np.sqrt(first * second)
    np.testing.assert_allclose(rows, views / views.sum(axis=1, keepdims=True), atol=0.01)
    np.testing.assert_allclose(twice, rows**2 / (rows**2).sum(axis=1, keepdims=True), atol=0.01)
    assert (twice.max(axis=1) > rows.max(axis=1)).all()  # two that agree are surer than one


def test_answers_are_of_the_classes_of_the_run_in_its_order(small_bundle: Bundle) -> None:
    examples = [photo(0, 0), photo(1, 1)]
    all_answers = answers([small_bundle.path], examples, small_bundle.card.labels)

    rows = answers(
        [small_bundle.path],
        examples,
        [Label(index=0, name="class 3"), Label(index=1, name="class 0")],
    )

    expected = all_answers[:, [3, 0]] / all_answers[:, [3, 0]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=0.01)


def test_teacher_that_lacks_a_class_is_refused(small_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="does not know 1: dalmatian"):
        answers([small_bundle.path], [photo(0, 0)], [Label(index=0, name="dalmatian")])


def test_teacher_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded"):
        answers([tmp_path / "absent"], [photo(0, 0)], [Label(index=0, name="class 0")])


def test_answers_are_kept_for_a_run_that_is_resumed(small_bundle: Bundle, tmp_path: Path) -> None:
    examples, labels = [photo(0, 0), photo(1, 1)], small_bundle.card.labels
    first = stored_answers(tmp_path, [small_bundle.path], examples, labels, all_devices())

    again = stored_answers(tmp_path, [tmp_path / "absent"], examples, labels, all_devices())

    np.testing.assert_array_equal(again, first)
    np.testing.assert_allclose(
        first, answers([small_bundle.path], examples, labels), atol=1e-3 + 0.01
    )
