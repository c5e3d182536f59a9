"""The CPU engine: OpenVINO reads the SavedModel itself, so TensorFlow is not needed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from app.bundle import Bundle
from app.engines.base import Arrays, Cut, LocalEngine, output_names, pad_rows
from app.errors import BundleError, EngineUnavailable
from app.schemas import EngineInfo

__all__ = ["OpenVINOEngine"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine(LocalEngine):
    """A model version on the CPU, cut to need from one graph."""

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int = 0) -> None:
        """Read the model; each cut is compiled at its first use.

        Args:
            bundle: the model version.
            precision: `auto` (bfloat16 where the CPU has it), `float32` or `bfloat16`.
            threads: 0 for one a core.

        Raises:
            BundleError: OpenVINO cannot read the SavedModel, or an output is missing.
            EngineUnavailable: the CPU lacks the precision.
        """
        super().__init__(bundle.card)
        self._core = ov.Core()
        has_bfloat16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "float16":
            raise EngineUnavailable("BREEDCAM_PRECISION=float16 is for GPUs.")
        if precision == "bfloat16" and not has_bfloat16:
            raise EngineUnavailable("BREEDCAM_PRECISION=bfloat16, and this CPU has no bfloat16.")
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16 else "float32"
        try:
            self._model = self._core.read_model(str(bundle.path))
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot read the SavedModel at {bundle.path}.") from error
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._requests: dict[Cut, ov.InferRequest] = {}
        self._precision = precision

    @property
    def info(self) -> EngineInfo:
        """See `Engine`."""
        return EngineInfo(
            name="openvino",
            version=ov.__version__.split("-")[0],
            device=str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            precision=self._precision,
            warnings=list(self._warnings),
        )

    def run(
        self,
        cut: Cut,
        image: npt.NDArray[np.uint8],
        class_index: npt.NDArray[np.int32],
        versus_index: npt.NDArray[np.int32],
    ) -> Arrays:
        """See `Engine`."""
        rows = len(image)
        if cut not in self._requests:
            self._requests[cut] = self._compile(cut)
        request = self._requests[cut]
        inputs = {"image": pad_rows(image)}
        if cut is not Cut.PREDICT:
            inputs["class_index"] = pad_rows(class_index)
            inputs["versus_index"] = pad_rows(versus_index)
        results = request.infer(inputs, share_inputs=True)
        return {name: results[name][:rows] for name in output_names(self._card, cut)}

    def close(self) -> None:
        """See `Engine`."""
        self._requests.clear()

    def _compile(self, cut: Cut) -> ov.InferRequest:
        """Cut the outputs out of a copy of the full graph and compile what is left."""
        full = self._model.clone()
        try:
            results = [full.output(name).get_node() for name in output_names(self._card, cut)]
        except RuntimeError as error:
            raise BundleError(f"The SavedModel lacks an output: {error}") from error
        kept = {"image"} if cut is Cut.PREDICT else {"image", "class_index", "versus_index"}
        parameters = [p for p in full.get_parameters() if p.output(0).any_name in kept]
        model = ov.Model(results, parameters, cut.value)
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()
