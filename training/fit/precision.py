"""The arithmetic of a training step, and what it requires of the model and the optimizer."""

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from app.engines import cpu_has_bfloat16, gpu_precision
from training.config import Precision

__all__ = ["Resolved", "choose", "mixed", "resolve", "scaled"]

Resolved = Literal["float32", "bfloat16", "float16"]


def resolve(
    wanted: Precision, capabilities: Sequence[tuple[int, int]], *, cpu_has_bfloat16: bool
) -> Resolved:
    """The arithmetic that `wanted` stands for on a machine.

    Args:
        wanted: as configured.
        capabilities: CUDA compute capability of each GPU; empty on a CPU.
        cpu_has_bfloat16: whether the CPU has instructions that multiply bfloat16.
    """
    if wanted != "auto":
        return wanted
    if not capabilities:
        return "bfloat16" if cpu_has_bfloat16 else "float32"
    return gpu_precision(min(capabilities))


def choose(wanted: Precision) -> Resolved:
    """The arithmetic that `wanted` stands for on this machine.

    Also sets TensorFlow's graph rewriting: on a CPU, oneDNN rewrites graphs to bfloat16, and the
    model stays as it is.
    """
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in gpus
    ]
    chosen = resolve(wanted, capabilities, cpu_has_bfloat16=cpu_has_bfloat16())
    tf.config.optimizer.set_experimental_options(
        {"auto_mixed_precision_onednn_bfloat16": not gpus and chosen == "bfloat16"}
    )
    return chosen


def mixed(model: keras.Model, precision: Resolved) -> keras.Model:
    """The model with its arithmetic in `precision`, where graph rewriting does not do that.

    Variables stay float32, and so do the final layer and batch norm's statistics, which Keras
    always computes in float32.

    Returns:
        A copy with the same names and weights, or the model itself if nothing changes.
    """
    on_cpu = not tf.config.list_physical_devices("GPU")
    if precision == "float32" or (precision == "bfloat16" and on_cpu):
        return model
    last = model.layers[-1].name

    def retyped(layer: keras.Layer) -> keras.Layer:
        policy = "float32" if layer.name == last else f"mixed_{precision}"
        return type(layer).from_config(layer.get_config() | {"dtype": policy})

    copy = keras.models.clone_model(model, clone_function=retyped)
    copy.set_weights(model.get_weights())
    return copy


def scaled(optimizer: keras.Optimizer, precision: Resolved) -> keras.Optimizer:
    """The optimizer, with dynamic loss scaling in float16.

    A step with gradients that are not finite is skipped, and the scale is halved. Micikevicius et
    al., Mixed Precision Training, 2018.
    """
    if precision != "float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
