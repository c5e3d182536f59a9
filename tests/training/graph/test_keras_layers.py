"""Keras layers as operations, by hand; `test_keras_reader` runs whole networks."""

import inspect

import keras
import numpy as np
import pytest

from training.errors import ExportError
from training.graph.keras_layers import is_identity, translate
from training.graph.keras_reader import from_keras
from training.graph.network import Operation


def test_dilated_kernel_has_zeros_between_its_taps() -> None:
    layer = keras.layers.Conv2D(1, (2, 3), dilation_rate=(3, 2), use_bias=False)
    layer.build((None, 8, 8, 1))
    layer.set_weights([np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1, 1)])

    [(operation, weights)] = translate(layer, [(None, 8, 8, 1)])

    assert operation == Operation("convolution")
    np.testing.assert_array_equal(
        weights["kernel"][:, :, 0, 0],
        [[1, 0, 2, 0, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [4, 0, 5, 0, 6]],
    )
    np.testing.assert_array_equal(weights["bias"], [0])


def test_batch_norm_is_a_scale_and_an_offset() -> None:
    layer = keras.layers.BatchNormalization(epsilon=0.25)
    layer.build((None, 4, 4, 1))
    # gamma, beta, mean, variance; the deviation is sqrt(3.75 + 0.25) = 2
    layer.set_weights([np.array([value]) for value in (4.0, 0.5, 3.0, 3.75)])

    [(operation, weights)] = translate(layer, [(None, 4, 4, 1)])

    assert operation == Operation("batch_norm")
    assert weights["scale"].item() == pytest.approx(4 / 2)
    assert weights["offset"].item() == pytest.approx(0.5 - 3 * 4 / 2)


def test_linear_activation_is_no_operation() -> None:
    assert translate(keras.layers.Activation("linear"), [(None, 3)]) == []


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LayerNormalization(name="odd"),
        keras.layers.Conv2D(2, 1, activation="mish", name="odd"),
        keras.layers.Conv2D(2, 3, groups=2, name="odd"),
        keras.layers.Conv2DTranspose(2, 3, name="odd"),
        keras.layers.BatchNormalization(axis=1, name="odd"),
        keras.layers.Dense(3, name="odd"),
        keras.layers.Softmax(name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_unsupported_layer_is_named(layer: keras.layers.Layer) -> None:
    image = keras.Input((8, 8, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(layer(image))
    model = keras.Model(image, keras.layers.Dense(2)(pooled))

    with pytest.raises(ExportError, match="'odd'"):
        from_keras(model)


AUGMENTATIONS: dict[str, dict[str, float]] = {
    "RandomCrop": {"height": 16, "width": 16},
    "CenterCrop": {"height": 16, "width": 16},
    "Resizing": {"height": 16, "width": 16},
    "RandomTranslation": {"height_factor": 0.5, "width_factor": 0.5},
    "RandomZoom": {"height_factor": 0.5},
    "RandomPosterization": {"factor": 4},
    "GaussianNoise": {"stddev": 1.0},
}
"""Arguments of layers whose first one is no `factor` or `rate`."""


def _made(name: str) -> keras.layers.Layer:
    kind = getattr(keras.layers, name)
    if name in AUGMENTATIONS:
        return kind(**AUGMENTATIONS[name])
    parameters = inspect.signature(kind.__init__).parameters.values()
    needed = [parameter for parameter in parameters if parameter.default is parameter.empty]
    return kind(*[0.5 for parameter in needed if parameter.name in ("factor", "rate")])


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in dir(keras.layers)
        if name.startswith("Random")
        or name in ("AugMix", "CenterCrop", "CutMix", "GaussianNoise", "MixUp", "RandAugment")
        or name in ("Equalization", "Resizing", "Solarization", "Dropout")
    ),
)
def test_augmentation_does_nothing_at_inference(name: str) -> None:
    """Each that this version of Keras has, in a pipeline too."""
    image = keras.Input((16, 16, 3))
    x = _made(name)(image)
    if is_identity(_made(name)):
        x = keras.layers.Pipeline([_made(name), keras.layers.Dropout(0.5)])(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3, name="head")(pooled))
    photos = np.random.default_rng(2).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    kernel, bias = model.get_layer("head").get_weights()

    network = from_keras(model)

    assert len(network.nodes) == 2
    expected = photos.mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(model(photos, training=False), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["CenterCrop", "RandomCrop", "Resizing"])
def test_layer_that_changes_the_size_is_named(name: str) -> None:
    image = keras.Input((20, 20, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(_made(name)(image))
    model = keras.Model(image, keras.layers.Dense(3)(pooled))

    with pytest.raises(ExportError, match=f"{name} to 16 x 16.*resizes photos itself"):
        from_keras(model)
