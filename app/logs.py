"""How log records are written: as text for people, or as one JSON object a line.

Whatever a record holds, it adds no line that could be taken for another record: text escapes what
is not printable and indents tracebacks, JSON escapes all but ASCII.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

__all__ = ["JSONFormatter", "TextFormatter", "configure"]

log = logging.getLogger(__name__)

Context = Callable[[], Mapping[str, str]]
"""What is known of the request being handled: its id, and its trace's."""


class TextFormatter(logging.Formatter):
    """`time level logger: message`, then the traceback, indented."""

    def __init__(self) -> None:
        """Set the layout."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first line."""
        return _printable(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        """The traceback, each line after a bar: none can pass for a record."""
        return _indented(super().formatException(error))

    def formatStack(self, stack_info: str) -> str:
        """The stack, likewise."""
        return _indented(stack_info)


class JSONFormatter(logging.Formatter):
    """One JSON object in ASCII, without line breaks.

    It has `timestamp` (ISO 8601, UTC), `level`, `logger` and `message`; what is known of the
    request; the members of `fields`, a dictionary that a record may have; and for an exception its
    type as `exception` and its `traceback`.
    """

    def __init__(self, context: Context = dict) -> None:
        """Remember where to ask for the request."""
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        members: dict[str, Any] = {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind = record.exc_info[0]
            members["exception"] = f"{kind.__module__}.{kind.__qualname__}"
            members["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            members["stack"] = record.stack_info
        return json.dumps(members, default=str)


def configure(
    style: Literal["text", "json"], level: str, context: Context = dict, stream: Any = None
) -> None:
    """Write every logger's records in one way, warnings and uncaught exceptions included.

    Args:
        style: how.
        level: the least that is written.
        context: gives what JSON says of the request being handled.
        stream: where to; default: standard error.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter(context) if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        log.critical("uncaught exception", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread else "unknown"
        log.critical(
            "uncaught exception in thread %s",
            name,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _printable(text: str) -> str:
    """The text with what is not printable as escapes: line breaks, colours, marks of direction."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _indented(text: str) -> str:
    # Of line breaks, only `\n` is one in a log file; `splitlines` would know others.
    return "\n".join(f"    | {_printable(line)}" for line in text.split("\n"))
