"""The folders and files that a user put into a folder, without those that programs leave there."""

import os
import stat
from pathlib import Path

from app.photo_files import SYSTEM_FOLDERS, is_photo
from training.data.skipped import Skipped

__all__ = ["Tree"]

_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))


class Tree:
    """What lies below a folder. Hidden files and folders (`.name`) do not count.

    Links are followed. What cannot be opened, and folders that programs make, are reported.
    """

    def __init__(self, root: Path, skipped: Skipped) -> None:
        """A tree below `root`; `skipped` collects what is left out."""
        self._root = root
        self._skipped = skipped

    def name(self, path: Path) -> str:
        """A path's name in messages: relative to the root, in POSIX form."""
        return path.relative_to(self._root).as_posix()

    def children(self, directory: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the files in a folder, each sorted by name."""
        folders: list[Path] = []
        files: list[Path] = []
        try:
            paths = sorted(path for path in directory.iterdir() if path.name[0] != ".")
        except OSError as error:
            self._skipped.add("folder", self.name(directory), _unreadable(error))
            return folders, files
        for path in paths:
            try:
                mode = path.stat().st_mode
            except OSError as error:  # also a link to nothing, or to itself
                kind = "photo" if is_photo(path) else "file"
                self._skipped.add(kind, self.name(path), _unreadable(error))
                continue
            if stat.S_ISDIR(mode):
                if path.name.casefold() in SYSTEM_FOLDERS:
                    self._skipped.add("folder", self.name(path), "thumbnails or system files")
                else:
                    folders.append(path)
            elif stat.S_ISREG(mode) and path.name.casefold() not in _SYSTEM_FILES:
                files.append(path)
        return folders, files

    def files(self, directory: Path) -> list[Path]:
        """All files below a folder, sorted by path.

        A folder is read once: a link to one that was read, or that lies above, is reported.
        """
        below: list[Path] = []
        above = [path for path in directory.parents if path.is_relative_to(self._root)]
        seen = {os.path.realpath(path): path for path in above}
        to_read = [directory]
        links: list[Path] = []  # read last, so that a folder is known by its own path
        while to_read or links:
            folder = to_read.pop() if to_read else links.pop(0)
            other = seen.setdefault(os.path.realpath(folder), folder)
            if other != folder:
                reason = f"a link to {self.name(other)}, which is read already"
                self._skipped.add("folder", self.name(folder), reason)
                continue
            folders, files = self.children(folder)
            below += files
            for child in folders:
                (links if child.is_symlink() else to_read).append(child)
        return sorted(below)


def _unreadable(error: OSError) -> str:
    return f"cannot be opened: {error.strerror}"
