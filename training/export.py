"""A network and its explanations as one SavedModel with one full signature."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.bundle import Layer, ModelCard, checksums
from training import gradients, methods
from training.errors import ExportError
from training.network import Network

__all__ = ["ExplainedNetwork", "Projection", "channel_sum", "write"]

Tensor: TypeAlias = tf.Tensor

_CAFFE_MEANS = (103.939, 116.779, 123.68)
"""Of blue, green and red in ImageNet: `keras.applications.resnet50.preprocess_input`."""


@dataclass(frozen=True)
class Projection:
    """What `foreground` measures at a layer: `(descriptor - mean) . direction`.

    Attributes:
        direction: float32 `[C]`, of unit length.
        mean: float32 `[C]`, of the descriptors it was found on.
    """

    direction: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


def channel_sum(channels: int) -> Projection:
    """The projection to use where no training photos are at hand."""
    direction = np.full(channels, 1 / np.sqrt(channels), np.float32)
    return Projection(direction, np.zeros(channels, np.float32))


class ExplainedNetwork(tf.Module):  # type: ignore[misc]
    """A network with its explanations, ready to be saved.

    Kernels are stored as float16, everything else as float32; all arithmetic is float32.
    """

    def __init__(
        self,
        network: Network,
        *,
        input_size: int,
        layers: Sequence[str],
        projections: dict[str, Projection],
        kernel_dtype: tf.DType = tf.float16,
    ) -> None:
        """Take a network over.

        Args:
            network: takes what `keras.applications.resnet50.preprocess_input` makes.
            input_size: pixels of the square input.
            layers: names of the layers to expose, first to last; the last one is the last
                activation before the head.
            projections: of each of `layers`.
            kernel_dtype: how kernels are stored.
        """
        super().__init__()
        self.network = network
        self.input_size = input_size
        self.layers = tuple(layers)
        self._weights = {
            node.name: {
                name: tf.Variable(
                    value, dtype=kernel_dtype if name == "kernel" else tf.float32, trainable=False
                )
                for name, value in node.weights.items()
            }
            for node in network.nodes
        }
        self._projections = {
            layer: (
                tf.Variable(projections[layer].direction, trainable=False),
                tf.Variable(
                    np.float32(projections[layer].mean @ projections[layer].direction),
                    trainable=False,
                ),
            )
            for layer in layers
        }
        image = tf.TensorSpec((None, input_size, input_size, 3), tf.uint8, name="image")
        index = {
            name: tf.TensorSpec((None,), tf.int32, name=name)
            for name in ("class_index", "versus_index")
        }
        self.predict = tf.function(self._predict, input_signature=[image], autograph=False)
        self.serve = tf.function(
            self._serve,
            input_signature=[image, index["class_index"], index["versus_index"]],
            autograph=False,
        )

    @property
    def map_sizes(self) -> tuple[Layer, ...]:
        """The exposed layers with their maps' sizes."""
        outputs = self.serve.get_concrete_function().structured_outputs
        return tuple(
            Layer(
                name=layer,
                height=outputs[f"gradcam_{layer}"].shape[1],
                width=outputs[f"gradcam_{layer}"].shape[2],
            )
            for layer in self.layers
        )

    def _predict(self, image: Tensor) -> dict[str, Tensor]:
        values = gradients.run(self.network, self._weights, _preprocess(image))
        logits = values[self.network.nodes[-1].name]
        return {"logits": tf.identity(logits), "probabilities": tf.nn.softmax(logits)}

    def _serve(self, image: Tensor, class_index: Tensor, versus_index: Tensor) -> dict[str, Tensor]:
        values = gradients.run(self.network, self._weights, _preprocess(image))
        logits = values[self.network.nodes[-1].name]
        own = tf.argmax(logits, axis=-1, output_type=tf.int32)
        target = tf.where(class_index < 0, own, class_index)
        seed = _one_hot(target, self.network.classes) - _one_hot(versus_index, self.network.classes)
        slopes = gradients.run_backward(self.network, self._weights, values, seed, self.layers)

        outputs = {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "target_index": target,
        }
        last = self.layers[-1]
        for layer in self.layers:
            maps = self._maps(layer, values[layer], slopes[layer])
            outputs.update({f"{name}_{layer}": value for name, value in maps.items()})
        outputs.update(self._maps(last, values[last], slopes[last]))
        if self.network.gap_dense:
            head = self._weights[self.network.nodes[-1].name]["kernel"]
            weights = tf.linalg.matmul(seed, tf.cast(head, tf.float32), transpose_b=True)
            outputs["cam"] = methods.cam(values[last], weights)
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    def _maps(self, layer: str, A: Tensor, G: Tensor) -> dict[str, Tensor]:
        direction, offset = self._projections[layer]
        return {
            "gradcam": methods.gradcam(A, G),
            "gradcampp": methods.gradcampp(A, G),
            "layercam": methods.layercam(A, G),
            "hirescam": methods.hirescam(A, G),
            "foreground": methods.foreground(A, direction, offset),
        }


def _preprocess(image: Tensor) -> Tensor:
    return tf.cast(image, tf.float32)[..., ::-1] - tf.constant(_CAFFE_MEANS)


def _one_hot(index: Tensor, classes: int) -> Tensor:
    """float32 `[N, classes]`; a row of zeros for a negative index, on every engine alike."""
    return tf.cast(tf.equal(index[:, None], tf.range(classes)), tf.float32)


def write(
    explained: ExplainedNetwork, version_dir: Path, card: ModelCard, *, overwrite: bool = False
) -> ModelCard:
    """Save `explained` and its `model.json`; the directory appears whole or not at all.

    Args:
        explained: the network.
        version_dir: `models/<name>/<version>`.
        card: without layers and checksums, which are filled in here.
        overwrite: whether a version that is there already may be replaced.

    Returns:
        The card as written.

    Raises:
        ExportError: the version exists, or its directory does not match the card.
    """
    if (version_dir.parent.name, version_dir.name) != (card.name, str(card.version)):
        raise ExportError(f"{version_dir} is not the place of {card.name} version {card.version}.")
    if version_dir.exists() and not overwrite:
        raise ExportError(f"{version_dir} exists already: pass another --version or --overwrite.")
    draft = version_dir.with_name(f".{version_dir.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    tf.saved_model.save(
        explained,
        str(draft),
        signatures={"serving_default": explained.serve, "predict": explained.predict},
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    for empty in [path for path in draft.iterdir() if path.is_dir() and not any(path.iterdir())]:
        empty.rmdir()
    card = card.model_copy(update={"layers": explained.map_sizes, "checksums": checksums(draft)})
    card.write(draft)
    shutil.rmtree(version_dir, ignore_errors=True)
    draft.replace(version_dir)
    return card
