from pathlib import Path

import keras
import numpy as np
import pytest

from app.bundle import Architecture, Label
from tests.training.lite2_tensors import Arrays
from tests.training.pictures import dataset
from tests.training.small_networks import small_resnet
from training.config import Stage, TrainConfig
from training.data import labels
from training.errors import RunError, WeightsError
from training.fit import trainable
from training.fit.run import Run
from training.networks import imagenet

BREEDS = labels.read(labels.STANFORD_DOGS)


def _config(**values: object) -> TrainConfig:
    return TrainConfig.model_validate({"weights": "none", "precision": "float32", **values})


def _trainable(model: keras.Model) -> set[str]:
    return {variable.path.split("/")[0] for variable in model.trainable_variables}


def test_layers_before_the_first_one_to_train_are_frozen() -> None:
    model = small_resnet()

    trainable.freeze(model, _config(train_from="last"))

    names = _trainable(model)
    assert names
    assert all(name.startswith(("last", "predictions")) for name in names)


def test_batch_norm_can_be_frozen_everywhere() -> None:
    model = small_resnet()
    norms = {x.name for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}

    trainable.freeze(model, _config(freeze_batch_norm=True))

    assert norms
    assert not norms & _trainable(model)
    assert "stem" in _trainable(model)


def test_layer_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RunError, match="conv9"):
        trainable.freeze(small_resnet(), _config(train_from="conv9"))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimizer_follows_its_published_rule(name: str) -> None:
    """One step on a gradient of (3, -4), by hand."""
    variable = keras.Variable(np.array([1.0, 1.0], np.float32))
    optimizer = trainable.optimizer(
        _config(optimizer=name, learning_rate=0.1, momentum=0.9), "float32"
    )
    optimizer.build([variable])

    optimizer.apply([keras.ops.convert_to_tensor(np.array([3.0, -4.0], np.float32))], [variable])

    # SGD with Nesterov's momentum: rate * (1 + 0.9) * g. Adam's first step: rate * sign(g).
    expected = [1 - 0.57, 1 + 0.76] if name == "sgd" else [0.9, 1.1]
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-4)


def _head_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    kernel = rng.normal(0, 1, (2048, 1000)).astype(np.float32)
    bias = rng.normal(0, 1, 1000).astype(np.float32)
    np.savez(path, kernel=kernel, bias=bias)
    return kernel, bias


def test_head_starts_from_the_columns_of_its_breeds(tmp_path: Path) -> None:
    kernel, bias = _head_file(tmp_path / "head.npz")
    cat = Label(index=1, synset="n02123045", name="tabby")
    classes = (
        BREEDS[119].model_copy(update={"index": 0}),
        cat,
        Label(index=2, name=BREEDS[0].name.title()),  # a folder's class without its synset
    )

    model = trainable.build(_config(head=str(tmp_path / "head.npz")), classes)

    own_kernel, own_bias = model.layers[-1].get_weights()
    np.testing.assert_array_equal(own_kernel[:, [0, 2]], kernel[:, [275, 151]])
    np.testing.assert_array_equal(own_bias, [bias[275], 0, bias[151]])
    assert np.abs(own_kernel[:, 1]).max() < 0.5  # Glorot's, not a column of the file


def test_head_of_efficientnet_lite2_starts_from_its_weights_file(
    lite2_weights: Path, lite2_arrays: Arrays
) -> None:
    config = _config(architecture="efficientnet_lite2", head=str(lite2_weights))

    model = trainable.build(config, BREEDS)

    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_array_equal(kernel[:, 0], lite2_arrays["_fc.weight"][151])
    np.testing.assert_array_equal(bias, lite2_arrays["_fc.bias"][list(imagenet.COLUMNS)])


def test_every_breed_has_a_column_of_its_own() -> None:
    final = keras.layers.Dense(120)
    final.build((None, 2048))
    kernel = np.tile(np.arange(1000, dtype=np.float32), (2048, 1))

    matched = imagenet.start_head(final, kernel, np.arange(1000, dtype=np.float32), BREEDS)

    assert matched == 120
    np.testing.assert_array_equal(final.get_weights()[1], imagenet.COLUMNS)


def test_head_that_fits_no_class_is_refused(tmp_path: Path) -> None:
    _head_file(tmp_path / "head.npz")
    config = _config(head=str(tmp_path / "head.npz"))

    with pytest.raises(WeightsError, match="none of the classes"):
        trainable.build(config, dataset().labels)
    plain = config.model_copy(
        update={"architecture": Architecture.CUSTOM_CNN, "stages": (Stage(size=224, epochs=1),)}
    )
    with pytest.raises(WeightsError, match="custom_cnn has no weights of ImageNet"):
        trainable.build(plain, BREEDS)


@pytest.mark.slow
def test_frozen_layers_come_out_of_a_run_as_they_went_in(tmp_path: Path) -> None:
    config = _config(
        stages=(Stage(size=32, epochs=1),),
        input_size=32,
        batch_size=4,
        train_from="last",
        freeze_batch_norm=True,
        optimizer="adam",
        learning_rate=0.01,
    )
    before = {v.path: np.asarray(v) for v in small_resnet(classes=2).variables}
    run = Run(
        tmp_path,
        config,
        dataset(),
        build=lambda _config, classes: small_resnet(classes=len(classes)),
    )

    run.fit()

    moved = {
        v.path for v in run.model.variables if not np.array_equal(np.asarray(v), before[v.path])
    }
    assert moved
    assert all(path.startswith(("last", "predictions")) for path in moved)
    assert not any("_bn" in path for path in moved)
