"""The forward pass of a model version at any input size: CAM, and the foreground's features."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov

from app.bundle import Bundle
from app.engines.openvino import CORE

__all__ = ["Forward"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class Forward:
    """The exported graph without its backward pass, which is what ties it to one input size."""

    def __init__(
        self, bundle: Bundle, layers: Sequence[str], size: int, *, precision: str, threads: int
    ) -> None:
        """Compile it.

        Args:
            bundle: the model version; its head is global average pooling and one Dense layer.
            layers: the layers to return activations of; the model's last layer comes last.
            size: side of the square input in pixels.
            precision: `float32` or `bfloat16`.
            threads: 0: one for each core.
        """
        graph = CORE.read_model(str(bundle.path))
        last = bundle.card.layer_names[-1]
        if layers[-1] != last:
            raise ValueError(f"the last of the layers is not {last}")
        pooling, kernel = _head(graph)
        outputs = [
            kernel,
            pooling,
            *(_activations(graph, layer) for layer in layers if layer != last),
        ]
        [image] = [node for node in graph.get_parameters() if node.output(0).any_name == "image"]
        cut = ov.Model(outputs, [image], "forward")
        cut.reshape([-1, size, size, 3])
        options: dict[str, object] = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._layers = tuple(layers)
        self._compiled = CORE.compile_model(cut, "CPU", options)

    def run(
        self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
        """Run a batch.

        Args:
            image: uint8 RGB `[N, S, S, 3]`.
            labels: int32 `[N]`, the class to explain, 0 or more.

        Returns:
            Raw CAM `[N, h, w]`, and activations `[N, h, w, C]` by layer.
        """
        arrays = self._compiled({"image": image})
        kernel, *maps = (np.array(array) for array in arrays.values())
        # OpenVINO has channels first.
        last, *earlier = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in maps)
        cam = np.einsum("nhwc,cn->nhw", last, kernel[:, labels], optimize=True)
        return cam, dict(zip(self._layers, (*earlier, last), strict=True))


def _head(graph: ov.Model) -> tuple[ov.Output, ov.Output]:
    """The input of the global pooling, and the Dense layer's kernel."""
    dense = _before(graph.output("logits").get_node(), "MatMul")
    return _before(dense, "ReduceMean").input_value(0), dense.input_value(1)


def _activations(graph: ov.Model, layer: str) -> ov.Output:
    """The activations of a layer: the input of its projection on the foreground's direction."""
    node = _before(graph.output(f"foreground_{layer}").get_node(), "Convolution")
    return node.input_value(0)


def _before(node: ov.Node, kind: str) -> ov.Node:
    """The nearest node of a kind, going back along first inputs."""
    while node.get_type_name() != kind:
        node = node.input_value(0).get_node()
    return node
