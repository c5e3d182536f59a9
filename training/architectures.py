"""The networks that can be trained, and where their first weights come from."""

import keras

from app.bundle import Architecture
from training.errors import WeightsError

__all__ = ["resnet50"]

_IMAGENET_NOTOP = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def resnet50(classes: int, weights: str = "none") -> keras.Model:
    """ResNet50 with global average pooling and one Dense layer, for inputs of any size.

    He et al., Deep Residual Learning for Image Recognition, 2015, as in `keras.applications`.

    Args:
        classes: units of the final layer.
        weights: `imagenet` (downloaded by Keras), `none`, or the path of a weights file with
            Keras's own layout without the top.

    Returns:
        A model from float32 `[N, h, w, 3]`, as `keras.applications.resnet50.preprocess_input`
        makes it, to float32 logits `[N, classes]`; its last activation is `conv5_block3_out`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
    """
    backbone = _backbone(weights)
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    logits = keras.layers.Dense(classes, name="predictions")(pooled)
    return keras.Model(backbone.input, logits, name=Architecture.RESNET50.value)


def _backbone(weights: str) -> keras.Model:
    shape = (None, None, 3)
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
