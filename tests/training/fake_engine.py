"""An engine without a model: a function of the photos gives its outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from app.engines import Batch, Cut, EngineInfo

Array = npt.NDArray[Any]


class FakeEngine:
    on_gpu = False
    info = EngineInfo(name="openvino", version="0", device="none", precision="float32", warnings=[])

    def __init__(self, outputs: Callable[[npt.NDArray[np.uint8]], dict[str, Array]]) -> None:
        """`outputs` takes uint8 RGB `[N, S, S, 3]`, and returns the outputs of every cut."""
        self._outputs = outputs

    def warm_up(self, max_batch: int) -> None:
        raise NotImplementedError

    def release_memory(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def run(self, cut: Cut, batch: Batch) -> dict[str, Array]:
        assert len(batch) == len(batch.class_index) == len(batch.versus_index) <= 64
        return self._outputs(batch.image)
