"""Engines run a model version; which one is used follows from what the machine has."""

import importlib.util
import logging
import sys
from pathlib import Path

from app.bundle import Bundle
from app.engines.base import (
    BATCH_SIZES,
    Batch,
    Cut,
    Engine,
    EngineInfo,
    cpu_flags,
    cpu_has_bfloat16,
    cpu_has_int8,
    gpu_precision,
    layer_output,
    output_names,
    usable_cores,
)
from app.errors import EngineUnavailable

__all__ = [
    "BATCH_SIZES",
    "Batch",
    "Cut",
    "Engine",
    "EngineInfo",
    "EngineUnavailable",
    "cpu_flags",
    "cpu_has_bfloat16",
    "cpu_has_int8",
    "create",
    "gpu_precision",
    "layer_output",
    "output_names",
    "usable_cores",
]

log = logging.getLogger(__name__)

# Importing OpenVINO reports each start to its makers, unless this module cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def create(
    bundle: Bundle,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> Engine:
    """Load a model version on the requested engine, or the one that suits the machine.

    Args:
        bundle: the model version.
        engine: `openvino`, `tensorflow`, or `auto`: TensorFlow where it and an NVIDIA GPU are
            found, else OpenVINO.
        device: `auto`, `cpu` or `gpu`; a GPU that is absent is a warning.
        precision: `float32`, `bfloat16`, `float16` (GPUs only), `int8` (CPUs only, where the
            version has such a graph), `float` or `auto`. `float` is bfloat16 where CPU or GPU has
            it, float16 on older GPUs with tensor cores, else float32; and float32 where the model
            does not bear that (`ModelCard.precision`). `auto` is int8 where the version has it and
            the CPU is fast at it, else `float`.
        threads: 0 for one a core.

    Raises:
        EngineUnavailable: the engine, or the precision, is not available here.
    """
    warnings = []
    if _wants_tensorflow(engine, device):
        from app.engines.tensorflow import TensorFlowEngine, finds_gpu

        if engine == "tensorflow" or finds_gpu():
            return TensorFlowEngine(bundle, device=device, precision=precision, threads=threads)
        warnings.append("There is an NVIDIA GPU, and TensorFlow as installed cannot use it.")
    if importlib.util.find_spec("openvino") is None:
        raise EngineUnavailable("OpenVINO is not installed.")
    from app.engines.openvino import OpenVINOEngine

    chosen = OpenVINOEngine(bundle, precision=precision, threads=threads)
    if device == "gpu":
        warnings.append("A GPU was requested and none is used: OpenVINO runs on the CPU here.")
    for warning in warnings:
        chosen.warn(warning)
    return chosen


def _wants_tensorflow(engine: str, device: str) -> bool:
    installed = importlib.util.find_spec("tensorflow") is not None
    if engine == "tensorflow":
        if not installed:
            raise EngineUnavailable(
                "BREEDCAM_ENGINE=tensorflow, and TensorFlow is not installed: run "
                "`make .venv/.train`, or pip install -r requirements/gpu.txt for an NVIDIA GPU."
            )
        return True
    return engine == "auto" and device != "cpu" and installed and _has_nvidia_gpu()


def _has_nvidia_gpu() -> bool:
    """Look without importing TensorFlow, which takes seconds."""
    return Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
