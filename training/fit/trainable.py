"""The network of a run before its first step: initial weights, frozen layers, optimizer."""

from collections.abc import Sequence

import keras
from tqdm import tqdm

from app.bundle import Label
from training.config import TrainConfig
from training.errors import RunError, WeightsError
from training.fit import precision
from training.networks import architectures, imagenet

__all__ = ["build", "freeze", "optimizer"]


def build(config: TrainConfig, labels: Sequence[Label]) -> keras.Model:
    """The configured architecture with its initial weights, from preprocessed photos to logits.

    Raises:
        WeightsError: the initial weights cannot be loaded.
    """
    any_size = architectures.takes_any_size(config.architecture)
    model = architectures.build(
        config.architecture, len(labels), config.weights, None if any_size else config.input_size
    )
    if config.head != "random":
        kernel, bias = architectures.imagenet_top(config.architecture, config.head)
        count = imagenet.start_head(model.layers[-1], kernel, bias, labels)
        if not count:
            raise WeightsError(
                f"--head {config.head} does not fit: none of the classes is an ImageNet breed."
            )
        tqdm.write(f"{count} of {len(labels)} classes start from ImageNet's final layer.")
    return model


def freeze(model: keras.Model, config: TrainConfig) -> None:
    """Freeze the layers before `train_from`, and batch norm if configured.

    A frozen batch norm keeps its statistics too, and normalises by them.

    Raises:
        RunError: no layer's name starts with `train_from`.
    """
    start = 0
    if config.train_from is not None:
        matches = [layer.name.startswith(config.train_from) for layer in model.layers]
        if not any(matches):
            raise RunError(f"--train-from {config.train_from}: the network has no such layer.")
        start = matches.index(True)
    for index, layer in enumerate(model.layers):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= start and not (is_norm and config.freeze_batch_norm)


def optimizer(config: TrainConfig, resolved: precision.Resolved) -> keras.Optimizer:
    """The configured optimizer; its rate is set before each step."""
    rate, momentum = config.learning_rate, config.momentum
    if config.optimizer == "adam":
        unscaled = keras.optimizers.Adam(rate, beta_1=momentum, beta_2=0.99)
    else:
        unscaled = keras.optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0)
    return precision.scaled(unscaled, resolved)
