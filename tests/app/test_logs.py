"""Log records, as text and as JSON, alone and from a real process."""

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import logs
from app.logs import JSONFormatter, TextFormatter
from tests.app.observed import MARKER, PHOTO, TRACE_ID, Observed

BAR = "    | "

anything = st.text(st.characters(codec=None), max_size=60)
"""Line breaks of every kind, colours, marks of direction and lone surrogates included."""


def written(formatter: logging.Formatter, *args: Any, **kwargs: Any) -> str:
    """What a handler writes of a record, as bytes would hold it."""
    sink = io.BytesIO()
    handler = logging.StreamHandler(io.TextIOWrapper(sink, encoding="utf-8", write_through=True))
    handler.setFormatter(formatter)
    logger = logging.Logger("app.test")
    logger.addHandler(handler)
    logger.error(*args, **kwargs)
    return sink.getvalue().decode()


def failure(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@given(anything)
def test_a_text_record_is_one_line(message: str) -> None:
    line = written(TextFormatter(), "got %s", message)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR app\.test: got .*\n", line)
    assert line[:-1].isprintable()


def test_text_keeps_what_is_printable() -> None:
    line = written(TextFormatter(), "Hündin\n\x1b[31mred\u202e\ud800")
    assert line.endswith(r"app.test: Hündin\n\x1b[31mred\u202e\ud800" + "\n")


@given(anything)
def test_no_line_of_a_traceback_can_pass_for_a_record(message: str) -> None:
    first, *rest = written(TextFormatter(), "failed", exc_info=failure(message)).split("\n")
    assert first.endswith("ERROR app.test: failed")
    assert rest[-1] == ""
    assert rest[0] == f"{BAR}Traceback (most recent call last):"
    assert all(line.startswith(BAR) and line.isprintable() for line in rest[:-1])


@given(anything)
def test_a_json_record_is_one_line_of_ascii(message: str) -> None:
    text = written(JSONFormatter(), "%s", message, exc_info=failure(message))
    assert text.isascii()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    members = json.loads(text)
    assert members["message"] == message
    assert members["exception"] == "builtins.ValueError"
    assert members["traceback"].startswith("Traceback (most recent call last):\n")
    assert f"ValueError: {message}" in members["traceback"] or not message


def test_members_of_a_json_record() -> None:
    formatter = JSONFormatter(lambda: {"request_id": "mine", "trace_id": "0f"})
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    fields = {"status": 429, "duration_ms": 0.5, "other": Path("/x")}
    members = json.loads(written(formatter, "%d of %s", 3, "four", extra={"fields": fields}))
    moment = datetime.fromisoformat(members.pop("timestamp"))
    assert before <= moment <= datetime.now(UTC)
    assert members == {
        "level": "error",
        "logger": "app.test",
        "message": "3 of four",
        "request_id": "mine",
        "trace_id": "0f",
        "status": 429,
        "duration_ms": 0.5,
        "other": "/x",
    }


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`configure` changes the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    yield
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("style", ["text", "json"])
def test_everything_goes_the_same_way(style: Literal["text", "json"]) -> None:
    stream = io.StringIO()
    logs.configure(style, "warning", stream=stream)
    logging.getLogger("uvicorn.error").warning("from the server")
    logging.getLogger("uvicorn.error").info("too low")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("from a library", UserWarning, stacklevel=1)
    error = failure("nobody caught it")
    sys.excepthook(type(error), error, error.__traceback__)

    def fail() -> None:
        raise KeyError("in a thread")

    thread = threading.Thread(target=fail, name="decoder")
    thread.start()
    thread.join()
    text = stream.getvalue()
    assert "too low" not in text
    if style == "text":
        lines = [line for line in text.splitlines() if not line.startswith(BAR)]
        assert [line.split()[2:4] for line in lines] == [
            ["WARNING", "uvicorn.error:"],
            ["WARNING", "py.warnings:"],
            ["CRITICAL", "app.logs:"],
            ["CRITICAL", "app.logs:"],
        ]
        return
    records = [json.loads(line) for line in text.splitlines()]
    assert [(record["logger"], record["level"]) for record in records] == [
        ("uvicorn.error", "warning"),
        ("py.warnings", "warning"),
        ("app.logs", "critical"),
        ("app.logs", "critical"),
    ]
    assert "UserWarning: from a library" in records[1]["message"]
    assert "nobody caught it" in records[2]["traceback"]
    assert records[3]["message"] == "uncaught exception in thread decoder"
    assert records[3]["exception"] == "builtins.KeyError"


# -- a real process


def test_every_line_of_a_process_is_json(observed: Observed) -> None:
    assert observed.log.isascii()
    for record in observed.records:
        assert datetime.fromisoformat(record["timestamp"]).tzinfo == UTC
        assert record["level"] in ("info", "warning", "error")
    messages = [record["message"] for record in observed.records]
    assert any("BREEDCAM_UNHEARD_OF" in message for message in messages)
    assert any(record["logger"] == "uvicorn.error" for record in observed.records)


def test_no_photo_query_or_key_is_logged(observed: Observed) -> None:
    assert MARKER in PHOTO
    assert MARKER.decode() not in observed.log
    assert "secret" not in observed.log


def test_the_record_of_a_request(observed: Observed) -> None:
    access = {
        record["request_id"]: record
        for record in observed.records
        if record["logger"] == "app.access"
    }
    good = access["good"]
    measured = {"timestamp", "message", "duration_ms"}
    assert {name: good[name] for name in set(good) - measured} == {
        "logger": "app.access",
        "level": "info",
        "method": "POST",
        "path": "/gradcam",
        "route": "/gradcam",
        "status": 200,
        "client": "127.0.0.1",
        "bytes_in": len(PHOTO),
        "bytes_out": len(observed.good.content),
        "request_id": "good",
        "trace_id": TRACE_ID,
    }
    timings = observed.good.json()["timings_ms"]
    assert sum(timings.values()) < good["duration_ms"] < 60_000
    assert access["bad"]["error"] == "unknown-target"
    assert access["bad"]["status"] == observed.bad.status_code == 400
    assert access["bad"]["bytes_in"] > len(PHOTO)
    assert access["forged"]["path"] == "/a%20b%0A2099-01-01%20INFO%20forged%1B%5B31m"
    assert access["forged"]["route"] == "unmatched"
    assert access["boom"]["error"] == "internal-error"
    assert access["boom"]["status"] == observed.failed.status_code == 500


def test_the_record_of_an_exception(observed: Observed) -> None:
    [exception] = [record for record in observed.records if "traceback" in record]
    assert exception["request_id"] == "boom"
    assert exception["exception"] == "builtins.RuntimeError"
    assert "in boom\n" in exception["traceback"]
    assert 'RuntimeError: first line\n{"level": "forged"}' in exception["traceback"]
