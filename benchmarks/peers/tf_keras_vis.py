"""Grad-CAM by tf-keras-vis."""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import keras_resnet
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """Its `Gradcam`, told the class that the network finds likeliest."""
    import numpy as np
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    model = keras_resnet.load(sys.argv[1])
    image = keras_resnet.picture(sys.argv[1])
    score = CategoricalScore(int(np.argmax(model(image))))
    explainer = Gradcam(model, clone=False)

    def gradcam() -> Any:
        return explainer(
            score,
            image,
            penultimate_layer=keras_resnet.LAST,
            seek_penultimate_conv_layer=False,
        )[0]

    return {
        "explain": lambda count=1: timed(gradcam, count),
        "heatmap": lambda: np.asarray(gradcam()).tolist(),
    }


if __name__ == "__main__":
    serve(make)
