"""The process that serves: its start, its signals, its end."""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from uvicorn.server import HANDLED_SIGNALS

from app import heap, logs
from app.connections import Connection
from app.edge import Edge
from app.errors import StartupError
from app.service import Service
from app.settings import Settings
from app.versions import Versions
from app.wording import setting_sentences

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(
    create_app: Callable[[Settings, Service], Starlette],
    log_context: Callable[[], Mapping[str, str]],
) -> None:
    """Serve until SIGTERM or SIGINT; a model that cannot be served ends in one line.

    The first of these signals ends the service when the requests in work are answered, the second
    at once. SIGHUP has the service look for another version of the model.

    Args:
        create_app: makes the application of settings and a service with its model loaded.
        log_context: what log records are to say of the request being handled.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _end_at_signals()
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit("\n".join(f"error: {line}" for line in setting_sentences(error)))
    logs.configure(settings.log_format, settings.log_level, log_context)
    if unknown := Settings.unknown(os.environ):
        log.warning("no such setting: %s", ", ".join(unknown))
    if problem := _cannot_listen(settings):  # before the model takes its time
        sys.exit(f"error: BREEDCAM_HOST, BREEDCAM_PORT: {problem}")
    heap.bound()
    try:
        service = Service.open(settings)
    except StartupError as error:
        sys.exit(f"error: {error}")
    # `Connection` says more of it.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "Invalid HTTP" not in str(record.msg)
    )
    edge = Edge(settings, service.metrics)
    service.admission.make_room = edge.make_room
    app = create_app(settings, service)
    edge.refusal = app.state.refusal
    server = _Server(
        _config(app, settings, edge), partial(_look_for_versions, app), service.begin_stop
    )
    server.run()
    if not server.started:
        sys.exit("error: the service did not start")


def _cannot_listen(settings: Settings) -> str | None:
    """Why the address cannot be had; None if it can."""
    try:
        infos = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in infos:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        return f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
    return None


def _config(app: Starlette, settings: Settings, edge: Edge) -> uvicorn.Config:
    return uvicorn.Config(
        cast(Any, app),
        host=settings.host,
        port=settings.port,
        http=cast(type[asyncio.Protocol], partial(Connection, edge)),
        ws="none",
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=cast(int, settings.keep_alive_s),  # uvicorn takes fractions too
        # A second over the deadline: what is late is answered 504 rather than cut off.
        timeout_graceful_shutdown=math.ceil(settings.deadline_s) + 1,
    )


def _look_for_versions(app: Starlette) -> None:
    versions: Versions | None = getattr(app.state, "versions", None)
    if versions is not None:  # None while it stops
        versions.look_now()


class _Server(uvicorn.Server):
    """uvicorn's server, with other signals."""

    def __init__(
        self,
        config: uvicorn.Config,
        hang_up: Callable[[], None],
        begin_stop: Callable[[], object],
    ) -> None:
        """Set it up.

        Args:
            config: uvicorn's.
            hang_up: called on the event loop at each SIGHUP.
            begin_stop: called at the first signal to stop, on the main thread.
        """
        super().__init__(config)
        self._hang_up = hang_up
        self._begin_stop = begin_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        heap.trim()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal ends the process."""
        self.should_exit = True
        self._begin_stop()
        _end_at_signals()


def _end_at_signals() -> None:
    """Let SIGTERM and SIGINT end the process: by their default effect, which no code can delay.

    The first process of a container has no default effect of signals, so it ends itself.
    """
    effect = _end if os.getpid() == 1 else signal.SIG_DFL
    for handled in HANDLED_SIGNALS:
        signal.signal(handled, effect)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
