"""The networks that can be trained, and where their first weights come from."""

import keras

from app.bundle import Architecture
from training.errors import WeightsError

__all__ = ["RESNET50_LAYERS", "resnet50"]

RESNET50_LAYERS = (
    "conv4_block4_out",
    "conv4_block5_out",
    "conv4_block6_out",
    "conv5_block1_out",
    "conv5_block2_out",
    "conv5_block3_out",
)
"""The last six residual blocks: the layers whose maps are exported."""

_IMAGENET_NOTOP = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def resnet50(classes: int, weights: str = "none", *, input_size: int | None = None) -> keras.Model:
    """ResNet50 with global average pooling and one Dense layer.

    He et al., Deep Residual Learning for Image Recognition, 2015, as in `keras.applications`.

    Args:
        classes: units of the final layer.
        weights: `imagenet` (downloaded by Keras), `none`, or the path of a weights file with
            Keras's own layout without the top.
        input_size: pixels of the square input; None takes any size.

    Returns:
        A model from float32 `[N, h, w, 3]`, as `keras.applications.resnet50.preprocess_input`
        makes it, to float32 logits `[N, classes]`; its last activation is `conv5_block3_out`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
    """
    backbone = _backbone(weights, (input_size, input_size, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    logits = keras.layers.Dense(classes, name="predictions")(pooled)
    return keras.Model(backbone.input, logits, name=Architecture.RESNET50.value)


def _backbone(weights: str, shape: tuple[int | None, int | None, int]) -> keras.Model:
    if weights == "none":
        return keras.applications.ResNet50(weights=None, include_top=False, input_shape=shape)
    try:
        return keras.applications.ResNet50(weights=weights, include_top=False, input_shape=shape)
    except Exception as error:  # urllib, h5py and Keras each raise their own
        if weights == "imagenet":
            raise WeightsError(
                f"Keras's ImageNet weights could not be downloaded ({error}). Fetch "
                f"{_IMAGENET_NOTOP} on a machine that reaches it and put it in ~/.keras/models, "
                "or pass --weights FILE."
            ) from error
        raise WeightsError(
            f"{weights} holds no weights of a ResNet50 without its top: {error}"
        ) from error
