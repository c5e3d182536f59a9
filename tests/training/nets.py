"""Small networks that the tests build: the operations of ResNet50 at a size a test can afford."""

import keras
import numpy as np

LAYERS = ("early_out", "middle_out", "last_out")


def small_resnet(*, size: int = 32, classes: int = 5, seed: int = 0) -> keras.Model:
    """Convolutions with batch norm, strides, padding, pooling and residual sums; then GAP + Dense.

    Weights and batch norm's statistics are random, so that nothing cancels.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((size, size, 3), name="image_input")
    x = layers.ZeroPadding2D(((3, 3), (3, 3)), name="pad")(image)
    x = layers.Conv2D(8, 7, strides=2, name="stem")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name="stem_bn")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    x = layers.ZeroPadding2D(((1, 1), (1, 1)), name="pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    x = _block(x, 8, stride=1, name="early")
    x = _block(x, 16, stride=2, name="middle")
    x = _block(x, 16, stride=1, name="last")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(image, layers.Dense(classes, name="predictions")(x))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, gamma.shape),
                    rng.normal(0, 0.3, beta.shape),
                    rng.normal(0, 1, mean.shape),
                    rng.uniform(0.5, 2, variance.shape),
                ]
            )
    return model


def tiny_net(classes: int, *, batch_norm: bool = True) -> keras.Model:
    """Two convolutions, GAP and Dense, for inputs of any size: trained in seconds."""
    layers = keras.layers
    image = keras.Input((None, None, 3), name="image_input")
    x = layers.Rescaling(1 / 64, name="rescaling")(image)
    x = layers.Conv2D(8, 3, strides=2, name="stem")(x)
    if batch_norm:
        x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="last_out")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(image, layers.Dense(classes, name="predictions")(x))


def _block(x: keras.KerasTensor, filters: int, *, stride: int, name: str) -> keras.KerasTensor:
    """Keras's ResNet50 bottleneck: 1x1 with the stride, 3x3 `same`, 1x1, and a projection."""
    layers = keras.layers
    shortcut = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_0_conv")(x)
    shortcut = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_0_bn")(shortcut)
    x = layers.Conv2D(filters // 2, 1, strides=stride, name=f"{name}_1_conv")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_1_bn")(x)
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = layers.Conv2D(filters // 2, 3, padding="same", name=f"{name}_2_conv")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_2_bn")(x)
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_3_conv")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_3_bn")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)
