"""A model version's forward pass at any input size: CAM, and what the foreground reads."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov

from app.bundle import Bundle
from app.engines.openvino import CORE

__all__ = ["Forward"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class Forward:
    """The exported graph cut to what needs no backward pass, which holds its size fast."""

    def __init__(
        self, bundle: Bundle, layers: Sequence[str], size: int, *, precision: str, threads: int
    ) -> None:
        """Compile it.

        Args:
            bundle: the model version; its head is global average pooling and one Dense layer.
            layers: whose activations are wanted.
            size: pixels of the square input.
            precision: `float32` or `bfloat16`.
            threads: 0 for one a core.
        """
        graph = CORE.read_model(str(bundle.path))
        outputs = [graph.output("cam").get_node().input_value(0)]
        outputs += [_activations(graph, layer) for layer in layers]
        cut = ov.Model(outputs, graph.get_parameters(), "forward")
        cut.reshape(
            {
                each.output(0): [-1, size, size, 3] if each.output(0).any_name == "image" else [-1]
                for each in cut.get_parameters()
            }
        )
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
            labels: int32 `[N]`, the class that CAM is of.

        Returns:
            Raw CAM `[N, h, w]`, and activations `[N, h, w, C]` by layer.
        """
        none = np.full_like(labels, -1)
        found = self._compiled({"image": image, "class_index": labels, "versus_index": none})
        cam, *maps = (np.array(array) for array in found.values())
        # OpenVINO's convolutions have channels first.
        return cam, {
            layer: np.ascontiguousarray(np.moveaxis(array, 1, -1))
            for layer, array in zip(self._layers, maps, strict=True)
        }


def _activations(graph: ov.Model, layer: str) -> ov.Output:
    """What the convolution reads that projects a layer on the foreground's direction."""
    node = graph.output(f"foreground_{layer}").get_node()
    while node.get_type_name() != "Convolution":
        node = node.input_value(0).get_node()
    return node.input_value(0)
