"""ONNX Runtime, as the tests run it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from app.bundle import load
from app.engines import Batch, Cut, output_names
from training.export.onnx.file import INPUTS, IR_VERSION, OPSET, convert
from training.export.onnx.graph import Graph

__all__ = ["ONNXRuntime", "checked", "converted", "run"]

Arrays = dict[str, npt.NDArray[Any]]


def checked(graph: Graph) -> onnx.ModelProto:
    """The graph as a model, which ONNX's own checker accepts."""
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph.proto("test"), ir_version=IR_VERSION, opset_imports=opsets)
    onnx.checker.check_model(model, full_check=True)
    return model


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, feed: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """All outputs by name."""
    loaded = _session(model)
    names = [output.name for output in loaded.get_outputs()]
    wanted = [value.name for value in loaded.get_inputs()]
    return dict(zip(names, loaded.run(names, {name: feed[name] for name in wanted}), strict=True))


class ONNXRuntime:
    """What `convert` makes of a model version, with the `run` of an engine."""

    def __init__(self, version_dir: Path, precision: str) -> None:
        bundle = load(version_dir)
        self.info = SimpleNamespace(name="onnx", precision=precision)
        self.model = convert(bundle, float16=precision == "float16")
        self._card = bundle.card
        self._session = _session(self.model)

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        names = output_names(self._card, cut)
        feed = {name: getattr(batch, name) for name in INPUTS}
        return dict(zip(names, self._session.run(names, feed), strict=True))


@cache
def converted(version_dir: Path, precision: str = "float32") -> ONNXRuntime:
    """One for all tests: to convert a version takes seconds."""
    return ONNXRuntime(version_dir, precision)
