"""Grad-CAM by Xplique."""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import keras_resnet
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """Its `GradCAM`, told the class that the network finds likeliest."""
    import numpy as np
    from xplique.attributions import GradCAM

    model = keras_resnet.load(sys.argv[1])
    image = keras_resnet.picture(sys.argv[1])
    target = np.eye(model.output_shape[-1], dtype=np.float32)[[int(np.argmax(model(image)))]]
    explainer = GradCAM(model, batch_size=1, conv_layer=keras_resnet.LAST)

    def gradcam() -> Any:
        return np.asarray(explainer(image, target))

    return {
        "explain": lambda count=1: timed(gradcam, count),
        "heatmap": lambda: gradcam().reshape(image.shape[1:3]).tolist(),
    }


if __name__ == "__main__":
    serve(make)
