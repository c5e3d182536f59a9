"""Checkpoints on disk: whole or absent, the newest wins."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from training.errors import RunError

__all__ = ["Checkpoints", "writing"]

_DRAFT = "draft"
_NAME = "state"


class Checkpoints:
    """The numbered checkpoints of a run.

    Each is a directory that is written under another name and then renamed, so that a process
    killed at any moment leaves either the whole of it or nothing. The newest two are kept.
    """

    def __init__(self, directory: Path, state: tf.train.Checkpoint) -> None:
        """Look after the checkpoints of `state` in `directory`, which need not exist."""
        self.directory = directory
        self._state = state

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            RunError: it cannot be written, for want of room for one.
        """
        draft = self.directory / _DRAFT
        with writing(draft):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            self._state.write(str(draft / _NAME))
            before = self._numbers()
            draft.rename(self._place(before[-1] + 1 if before else 1))
            for number in before[:-1]:
                shutil.rmtree(self._place(number))

    def restore(self) -> bool:
        """Restore the newest checkpoint.

        Returns:
            Whether there was one.

        Raises:
            RunError: it cannot be read.
        """
        numbers = self._numbers()
        if not numbers:
            return False
        place = self._place(numbers[-1])
        try:
            self._state.read(str(place / _NAME)).assert_existing_objects_matched()
        except Exception as error:  # TensorFlow raises a dozen kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            after = "go on from the one before it" if numbers[1:] else "start the run anew"
            raise RunError(
                f"The checkpoint {place} cannot be read ({reason}). Remove it to {after}."
            ) from error
        return True

    def _place(self, number: int) -> Path:
        return self.directory / f"{number:06}"

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.directory.glob("[0-9]*"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell the user where writing failed, and that nothing is lost by it.

    Raises:
        RunError: what was done inside could not write.
    """
    try:
        yield
    except (OSError, tf.errors.OpError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"{path} cannot be written ({reason}). Is the disk full? Make room, then go on from "
            "the last checkpoint with --resume."
        ) from error
