"""Exports a model version's weights to a file that peers read without TensorFlow."""

from pathlib import Path

import numpy as np

from app.bundle import Bundle

__all__ = ["write"]

_PREFIX, _SUFFIX = "_weights/", "/.ATTRIBUTES/VARIABLE_VALUE"


def write(bundle: Bundle, target: Path) -> None:
    """Write kernels and biases as float32, named `<layer>/kernel` and `<layer>/bias`.

    `input_size` holds the side of the square input in pixels.

    Args:
        bundle: the model version.
        target: the `.npz` file to write.
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(bundle.path / "variables" / "variables"))
    arrays = {
        name.removeprefix(_PREFIX).removesuffix(_SUFFIX): np.float32(reader.get_tensor(name))
        for name in reader.get_variable_to_shape_map()
        if name.startswith(_PREFIX)
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, allow_pickle=False, input_size=np.array(bundle.card.input.size), **arrays)
