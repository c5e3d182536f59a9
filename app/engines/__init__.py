"""Engines run a model version; which one is used follows from what the machine has."""

import importlib.util
import logging
from pathlib import Path

from app.bundle import Bundle
from app.engines.base import BATCH_SIZES, Cut, Engine, layer_output, output_names
from app.errors import EngineUnavailable
from app.settings import Settings

__all__ = ["BATCH_SIZES", "Cut", "Engine", "create", "layer_output", "output_names"]

log = logging.getLogger(__name__)


def create(bundle: Bundle, settings: Settings) -> Engine:
    """Load a model version on the engine that the settings and the machine call for.

    Raises:
        EngineUnavailable: the engine, or the precision, is not to be had here.
    """
    if _wants_tensorflow(settings):
        from app.engines.tensorflow import TensorFlowEngine

        return TensorFlowEngine(
            bundle, device=settings.device, precision=settings.precision, threads=settings.threads
        )
    if importlib.util.find_spec("openvino") is None:
        raise EngineUnavailable("OpenVINO is not installed.")
    from app.engines.openvino import OpenVINOEngine

    engine = OpenVINOEngine(bundle, precision=settings.precision, threads=settings.threads)
    if settings.device == "gpu":
        engine.warn("A GPU was asked for and none is used: OpenVINO runs on the CPU here.")
    return engine


def _wants_tensorflow(settings: Settings) -> bool:
    installed = importlib.util.find_spec("tensorflow") is not None
    if settings.engine == "tensorflow":
        if not installed:
            raise EngineUnavailable(
                "BREEDCAM_ENGINE=tensorflow, and TensorFlow is not installed: "
                "pip install 'breedcam[train]' or 'breedcam[gpu]'."
            )
        return True
    return (
        settings.engine == "auto" and settings.device != "cpu" and installed and _has_nvidia_gpu()
    )


def _has_nvidia_gpu() -> bool:
    """Look without importing TensorFlow, which takes seconds."""
    return Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
