"""The project's directory, which must never hold photos."""

from pathlib import Path

__all__ = ["PROJECT", "in_project"]

PROJECT = Path(__file__).resolve().parent.parent
"""The directory that holds `training/`."""


def in_project(place: Path) -> bool:
    """Whether a path, existing or not, lies inside the project's directory."""
    return place.resolve().is_relative_to(PROJECT)
