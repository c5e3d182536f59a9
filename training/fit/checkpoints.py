"""Checkpoints on disk, each of them complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import tensorflow as tf

from training.errors import RunError

__all__ = ["Checkpoints", "writing"]

_DRAFT = "draft"
_NAME = "state"


class Checkpoints:
    """The numbered checkpoints of a run.

    A checkpoint is a directory that is written under another name and then renamed, so that a
    process killed at any moment leaves all of it or nothing. The newest two are kept.
    """

    def __init__(self, directory: Path, state: tf.train.Checkpoint) -> None:
        """Keep the checkpoints of `state` in `directory`, which need not exist."""
        self.directory = directory
        self._state = state

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            RunError: it cannot be written, as when the disk is full.
        """
        draft = self.directory / _DRAFT
        with writing(draft):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            self._state.write(str(draft / _NAME))
            older = self._numbers()
            draft.rename(self._path(older[-1] + 1 if older else 1))
            for number in older[:-1]:
                shutil.rmtree(self._path(number))

    def restore(self) -> datetime | None:
        """Restore the newest checkpoint.

        Returns:
            When it was saved, in local time; None where there is no checkpoint.

        Raises:
            RunError: it cannot be read.
        """
        numbers = self._numbers()
        if not numbers:
            return None
        path = self._path(numbers[-1])
        try:
            self._state.read(str(path / _NAME)).assert_existing_objects_matched()
        except Exception as error:  # TensorFlow raises a dozen kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            effect = "go on from the one before it" if numbers[1:] else "start the run anew"
            raise RunError(
                f"The checkpoint {path} cannot be read ({reason}). Remove it to {effect}."
            ) from error
        return datetime.fromtimestamp(path.stat().st_mtime)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06}"

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.directory.glob("[0-9]*"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a message: nothing up to the last checkpoint is lost.

    Raises:
        RunError: the block could not write.
    """
    try:
        yield
    except (OSError, tf.errors.OpError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"{path} cannot be written ({reason}). Is the disk full? Make room, then go on from "
            "the last checkpoint with --resume."
        ) from error
