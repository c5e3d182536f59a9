from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.pictures import dataset
from tests.training.small_networks import tiny_net
from training.config import Precision, Stage, TrainConfig
from training.fit import precision
from training.fit.run import Run

CONFIG = TrainConfig(
    weights="none", stages=(Stage(size=32, epochs=1),), input_size=32, batch_size=4, augment=False
)


@pytest.mark.parametrize(
    ("wanted", "capabilities", "cpu_has_bfloat16", "expected"),
    [
        ("auto", [], True, "bfloat16"),
        ("auto", [], False, "float32"),
        ("auto", [(9, 0)], False, "bfloat16"),  # H100
        ("auto", [(8, 0), (8, 0)], False, "bfloat16"),  # A100
        ("auto", [(7, 5)], True, "float16"),  # T4
        ("auto", [(8, 0), (7, 5)], False, "float16"),
        ("auto", [(6, 1)], False, "float32"),  # no tensor cores
        ("float32", [(9, 0)], True, "float32"),
        ("float16", [], True, "float16"),
        ("bfloat16", [(7, 5)], False, "bfloat16"),
    ],
)
def test_resolve(
    wanted: Precision, capabilities: list[tuple[int, int]], cpu_has_bfloat16: bool, expected: str
) -> None:
    chosen = precision.resolve(wanted, capabilities, cpu_has_bfloat16=cpu_has_bfloat16)

    assert chosen == expected


def test_a_cpu_rewrites_graphs_for_bfloat16_and_keeps_the_model() -> None:
    model = tiny_net(2)

    cases: tuple[tuple[precision.Resolved, bool], ...] = (("bfloat16", True), ("float32", False))
    for wanted, rewritten in cases:
        assert precision.choose(wanted) == wanted
        options = tf.config.optimizer.get_experimental_options()
        assert options["auto_mixed_precision_onednn_bfloat16"] is rewritten
        assert precision.mixed(model, wanted) is model


def test_mixed_model_keeps_weights_names_and_a_float32_end() -> None:
    model = tiny_net(2)

    copy = precision.mixed(model, "float16")

    assert copy.get_layer("stem").compute_dtype == "float16"
    assert copy.get_layer("predictions").compute_dtype == "float32"
    assert {variable.dtype for variable in copy.variables} == {"float32"}
    assert [v.path for v in copy.variables] == [v.path for v in model.variables]
    photos = np.random.default_rng(0).uniform(-100, 100, (3, 32, 32, 3)).astype(np.float32)
    ours, theirs = (np.asarray(network(photos, training=True)) for network in (copy, model))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-2)
    moving = "moving_mean"
    ours, theirs = (np.asarray(getattr(m.get_layer("stem_bn"), moving)) for m in (copy, model))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def _run(directory: Path, wanted: Precision) -> Run:
    return Run(
        directory,
        CONFIG.model_copy(update={"precision": wanted}),
        dataset(train=8),
        build=lambda _config, labels: tiny_net(len(labels)),
    )


def _step(run: Run) -> None:
    [batch, *_] = run._batches(0, skip=0)
    run._steps.train(*batch, tf.constant(0.0), False)


def _values(variables: list[Any]) -> list[Any]:
    return [np.array(variable) for variable in variables]


def test_float16_step_is_that_of_float32(tmp_path: Path) -> None:
    exact, scaled = _run(tmp_path / "a", "float32"), _run(tmp_path / "b", "float16")
    before = _values(exact.model.trainable_variables)
    for ours, theirs in zip(before, _values(scaled.model.trainable_variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    _step(exact)
    _step(scaled)

    for begun, ours, theirs in zip(
        before,
        _values(exact.model.trainable_variables),
        _values(scaled.model.trainable_variables),
        strict=True,
    ):
        change, other = ours - begun, theirs - begun
        assert np.linalg.norm(change) > 0 or np.linalg.norm(other) < 1e-5
        assert np.linalg.norm(change - other) <= 0.05 * np.linalg.norm(change) + 1e-5


def test_overflow_halves_the_scale_and_skips_the_step(tmp_path: Path) -> None:
    run = _run(tmp_path, "float16")
    assert isinstance(run.optimizer, keras.optimizers.LossScaleOptimizer)
    run.optimizer.dynamic_scale.assign(2.0**40)
    before = _values(run.model.trainable_variables)
    momenta = _values(run.optimizer.inner_optimizer.variables)

    _step(run)

    assert float(run.optimizer.dynamic_scale.numpy()) == 2.0**39
    for ours, theirs in zip(_values(run.model.trainable_variables), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    after = _values(run.optimizer.inner_optimizer.variables)
    for ours, theirs in zip(after, momenta, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    run.optimizer.dynamic_scale.assign(2.0**10)
    _step(run)

    assert float(run.optimizer.dynamic_scale.numpy()) == 2.0**10
    changed = zip(_values(run.model.trainable_variables), before, strict=True)
    assert any(not np.array_equal(ours, theirs) for ours, theirs in changed)


def test_float16_run_resumes_with_its_scale_and_its_weights_load_into_float32(
    tmp_path: Path,
) -> None:
    run = _run(tmp_path, "float16")
    run.optimizer.dynamic_scale.assign(2.0**7)
    run.fit()

    again = _run(tmp_path, "float16")

    assert float(again.optimizer.dynamic_scale.numpy()) == 2.0**7
    plain = tiny_net(2)
    plain.load_weights(tmp_path / "best.weights.h5")
    for ours, theirs in zip(_values(plain.variables), _values(run.model.variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)
