"""The command line in a process of its own."""

import subprocess
import sys
from pathlib import Path

from app.settings import PROJECT

__all__ = ["training"]


def training(*arguments: str | Path) -> str:
    """Run a subcommand that has to succeed; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
