"""A network and its explanations in one graph, with the two signatures that are saved.

    serving_default   image uint8 [N, S, S, 3], class_index int32 [N], versus_index int32 [N]
                      -> logits, probabilities, target_index, maps, novelty
    predict           image -> logits, probabilities

`class_index` -1 stands for each row's top-1 class, `versus_index` -1 for none.
"""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from app.bundle import Layer
from training.errors import ExportError
from training.export.foreground import Projection
from training.export.novelty import Residual
from training.graph import gradients, methods
from training.graph.network import Network
from training.networks.preprocessing import Preprocessing

__all__ = ["ExplainedNetwork"]

Tensor: TypeAlias = tf.Tensor


class ExplainedNetwork(tf.Module):  # type: ignore[misc]
    """A network with its explanations, ready to be saved.

    Kernels are stored as float16, but for those that are to stay in float32, and everything else as
    float32; all arithmetic is float32.
    """

    def __init__(
        self,
        network: Network,
        *,
        input_size: int,
        layers: Sequence[str],
        projections: dict[str, Projection],
        residual: Residual | None = None,
        preprocessing: Preprocessing = Preprocessing.CAFFE,
        float32_kernels: Collection[str] = (),
    ) -> None:
        """Build the graph's variables and signatures.

        Args:
            network: takes what `preprocessing` returns.
            input_size: side of the square input in pixels, S.
            layers: names of the layers to expose, first to last; the last one is the last
                activation before the head.
            projections: of the foreground, for each of `layers`.
            residual: what `novelty` measures; None leaves that output out.
            preprocessing: what the network expects to be done to photos.
            float32_kernels: names of the nodes whose kernels are stored as float32; see
                `rounding.choose`.

        Raises:
            ExportError: the head is GAP + Dense, and the last layer is not what it pools.
        """
        super().__init__()
        if network.pooled not in (None, layers[-1]):
            raise ExportError(
                f"The last exposed layer must be {network.pooled!r}, which the head pools, not "
                f"{layers[-1]!r}."
            )
        self._preprocess, self.network = preprocessing.folded_into(network)
        self.layers = tuple(layers)
        self._weights = {
            node.name: {
                name: tf.Variable(
                    value,
                    dtype=tf.float16
                    if name == "kernel" and node.name not in float32_kernels
                    else tf.float32,
                    trainable=False,
                )
                for name, value in node.weights.items()
            }
            for node in self.network.nodes
        }
        self._projections = {layer: _variables(projections[layer]) for layer in layers}
        self._residual: tuple[tf.Variable, tf.Variable] | None = None
        if residual is not None:
            directions = tf.Variable(residual.directions, dtype=tf.float16, trainable=False)
            self._residual = directions, tf.Variable(residual.offset, trainable=False)
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
        """The exposed layers with the height and width of their maps."""
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
        values = gradients.run(self.network, self._weights, self._preprocess(image))
        logits = values[self.network.nodes[-1].name]
        return {"logits": tf.identity(logits), "probabilities": tf.nn.softmax(logits)}

    def _serve(self, image: Tensor, class_index: Tensor, versus_index: Tensor) -> dict[str, Tensor]:
        values = gradients.run(self.network, self._weights, self._preprocess(image))
        logits = values[self.network.nodes[-1].name]  # [N, classes]
        top1 = tf.argmax(logits, axis=-1, output_type=tf.int32)
        target = tf.where(class_index < 0, top1, class_index)
        # The gradient of logit[target] - logit[versus] at the logits: +1 and -1, else 0.
        classes = self.network.classes
        seed = _one_hot(target, classes) - _one_hot(versus_index, classes)  # [N, classes]
        slopes = gradients.run_backward(self.network, self._weights, values, seed, self.layers)

        outputs = {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "target_index": target,
        }
        for layer in self.layers[:-1]:
            maps = self._maps(layer, values[layer], slopes[layer])
            outputs.update({f"{name}_{layer}": value for name, value in maps.items()})
        # The last layer's maps have a short name too, `gradcam` beside `gradcam_<layer>`. CAM is
        # defined at this layer alone, and has only the short one.
        last = self.layers[-1]
        head = self._class_weights(seed) if self.network.gap_dense else None
        maps = self._maps(last, values[last], slopes[last], head)
        outputs.update(maps)
        outputs.update({f"{name}_{last}": value for name, value in maps.items() if name != "cam"})
        if self._residual is not None:
            features = values[self.network.nodes[-1].inputs[0]]
            directions, offset = self._residual
            outputs["novelty"] = methods.novelty(features, tf.cast(directions, tf.float32), offset)
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    def _class_weights(self, seed: Tensor) -> Tensor:
        """The Dense layer's weights for each row's target, less those for its `versus` class.

        `[N, classes] @ [C, classes]^T`, which is `[N, C]`.
        """
        kernel = self._weights[self.network.nodes[-1].name]["kernel"]
        return tf.linalg.matmul(seed, tf.cast(kernel, tf.float32), transpose_b=True)

    def _maps(
        self, layer: str, A: Tensor, G: Tensor, head: Tensor | None = None
    ) -> dict[str, Tensor]:
        direction, offset = self._projections[layer]
        return methods.maps(A, G, direction, offset, head)


def _variables(projection: Projection) -> tuple[tf.Variable, tf.Variable]:
    """A projection's direction and offset."""
    offset = tf.Variable(np.float32(projection.offset), trainable=False)
    return tf.Variable(projection.direction, trainable=False), offset


def _one_hot(index: Tensor, classes: int) -> Tensor:
    """float32 `[N, classes]`; a negative index gives a row of zeros, in every engine."""
    return tf.cast(tf.equal(tf.reshape(index, (-1, 1)), tf.range(classes)), tf.float32)
