"""Runs of `python -m app.batch` as processes, and what is in their output folders."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import needs
from tests.app.conftest import encode, picture
from tests.app.services import LONG, environment

SETTINGS = {"engine": "openvino", "device": "cpu", "max_batch": 1}
"""Of runs by the command: quick to start."""

ENDING = """
import itertools, os, signal
from app.batch import output
from app.batch.cli import main

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells do with a script's background jobs
calls, real = itertools.count(1), os.fsync  # threads call it at once

def fsync(file):
    if next(calls) == {call}:
        os.kill(os.getpid(), signal.{signal})
    real(file)

output.os.fsync = fsync
main()
"""
"""Ends itself in mid-write. A file takes two calls: with its draft, and with its folder."""


def write_photos(folder: Path, count: int, size: tuple[int, int] = (160, 120)) -> list[str]:
    """Photos in two folders; returns their ids in order."""
    names = [f"{'ab'[number % 2]}/{number:04}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(*size, seed=number)))
    return sorted(names)


def write_dogs(folder: Path, count: int) -> list[str]:
    """Photos of Stanford Dogs, as they are; returns their ids in order."""
    prepared = needs.shared("tfds120")
    import tensorflow_datasets as tfds

    builder = tfds.builder("stanford_dogs", data_dir=prepared)
    encoded = {"image": tfds.decode.SkipDecoding()}
    records = builder.as_dataset(split=f"train[:{count}]", decoders=encoded)
    names = [f"{number % 8}/{number:04}.jpg" for number in range(count)]
    for name, record in zip(names, tfds.as_numpy(records), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record["image"])
    return sorted(names)


def start(
    *arguments: object,
    code: Sequence[str] = ("-m", "app.batch"),
    cwd: Path | None = None,
    **settings: object,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *code, *map(str, arguments)],
        cwd=cwd,
        env=environment(**{**SETTINGS, **settings}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, **options: Any) -> tuple[int, str]:
    """Exit status and standard error, of a run that ends by itself."""
    process = start(*arguments, **options)
    _, errors = process.communicate(timeout=2 * LONG)
    return process.returncode, errors


@contextmanager
def running(*arguments: object, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    process = start(*arguments, **settings)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LONG)


def wait_for_parts(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many parts are there; only pytest's own limit bounds how long that may take."""
    while len(list(out.glob("part-*"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows, by the standard library alone."""
    texts = [path.read_text() for path in sorted(out.glob("part-*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.split("\n") if line]


def check_alike(first: list[dict[str, Any]], second: list[dict[str, Any]], most: float) -> None:
    """The same photos with the same answers; a batch's size changes probabilities a little."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("id", "image_id", "image", "problem"):
            assert one[name] == other[name]
        if one["problem"] is None:
            difference = one["target"]["probability"] - other["target"]["probability"]
            assert abs(difference) <= most
