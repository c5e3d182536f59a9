"""Where files may go: never a photo into the repository."""

from pathlib import Path

__all__ = ["PROJECT", "in_project"]

PROJECT = Path(__file__).resolve().parent.parent
"""The directory that holds `training/`."""


def in_project(place: Path) -> bool:
    """Whether a file or directory, there or not yet, lies within the project's directory."""
    return place.resolve().is_relative_to(PROJECT)
