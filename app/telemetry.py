"""What is recorded of each request: an id, and a line in the log."""

import logging
import re
import time
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["REQUEST_ID_HEADER", "RequestLog", "request_id"]

log = logging.getLogger("app.access")

REQUEST_ID_HEADER = "X-Request-ID"

_SAFE_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id() -> str:
    """The id of the request being handled; empty outside of one."""
    return _current.get()


class RequestLog:
    """ASGI middleware: gives each request an id (the client's, if it sent a sane one) and logs it.

    The id comes back in `X-Request-ID` and in every problem.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = offered if _SAFE_ID.fullmatch(offered) else uuid.uuid4().hex
        # Never reset: the handler of unforeseen errors, outside of here, reads the id too, and
        # each request has a context of its own.
        _current.set(identity)
        begun = time.monotonic()
        status = 500  # unless an answer starts

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            took = (time.monotonic() - begun) * 1000
            path = scope["path"].encode("unicode_escape").decode()  # no line of its own making
            log.info("%s %s %d %.1f ms %s", scope["method"], path, status, took, identity)
