"""Worker processes, which answer questions one at a time: a line of JSON there, a line back.

The peers' environments import this file too, so it uses the standard library alone.
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
    """A worker did not start, or has ended. The message gives the reason in one line."""


def serve(make: Callable[[], Handlers]) -> None:
    """The worker's side: answer questions until the input ends.

    Args:
        make: imports and loads what the worker needs, and returns a handler for each verb. Whatever
            it or its libraries print goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        handlers = make()
    except Exception as error:  # whatever a peer's import raises is reported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps({"failed": reason[:300]}), file=answers, flush=True)
        return
    print(json.dumps({"answer": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = handlers[question.pop("verb")](**question)
        print(json.dumps({"answer": answer}), file=answers, flush=True)


class Worker:
    """The asking side of a worker process."""

    def __init__(
        self, module: str, *arguments: str, python: Path | None = None, **environment: str
    ) -> None:
        """Start it and wait until it is ready.

        Args:
            module: module to run; it calls `serve`.
            arguments: its command line.
            python: interpreter, and so the packages, to run it with; default: this one.
            environment: variables to add to this process's environment.

        Raises:
            WorkerFailed: it did not start.
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
        """Return the worker; `with` ends its process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """Ask a question, and return the answer.

        Raises:
            WorkerFailed: the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End the process. What it wrote to standard error is dropped."""
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
