"""Grad-CAM as keras.io's example has it."""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import keras_resnet
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """The recipe, which builds a model at each call, and the same with one built before."""
    import keras
    import tensorflow as tf

    model = keras_resnet.load(sys.argv[1])
    image = keras_resnet.picture(sys.argv[1])

    def two_headed() -> Any:
        return keras.Model(model.inputs, [model.get_layer(keras_resnet.LAST).output, model.output])

    built = two_headed()

    def gradcam(grad_model: Any) -> Any:
        with tf.GradientTape() as tape:
            maps, logits = grad_model(image)
            score = logits[:, tf.argmax(logits[0])]
        gradients = tape.gradient(score, maps)
        pooled = tf.reduce_mean(gradients, axis=(0, 1, 2))
        heatmap = tf.squeeze(maps[0] @ pooled[..., tf.newaxis])
        return (tf.maximum(heatmap, 0) / tf.math.reduce_max(heatmap)).numpy()

    return {
        "explain": lambda count=1: timed(lambda: gradcam(two_headed()), count),
        "explain_built": lambda count=1: timed(lambda: gradcam(built), count),
        "heatmap": lambda: gradcam(built).tolist(),
    }


if __name__ == "__main__":
    serve(make)
