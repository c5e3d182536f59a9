"""An engine without a model: a function of the photos gives its outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from app.engines import Cut
from app.schemas import EngineInfo

Array = npt.NDArray[Any]


class FakeEngine:
    on_gpu = False
    info = EngineInfo(name="openvino", version="0", device="none", precision="float32", warnings=[])

    def __init__(self, outputs: Callable[[npt.NDArray[np.uint8]], dict[str, Array]]) -> None:
        """`outputs` takes uint8 RGB `[N, S, S, 3]`, and returns the outputs of every cut."""
        self._outputs = outputs

    def warm_up(self, max_batch: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def run(
        self,
        cut: Cut,
        image: npt.NDArray[np.uint8],
        class_index: npt.NDArray[np.int32],
        versus_index: npt.NDArray[np.int32],
    ) -> dict[str, Array]:
        assert len(image) == len(class_index) == len(versus_index) <= 64
        return self._outputs(image)
