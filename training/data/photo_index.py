"""Finds a photo by the way an annotation file names it."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from app.photo_files import PHOTO_SUFFIXES
from training.data.splits import SPLIT_NAMES

__all__ = ["PhotoIndex"]

_SAME_FORMAT = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
"""Suffixes that programs write for one another."""

_ANY_PHOTOS = frozenset(
    (
        *("image", "images", "img", "imgs", "jpegimages", "jpg", "jpgs", "jpeg", "photo", "photos"),
        *("picture", "pictures", "pics", "data", "dataset", "datasets", "files", "frames", "raw"),
        *("input", "content", "uploads", "all"),
    )
)
"""Names of folders, in lower case, for photos of all classes."""


class PhotoIndex:
    """The photos of a folder by every tail of their path.

    `train/beagle/a.jpg` is found by itself, by `beagle/a.jpg` and `a.jpg`, and by the same without
    `.jpg`. Where no photo is spelled as the annotation says, case, Unicode's composed and
    decomposed forms, and `.jpeg` for `.jpg` make no difference.
    """

    def __init__(self, photos: Mapping[str, str]) -> None:
        """Index photos.

        Args:
            photos: the class folder of each photo, by the photo's path in POSIX form.
        """
        self._class_by_photo = {photo: _folded(name) for photo, name in photos.items()}
        self._classes = set(self._class_by_photo.values())
        # By the tail, whether it lacks the suffix, and whether it is folded.
        self._photos_by_tail: defaultdict[tuple[str, bool, bool], list[str]] = defaultdict(list)
        for photo in photos:
            path = PurePosixPath(photo)
            for is_stem, last in ((False, path.name), (True, path.stem)):
                parts = (*path.parts[:-1], last)
                for begin in range(len(parts)):
                    tail = "/".join(parts[begin:])
                    self._photos_by_tail[tail, is_stem, False].append(photo)
                    folded = _folded(tail) if is_stem else _folded_file(tail)
                    self._photos_by_tail[folded, is_stem, True].append(photo)

    def find(self, name: str, *, is_stem: bool) -> str:
        """The photo that `name` means: a path, also one of Windows, or URL-encoded.

        The longest tail of the name that fits a photo decides. What comes before it may be a path
        on another machine (`/data/pictures/beagle/a.jpg`), but must not contradict the photo's own
        folders: see `_compatible`.

        Args:
            name: as the annotation file has it.
            is_stem: whether it lacks the suffix. A name without a photo's suffix is taken as one
                that lacks it, too, and `a.jpg` for a stem as one that does not.

        Raises:
            LookupError: no photo, or more than one.
        """
        for spelling in dict.fromkeys((name, unquote(name))):
            parts = [
                part
                for part in PurePosixPath(spelling.replace("\\", "/")).parts
                if part != ".." and not re.fullmatch("/+|[A-Za-z]:", part)
            ]
            if not parts:
                continue
            has_suffix = PurePosixPath(parts[-1]).suffix.casefold() in PHOTO_SUFFIXES
            for lacks_suffix in dict.fromkeys((is_stem, not has_suffix)):
                if photo := self._match(parts, lacks_suffix):
                    return photo
        raise LookupError(f"there is no photo {name}")

    def _match(self, parts: Sequence[str], is_stem: bool) -> str | None:
        for begin in range(len(parts)):
            tail = "/".join(parts[begin:])
            folded = _folded(tail) if is_stem else _folded_file(tail)
            for key in ((tail, is_stem, False), (folded, is_stem, True)):
                candidates = [
                    photo
                    for photo in self._photos_by_tail.get(key, ())
                    if self._compatible(
                        photo,
                        [_folded(part) for part in parts[:begin]],
                        [_folded(part) for part in parts[begin:-1]],
                    )
                ]
                if len(candidates) > 1:
                    raise LookupError(f"ambiguous: {candidates[0]} or {candidates[1]}")
                if candidates:
                    return candidates[0]
        return None

    def _compatible(self, photo: str, extra: Sequence[str], matched: Sequence[str]) -> bool:
        """Whether the folders of a name may be those of a photo; all are folded.

        Args:
            photo: its path.
            extra: the name's first folders, which the tail does not cover.
            matched: the tail's folders, which end the photo's path.

        Returns:
            True if the photo lies in all of the extra folders anyway (`train/a.jpg` for
            `train/beagle/a.jpg`). Folders before its class, or before one for photos of all classes
            (`C:/me/images/a.jpg`), may be others: but not another class (`dingo/beagle/a.jpg` is
            of another picture), nor another split than the photo's.
        """
        folders = [_folded(part) for part in PurePosixPath(photo).parent.parts]
        own_class, split = self._class_by_photo[photo], None
        if len(folders) > 1 and folders[1] == own_class:
            split = SPLIT_NAMES.get(folders[0])
        begin = 0  # of the extra folders that have to be the photo's
        if own_class in matched:
            begin = len(extra)
        for place, part in enumerate(extra):
            if part in _ANY_PHOTOS - self._classes:
                begin = max(begin, place + 1)
        elsewhere, named = extra[:begin], extra[begin:]
        if not all(part in folders or split == SPLIT_NAMES.get(part, "") for part in named):
            return False
        if not self._classes.isdisjoint(set(elsewhere) - set(folders)):
            return False
        splits = [SPLIT_NAMES[part] for part in elsewhere if part in SPLIT_NAMES]
        return split is None or not splits or len(matched) == len(folders) or splits[-1] == split


def _folded(text: str) -> str:
    """Text without its case, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _folded_file(name: str) -> str:
    """A file's name folded, with one suffix for each format."""
    stem, dot, suffix = _folded(name).rpartition(".")
    return stem + _SAME_FORMAT.get(dot + suffix, dot + suffix)
