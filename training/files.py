"""Where files may go, and files that are whole or not there at all, whenever the process ends."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "MODEL_NAME",
    "PROJECT",
    "atomic_write",
    "in_project",
    "is_model_name",
    "replacement",
]

PROJECT = Path(__file__).resolve().parent.parent
"""The project's directory, which holds `training/` and must never hold photos."""


MODEL_NAME = "letters of a to z, digits, '.', '-' and '_', at most 64, the first a letter or digit"
"""What a model may be called: one directory below that of all models."""


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: see `MODEL_NAME`."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is not None


def in_project(path: Path) -> bool:
    """Whether a path, existing or not, lies inside the project's directory."""
    return path.resolve().is_relative_to(PROJECT)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file, or leave the one that is there as it was.

    Args:
        path: of the file, in a directory that exists.
        content: the whole of it; text is written as UTF-8, its line ends as they are.

    Raises:
        OSError: it cannot be written.
    """
    with replacement(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what is there takes the place of `path` at the end.

    It ends as `path` does, for libraries that choose a format by the suffix. After an exception it
    is removed, and `path` stays as it was.

    Raises:
        OSError: nothing was written, or it cannot be moved.
    """
    draft = path.with_name(f"draft.{path.name}")
    try:
        yield draft
        # On disk before the name points to it: a power cut would leave an empty file otherwise.
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
