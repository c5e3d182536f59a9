"""What to run next, as commands that work where they are pasted."""

import shlex
import sys
from pathlib import Path

from training.config import TrainConfig

__all__ = ["command", "photo_options"]


def command(*arguments: str | Path) -> str:
    """A command of this package, quoted for a shell, by the Python that runs now.

    Args:
        arguments: the subcommand and its options.
    """
    words = [sys.executable, "-m", "training", *arguments]
    return shlex.join(map(_near, words))


def photo_options(config: TrainConfig) -> list[str | Path]:
    """The options that name a run's photos to `calibrate` and `evaluate`; defaults are left out."""
    options: list[str | Path] = []
    for name in ("source", "data_dir", "boxes"):
        value = getattr(config, name)
        if value != TrainConfig.model_fields[name].default:
            options += [f"--{name.replace('_', '-')}", value]
    return options


def _near(word: str | Path) -> str:
    """An absolute path below the working directory from there, anything else as it is.

    A program in that directory itself stays absolute: a shell would look for its name in PATH.
    """
    here = Path.cwd()
    return str(Path(word).relative_to(here)) if here in Path(word).parents[1:] else str(word)
