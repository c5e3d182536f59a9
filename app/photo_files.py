"""Which files in a folder are meant as photos."""

from pathlib import PurePath

from app import images

__all__ = ["PHOTO_SUFFIXES", "SYSTEM_FOLDERS", "is_photo"]

PHOTO_SUFFIXES = frozenset(
    (*images.SUFFIXES, ".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw")
)
"""Suffixes, in lower case, of files that are meant as photos, in a format that can be read or not.
"""

SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot"),  # QNAP
        *("$recycle.bin", "system volume information"),  # Windows
        *("__macosx", "lost+found", "lost.dir", "thumbnails"),
    )
)
"""Names (in lower case) of folders that programs make: thumbnails, deleted files, metadata."""


def is_photo(path: PurePath) -> bool:
    """Whether a file is meant as a photo, by its suffix."""
    return path.suffix.casefold() in PHOTO_SUFFIXES
