"""Commands to run next, ready to be pasted into a shell."""

import shlex
import sys
from pathlib import Path
from typing import Protocol

from training.config import Source, TrainConfig

__all__ = ["PhotoPlace", "command", "photo_options"]


class PhotoPlace(Protocol):
    """Where photos are, with the names and defaults of `TrainConfig`."""

    @property
    def source(self) -> Source:
        """Stanford Dogs, or a folder."""

    @property
    def data_dir(self) -> Path | None:
        """The folder, or a prepared TFDS directory."""

    @property
    def boxes(self) -> Path | None:
        """Boxes of a folder's photos."""


def command(*arguments: str | Path) -> str:
    """A command of this package, quoted for a shell, with the Python that runs now.

    Args:
        arguments: the subcommand and its options.
    """
    words = [sys.executable, "-m", "training", *arguments]
    return shlex.join(map(_relative, words))


def photo_options(place: PhotoPlace) -> list[str | Path]:
    """The options that name photos to `calibrate` and `evaluate`; defaults are left out."""
    options: list[str | Path] = []
    for name in ("source", "data_dir", "boxes"):
        value = getattr(place, name)
        if value != TrainConfig.model_fields[name].default:
            options += [f"--{name.replace('_', '-')}", value]
    return options


def _relative(word: str | Path) -> str:
    """An absolute path below the working directory as a relative one, any other word unchanged.

    A program in that directory itself stays absolute: a shell would look for its name in PATH.
    """
    here = Path.cwd()
    return str(Path(word).relative_to(here)) if here in Path(word).parents[1:] else str(word)
