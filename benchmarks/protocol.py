"""A process for each thing that is measured, asked in turn: a line of JSON there, one back.

This file is read by the peers' Pythons too, so it needs the standard library alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["PROJECT", "Worker", "WorkerFailed", "serve"]

PROJECT = Path(__file__).resolve().parent.parent

Handlers = Mapping[str, Callable[..., Any]]


class WorkerFailed(Exception):
    """A worker did not start, or ended; the message says why in one line."""


def serve(make: Callable[[], Handlers]) -> None:
    """Answer questions until the input ends: the worker's side.

    Args:
        make: imports and loads what is needed, and gives the answers to each verb. What it prints,
            and what its libraries print, goes to the standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        handlers = make()
    except Exception as error:  # whatever a peer's import raises is the reason that is told
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps({"failed": reason[:300]}), file=answers, flush=True)
        return
    print(json.dumps({"answer": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = handlers[question.pop("verb")](**question)
        print(json.dumps({"answer": answer}), file=answers, flush=True)


class Worker:
    """A worker process, from the asking side."""

    def __init__(
        self, module: str, *arguments: str, python: Path | None = None, **environment: str
    ) -> None:
        """Start it and wait until it is ready.

        Args:
            module: what to run; it calls `serve`.
            arguments: of its command line.
            python: whose packages it sees; default: this one.
            environment: what it sees besides this process's environment.

        Raises:
            WorkerFailed: it did not get ready.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", module, *arguments],
            cwd=PROJECT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self._answer()
        except WorkerFailed:
            self.close()
            raise

    def __enter__(self) -> Self:
        """For `with`, which ends the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """The answer to a question.

        Raises:
            WorkerFailed: there is none, since the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End the process; what it wrote to the standard error is dropped."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # there is a question that nobody will read
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(self._last_words())
        message = json.loads(line)
        if "failed" in message:
            raise WorkerFailed(message["failed"])
        return message["answer"]

    def _last_words(self) -> str:
        self._process.wait(10)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with status {self._process.returncode}"
