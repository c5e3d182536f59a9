"""Small networks for the tests: ResNet50's operations, and those of other architectures."""

import keras
import numpy as np

LAYERS = ("early_out", "middle_out", "last_out")
"""Layers of `small_resnet` that are exposed."""

RESNET50_LAYERS = (
    "conv4_block4_out",
    "conv4_block5_out",
    "conv4_block6_out",
    "conv5_block1_out",
    "conv5_block2_out",
    "conv5_block3_out",
)
"""The last six residual blocks of ResNet50."""


def small_resnet(*, size: int = 32, classes: int = 5, seed: int = 0) -> keras.Model:
    """Convolutions with batch norm, strides, padding, pooling and residual sums; then GAP + Dense.

    Weights and batch norm statistics are random, so that each matters.
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


def tiny_net(classes: int, *, batch_norm: bool = True, dropout: float = 0) -> keras.Model:
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
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
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


def _randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with random values for the weights that start at 0 or 1, so that each matters."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _randomised(layer, seed + 1)
        elif isinstance(layer, keras.layers.BatchNormalization | keras.layers.PReLU):
            layer.set_weights([rng.uniform(0.3, 1.5, w.shape) for w in layer.get_weights()])
    return model


def _head(x: keras.KerasTensor, classes: int = 4) -> keras.KerasTensor:
    layers = keras.layers
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(6, activation="tanh", name="hidden")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return layers.Dense(classes, activation="softmax", name="head")(x)


def plain() -> keras.Model:
    """Max pooling, overlapping and not; fully connected layers; every kind of ReLU."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = image = keras.Input((26, 26, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="scale")(x)
    x = layers.Conv2D(6, 3, activation=layers.LeakyReLU(0.1), name="one")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool_one")(x)
    x = layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="two")(x)
    x = layers.PReLU(shared_axes=(1, 2), name="two_act")(x)
    x = layers.MaxPooling2D(2, name="pool_two")(x)
    x = layers.Conv2D(8, 2, name="three")(x)
    x = layers.ReLU(max_value=6.0, negative_slope=0.1, name="three_act")(x)
    x = layers.Cropping2D(((0, 1), (1, 0)), name="crop")(x)
    x = layers.Conv2D(8, 2, activation="elu", name="four")(x)
    return _randomised(keras.Model(image, _head(x)))


def mobile() -> keras.Model:
    """Depthwise and separable convolutions, gates, average pooling and a linear bottleneck."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    x = image = keras.Input((24, 24, 3), name="photo")
    x = layers.Normalization(mean=(120, 110, 100), variance=(900, 1600, 2500), name="norm")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = start = layers.Activation("silu", name="stem_act")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Activation("relu6", name="depthwise_act")(x)
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Reshape((1, 1, 16), name="square")(gate)
    gate = layers.Conv2D(16, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Add(name="sum")([x, start])
    x = layers.AveragePooling2D(3, strides=2, padding="same", name="average")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="hard_silu", name="separable")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dropout(0.2, name="drop")(x)
    return _randomised(keras.Model(image, layers.Dense(4, name="head")(x)))


def branched() -> keras.Model:
    """Branches joined by concatenation, and two global poolings at the end."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = image = keras.Input((20, 20, 3), name="photo")
    x = layers.Rescaling(1 / 255, name="scale")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    for number in (1, 2):
        left = layers.Conv2D(4, 1, activation="gelu", name=f"left{number}")(x)
        right = layers.MaxPooling2D(3, strides=1, padding="same", name=f"right_pool{number}")(x)
        right = layers.Conv2D(4, 3, padding="same", name=f"right_conv{number}")(right)
        right = layers.BatchNormalization(name=f"right_bn{number}")(right)
        right = layers.Activation("hard_sigmoid", name=f"right{number}")(right)
        x = layers.Concatenate(name=f"mixed{number}")([left, right])
        x = layers.AveragePooling2D(2, name=f"pool{number}")(x)
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    most = layers.GlobalMaxPooling2D(name="most")(x)
    x = layers.Concatenate(name="both")([mean, most])
    return _randomised(keras.Model(image, layers.Dense(4, name="head")(x)))


def nested() -> keras.Model:
    """A functional model inside a sequential one, with augmentation in front: a usual shape."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    backbone = small_resnet(size=32)
    backbone = keras.Model(backbone.input, backbone.get_layer("last_out").output, name="backbone")
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.RandomFlip("horizontal"),
            layers.Rescaling(1 / 127.5, offset=-1),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
            layers.Activation("softmax"),
        ]
    )


NETWORKS = {
    "plain": (plain, ("one", "two_act", "three_act", "four")),
    "mobile": (mobile, ("stem_act", "sum", "separable")),
    "branched": (branched, ("stem", "mixed1", "mixed2")),
    "nested": (nested, ("stem_relu", "early_out", "middle_out", "last_out")),
}
"""By name: a function that builds a network with operations that ResNet50 lacks, and the layers to
expose."""
