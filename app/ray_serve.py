"""The service on several machines: replicas of the same application under Ray Serve.

    serve run app.ray_serve:build
    serve deploy docs/ray/serve.yaml

Each replica is a process with a model, a batcher and decoders of its own, as `python -m app.main`
is one. `app.ray_proxy` is what stands between them and the clients.
"""

import math
import os

import ray
from fastapi import FastAPI
from ray import serve

from app import heap, logs
from app.main import create_app
from app.service import Service
from app.settings import Settings
from app.telemetry import log_context
from app.watchdog import end_process

__all__ = ["NAME", "build"]

NAME = "BreedCAM"
"""Of the deployment, by which a configuration file changes its options."""

HEALTH_S = 5.0
"""Seconds between two checks of a replica's health."""


class Replica:
    """What Ray Serve asks of a replica beside requests."""

    app: FastAPI

    async def check_health(self) -> None:
        """As `/livez`: Ray replaces a replica that fails this.

        Raises:
            EngineDown: the model hangs, or its thread has died.
        """
        service: Service | None = getattr(self.app.state, "service", None)
        if service is not None:
            service.check_alive()


def build(arguments: dict[str, str]) -> serve.Application:
    """The application for Ray Serve, whose options follow from the settings.

    Args:
        arguments: none; Ray wants a parameter.

    Returns:
        One deployment. A configuration file may change each of its options.
    """
    if arguments:
        raise ValueError("there are no arguments: settings are BREEDCAM_* variables")
    settings = Settings()
    deployment = serve.deployment(
        name=NAME,
        # Ray counts what the replica counts, so that a full replica is passed over for one that
        # is not. As many may wait in each proxy; one more is answered 429.
        max_ongoing_requests=settings.max_pending,
        max_queued_requests=settings.max_pending,
        backpressure_config={"status_code": 429},
        ray_actor_options={"num_cpus": 2},
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=settings.stuck_s,
        # What is late is answered 504 rather than cut off.
        graceful_shutdown_timeout_s=math.ceil(settings.deadline_s) + 2,
    )
    return deployment(serve.ingress(_application)(Replica)).bind()


def _application() -> FastAPI:
    """The application of one replica, in its process."""
    settings = replica_settings(Settings(), _cpus())
    logs.configure(settings.log_format, settings.log_level, log_context)
    heap.bound()
    return create_app(settings, end=end_process)


def replica_settings(settings: Settings, cpus: float) -> Settings:
    """The settings of a replica that Ray has given so many CPUs.

    Its threads are as many, unless a number is set. It serves no metrics: a request for them would
    get those of one replica or another.
    """
    threads = settings.threads or max(1, round(cpus))
    return settings.model_copy(update={"threads": threads, "metrics": False})


def _cpus() -> float:
    """The CPUs that Ray has set aside for this replica; without any, all of the machine."""
    assigned = ray.get_runtime_context().get_assigned_resources()
    return float(assigned.get("CPU", os.cpu_count() or 1))
