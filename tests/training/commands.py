"""The command line in a process of its own."""

import shlex
import subprocess
import sys
from pathlib import Path

from app.settings import PROJECT

__all__ = ["hint", "shell", "training"]


def training(*arguments: str | Path) -> str:
    """Run a subcommand that has to succeed; returns its standard output."""
    words = [sys.executable, "-m", "training", *map(str, arguments)]
    return shell(shlex.join(words)).stdout


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line that has to succeed, as if pasted into a shell at the project's root."""
    done = subprocess.run(
        f"exec {line}",  # `exec` replaces the shell, so that a timeout kills the command itself
        shell=True,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def hint(errors: str) -> str:
    """The next command to run, as a subcommand's standard error suggests it."""
    *_, last = (line for line in errors.splitlines() if " -m training " in line)
    return last.strip()
