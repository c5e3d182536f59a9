"""Every knob: its default, its bounds, and one line of help."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["MAX_OVERLAY_SIZE", "PROJECT", "Settings"]

MAX_OVERLAY_SIZE = 1024
"""Longest side of an overlay, pixels: no more of a photo is kept while it is in work."""

PROJECT = Path(__file__).resolve().parent.parent
"""Where relative model paths start: the directory that holds `app/`."""


class Settings(BaseSettings):
    """Read from the environment, each name with `BREEDCAM_` before it."""

    model_config = SettingsConfigDict(env_prefix="BREEDCAM_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    model: Path = Field(
        Path("models/dogs120"),
        description="`models/<name>` (its newest version) or `models/<name>/<version>`; a relative "
        "path starts at the project, not at the working directory",
    )
    engine: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto",
        description="`openvino`, `tensorflow`, or auto: TensorFlow where it and an NVIDIA GPU are "
        "found, else OpenVINO",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="`cpu`, `gpu` or auto; a GPU that is asked for and absent is a warning, and "
        "the CPU is used",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="`float32`, `bfloat16`, `float16` (GPUs only), or auto: bfloat16 where CPU or "
        "GPU has it, float16 on older GPUs with tensor cores, else float32",
    )
    threads: int = Field(0, ge=0, le=1024, description="inference threads; 0: one a core")
    max_bytes: int = Field(20_000_000, ge=1024, description="bytes of a request's body")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a photo, width x height")
    max_pending: int = Field(
        64, ge=1, le=100_000, description="requests in work at once; one more is answered 429"
    )
    max_batch: int = Field(8, ge=1, le=64, description="photos in one call of the model")
    max_pending_bytes: int = Field(
        256_000_000,
        ge=1024,
        description="bytes of the bodies that are being read or in work, and of the answers that "
        "are being sent",
    )
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="how long a batch waits for company; auto: 0 on a CPU, 3 on a GPU"
    )
    deadline_s: float = Field(
        30.0, gt=0, le=3600, description="from a request's arrival; past it the answer is 504"
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="open connections; one more takes the place of one that does nothing, or is "
        "answered 503",
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="for a request's header to arrive; past it the answer is 408",
    )
    read_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="in each such time, 1 kB a second of a body must arrive, or the answer is 408",
    )
    write_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="in each such time, a client must take 1 kB a second of its answer, or is "
        "disconnected",
    )
    keep_alive_s: float = Field(
        10.0, gt=0, le=3600, description="how long a connection may stay open between requests"
    )
    image_threads: int = Field(2, ge=1, le=64, description="threads that decode and draw")
    overlay_size: int = Field(
        512, ge=16, le=MAX_OVERLAY_SIZE, description="default longest side of the overlay, pixels"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )

    @classmethod
    def unknown(cls, environment: Iterable[str]) -> list[str]:
        """Variables that look like settings and are none: typing errors, most likely."""
        prefix = cls.model_config["env_prefix"]
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        return sorted(
            name
            for name in environment
            if name.upper().startswith(prefix) and name.upper() not in known
        )

    def batch_wait_s(self, *, on_gpu: bool) -> float:
        """`batch_wait_ms` in seconds, or what suits the device."""
        wait_ms = self.batch_wait_ms
        if wait_ms == "auto":
            wait_ms = 3.0 if on_gpu else 0.0
        return wait_ms / 1000

    @property
    def engine_options(self) -> dict[str, Any]:
        """The arguments of `engines.create`."""
        return self.model_dump(include={"engine", "device", "precision", "threads"})

    @property
    def model_path(self) -> Path:
        """`model`, absolute."""
        return PROJECT / self.model
