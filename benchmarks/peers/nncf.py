"""Quantises a model version's graph to 8-bit integers after its training, by NNCF."""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.protocol import serve


def make() -> dict[str, Callable[..., Any]]:
    """Import what is needed."""
    # Importing OpenVINO reports each start to its makers, unless this module cannot be imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import numpy as np
    import openvino as ov

    def quantise(model: str, outputs: list[str], photos: str, target: str) -> None:
        """Cut a SavedModel to some outputs, calibrate it on photos, and write it.

        Args:
            model: the version's directory.
            outputs: names of those to keep.
            photos: a `.npy` of uint8 RGB `[N, S, S, 3]`.
            target: the `.xml` to write.
        """
        full = ov.Core().read_model(model)
        results = [full.output(name).get_node() for name in outputs]
        # A clone, since what is cut off would still hang on the nodes that are kept.
        cut = ov.Model(results, full.get_parameters(), "int8").clone()
        index = np.full(1, -1, np.int32)
        samples = [
            {"image": photo[None], "class_index": index, "versus_index": index}
            for photo in np.load(photos)
        ]
        quantised = nncf.quantize(
            cut,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
        )
        ov.save_model(quantised, target, compress_to_fp16=False)

    return {"quantise": quantise}


if __name__ == "__main__":
    serve(make)
