"""The command line in a process of its own."""

import shlex
import subprocess
import sys
from pathlib import Path

from app.settings import PROJECT

__all__ = ["hint", "shell", "training"]

NOISE = ("absl::", "oneDNN", "cuInit", "WARNING:tensorflow", "retracing")
"""What no command shows of TensorFlow's log."""

LACKS_FLOAT16 = "oneDNN supports DT_HALF only"
"""Shown once, as an error, on a CPU that lacks float16; no level of the log is below it."""


def training(*arguments: str | Path) -> str:
    """Run a subcommand that has to succeed; returns its standard output."""
    words = [sys.executable, "-m", "training", *map(str, arguments)]
    return shell(shlex.join(words)).stdout


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line that has to succeed, as if pasted at the project's root; it must be quiet."""
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
    noise = [
        line
        for line in done.stderr.splitlines()
        if any(word in line for word in NOISE) and LACKS_FLOAT16 not in line
    ]
    assert noise == []
    return done


def hint(stderr: str) -> str:
    """The command that a subcommand's standard error names as the next one."""
    *_, last = (line for line in stderr.splitlines() if " -m training " in line)
    return last.strip()
