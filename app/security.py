"""Who may ask, from where, and what browsers may do with the answers.

Each protection is ASGI middleware. Outermost first, in the order in which `protect` adds them:

    AnswerHeaders    `ANSWER`, on every answer
    Prefix           where a proxy puts a path before ours
    CORSMiddleware   where origins are named: preflights need no key
    Hosts            where hosts are named
    Keys             where there are keys: refused before the body is read

Refusals and unforeseen errors come from further in, so they have all headers too.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import openapi, problems
from app.errors import BreedCAMError, Unauthorized, UnknownHost
from app.settings import Settings

__all__ = ["ANSWER", "OPEN", "PAGE", "AnswerHeaders", "Hosts", "Keys", "Prefix", "docs", "protect"]

OPEN = ("/", "/static/*", "/docs", "/docs/*", "/openapi.json", "/livez", "/readyz")
"""What needs no key: the page, the documentation and the probes. Every other path does."""

PROBES = ("/livez", "/readyz")
"""What is answered whatever the `Host`: orchestrators probe by address."""

EXPOSED = (
    *(f"BreedCAM-{name}" for name in ("Target", "Probability", "Confidence", "Status", "Rule")),
    "BreedCAM-Box",
    "BreedCAM-IoU",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Headers of answers that scripts of other origins may read."""

ANSWER = {
    # Neither photos nor what was said of them stay in caches; the pages' files have rules of
    # their own.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer, unless it has another value of its own."""

_ANSWER = [(name.lower().encode(), value.encode()) for name, value in ANSWER.items()]

PAGE = {
    # It runs nothing and shows nothing that does not come from here or from its user's machine.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On pages for people, before `ANSWER`."""

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\\\[\]]+)(:\d*)?", re.ASCII)


def docs(html: bytes) -> dict[str, str]:
    """The headers of a page like `PAGE`'s that has these inline scripts, and no others."""
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in _SCRIPT.findall(html.decode())
    ]
    scripts = " ".join(["script-src 'self'", *(f"'sha256-{digest}'" for digest in digests)])
    policy = PAGE["Content-Security-Policy"]
    return PAGE | {"Content-Security-Policy": f"{policy}; {scripts}"}


def protect(app: FastAPI, settings: Settings) -> None:
    """Add what `settings` switch on, and the headers of every answer."""
    if settings.keys:
        app.add_middleware(Keys, keys=settings.keys)
        _declare(app, 401, OPEN, security=[{"key": []}])
    if "*" not in settings.trusted_hosts:
        app.add_middleware(Hosts, hosts=settings.trusted_hosts)
        _declare(app, 421, PROBES)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST", "PUT"),
            allow_headers=("Authorization", "X-Request-ID"),
            expose_headers=EXPOSED,
        )
    if settings.root_path:
        app.add_middleware(Prefix, root_path=settings.root_path)
    app.add_middleware(AnswerHeaders)


class Keys:
    """Answers 401 unless `Authorization: Bearer` has one of the keys, or the path is `OPEN`."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        """Wrap `app`."""
        self._app = app
        self._digests = [_digest(key.get_secret_value().encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before its body is read."""
        if scope["type"] == "http" and not _among(OPEN, _path(scope)):
            fields = Headers(scope=scope).getlist("authorization")
            if len(fields) > 1:
                error = Unauthorized("The request has more than one `Authorization` header.")
                await _refuse(error, scope, receive, send)
                return
            scheme, _, key = "".join(fields).partition(" ")
            if scheme.lower() != "bearer":
                error = Unauthorized("The service needs an API key: `Authorization: Bearer KEY`.")
                await _refuse(error, scope, receive, send)
                return
            if not self._knows(key.strip(" ")):
                error = Unauthorized("The service does not know this API key.")
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _knows(self, key: str) -> bool:
        """Whether it is one of the keys, in a time that depends on neither."""
        digest = _digest(key.encode("latin-1"))
        # A list, not a generator: all of them are compared.
        return any([hmac.compare_digest(digest, known) for known in self._digests])


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Hosts:
    """Answers 421 unless `Host` names one of the hosts, or the path is one of `PROBES`.

    Starlette's own answers in plain text and redirects to `www.`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        """Wrap `app`."""
        self._app = app
        self._names = {host for host in hosts if not host.startswith("*.")}
        self._endings = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not _among(PROBES, _path(scope)):
            match = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
            name = match[1].lower().rstrip(".") if match else ""
            if name not in self._names and not name.endswith(self._endings):
                error = UnknownHost("`Host` names no host that this service answers for.")
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


class AnswerHeaders:
    """Adds `ANSWER` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event stream."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                own = {name.lower() for name, _ in headers}
                headers += [field for field in _ANSWER if field[0] not in own]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Prefix:
    """Takes requests with a path prefix, and those from which a proxy has stripped it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """Wrap `app`; `root_path` starts with a slash and does not end with one."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its scope as ASGI wants it: the prefix in `path` and `root_path`."""
        if scope["type"] == "http":
            prefix, path = self._root_path, scope["path"]
            if path == prefix:  # the page's links are relative to the slash
                last = prefix.rpartition("/")[2]
                await RedirectResponse(f"{last}/", 308)(scope, receive, send)
                return
            scope["root_path"] = prefix
            if not path.startswith(f"{prefix}/"):
                scope["path"] = prefix + path
                scope["raw_path"] = prefix.encode() + scope.get("raw_path", b"")
        await self._app(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path as the routes see it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _among(patterns: Sequence[str], path: str) -> bool:
    """Whether the path is one of these, or begins with one that ends with `*`."""
    return path in patterns or any(
        path.startswith(pattern[:-1]) for pattern in patterns if pattern.endswith("*")
    )


async def _refuse(error: BreedCAMError, scope: Scope, receive: Receive, send: Send) -> None:
    await problems.answer(error)(scope, receive, send)


def _declare(app: FastAPI, status: int, exempt: Sequence[str], **members: Any) -> None:
    """Say in OpenAPI which operations are refused with a status, and what else they have."""

    def declare(document: dict[str, Any]) -> None:
        if "security" in members:
            scheme = {"type": "http", "scheme": "bearer"}
            document.setdefault("components", {})["securitySchemes"] = {"key": scheme}
        for path, operations in document["paths"].items():
            for operation in () if _among(exempt, path) else operations.values():
                operation.update(members)
                operation["responses"][str(status)] = openapi.refusals(status)[status]

    openapi.extend(app, declare)
