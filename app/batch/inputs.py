"""The photos of a run, in an order that does not change.

    input               a photo's id                     its image_id
    folder              path below the folder            running number
    list, `.txt`        line                             running number
    COCO, `.json`       `file_name` of `images`          `id` of `images`
    Parquet, `.parquet` column `id`, else its path, else column `image_id`, else running number
                        running number

Paths in a file are relative to its folder. Running numbers start with 0.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

from app.batch.errors import BatchError
from app.errors import MissingImage, TooManyBytes
from app.photo_files import SYSTEM_FOLDERS, is_photo

__all__ = ["Files", "Parquet", "Photo", "Source", "open_input"]

_ROWS = 16
"""Of a Parquet file, read at a time: photos of 20 MB would fill the memory."""

_BYTES_COLUMNS = ("bytes", "image")
_PATH_COLUMNS = ("path", "file_name")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that has not been read, or the bytes of one.

    Attributes:
        id: unique in the input.
        image_id: the number by which COCO results name it.
        content: its file, or what the file holds.
    """

    id: str
    image_id: int
    content: Path | bytes

    def size(self, most: int) -> int:
        """Bytes of the encoded photo.

        Args:
            most: how many it may have.

        Raises:
            MissingImage: there is nothing to read.
            TooManyBytes: there are more.
        """
        if isinstance(self.content, bytes):
            size = len(self.content)
        else:
            try:
                status = self.content.stat()
            except (OSError, ValueError) as error:
                raise _unreadable(error) from error
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                raise MissingImage("The path is not that of a file.")
            size = status.st_size
        if size > most:
            raise TooManyBytes(f"The photo exceeds the limit of {most} bytes.")
        if not size:
            raise MissingImage("The image is empty: there are no bytes in it.")
        return size

    def read(self, size: int) -> bytes:
        """The encoded photo, or as much of it as had been there when its size was read.

        Raises:
            MissingImage: it cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content
        try:
            with self.content.open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise _unreadable(error) from error


def _unreadable(error: OSError | ValueError) -> MissingImage:
    reason = error.strerror if isinstance(error, OSError) else "its name is none"
    return MissingImage(f"The file cannot be read: {reason}.")


class Source(Protocol):
    """The photos of a run."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def digest(self) -> str:
        """What changes when other photos are in the input: a sha256."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[list[Photo]]:
        """The photos from `start` up to `stop`, in batches; reading blocks."""
        ...


class Files:
    """Photos in files of their own."""

    def __init__(
        self, root: Path, names: Sequence[str], image_ids: Sequence[int] | None = None
    ) -> None:
        """Photos below `root`, or anywhere where their names are absolute paths.

        Args:
            root: what names are relative to.
            names: of the files; the photos' ids.
            image_ids: default: running numbers.

        Raises:
            BatchError: a name or an image id is there twice.
        """
        _check_unique("photo", names)
        if image_ids is not None:
            _check_unique("image id", image_ids)
        self._root = root
        self._names = names
        self._image_ids = range(len(names)) if image_ids is None else image_ids

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def digest(self) -> str:
        """sha256 of names, image ids and sizes."""
        digest = hashlib.sha256()
        for name, image_id in zip(self._names, self._image_ids, strict=True):
            try:
                size = (self._root / name).stat().st_size
            except (OSError, ValueError):
                size = -1
            digest.update(json.dumps([name, image_id, size]).encode())
        return digest.hexdigest()

    def batches(self, start: int, stop: int) -> Iterator[list[Photo]]:
        """All of them at once: their files are not read yet."""
        names, image_ids = self._names[start:stop], self._image_ids[start:stop]
        yield [
            Photo(name, image_id, self._root / name)
            for name, image_id in zip(names, image_ids, strict=True)
        ]


class Parquet:
    """Photos in the rows of a Parquet file: their bytes, or their paths.

    A column of structures with the field `bytes`, as Hugging Face's datasets write images, will do.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's footer.

        Raises:
            BatchError: it is no Parquet file, or holds no photos.
        """
        self._path = path
        parquet = _pyarrow_parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # pyarrow's errors are among these
            raise BatchError(f"{path} cannot be read as Parquet: {error}") from error
        names = self._file.schema_arrow.names
        self._bytes = next((name for name in _BYTES_COLUMNS if name in names), None)
        self._paths = next((name for name in _PATH_COLUMNS if name in names), None)
        if self._bytes is None and self._paths is None:
            raise BatchError(
                f"{path} has no column of photos: call it {' or '.join(_BYTES_COLUMNS)} for "
                f"bytes, {' or '.join(_PATH_COLUMNS)} for paths."
            )
        self._id = "id" if "id" in names else self._paths
        self._image_id = "image_id" if "image_id" in names else None
        # A stream of rows, and the row that it gives next.
        self._stream: Iterator[Photo] = iter(())
        self._next = -1

    def __reduce__(self) -> tuple[type["Parquet"], tuple[Path]]:
        """Other processes open the file anew."""
        return Parquet, (self._path,)

    def __len__(self) -> int:
        """How many rows there are."""
        return cast(int, self._file.metadata.num_rows)

    def digest(self) -> str:
        """sha256 of the file's footer (which has statistics and places of all data) and its size.

        Raises:
            BatchError: an id or an image id is there twice, or is none.
        """
        for column, kind in ((self._id, "photo"), (self._image_id, "image id")):
            if column is not None:
                values = self._file.read(columns=[column]).column(0).to_pylist()
                if None in values:
                    raise BatchError(f"{self._path}: row {values.index(None)} has no {column}.")
                _check_unique(kind, values)
        with self._path.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, os.SEEK_END)
            return hashlib.sha256(file.read() + str(file.tell()).encode()).hexdigest()

    def batches(self, start: int, stop: int) -> Iterator[list[Photo]]:
        """A few at a time; in the order of the file, each row is read once."""
        if start != self._next:
            self._stream, self._next = self._rows(start), start
        while self._next < stop:
            photos = list(islice(self._stream, min(_ROWS, stop - self._next)))
            self._next += len(photos)
            yield photos

    def _rows(self, start: int) -> Iterator[Photo]:
        """From a row on to the end."""
        first, groups = 0, range(self._file.num_row_groups)
        for group in groups:
            rows = self._file.metadata.row_group(group).num_rows
            if start < first + rows:
                break
            first += rows
        columns = {self._bytes or self._paths, self._id, self._image_id} - {None}
        batches = self._file.iter_batches(
            batch_size=_ROWS, row_groups=list(groups[group:]), columns=sorted(columns)
        )
        for batch in batches:
            skipped = min(max(0, start - first), batch.num_rows)
            for number, row in enumerate(batch.slice(skipped).to_pylist(), first + skipped):
                yield self._photo(number, row)
            first += batch.num_rows

    def _photo(self, number: int, row: dict[str, Any]) -> Photo:
        photo_id = str(number if self._id is None else row[self._id])
        image_id = number if self._image_id is None else int(row[self._image_id])
        content: Path | bytes
        if self._bytes is None:
            content = self._path.parent / str(row[self._paths])
        else:
            value = row[self._bytes]
            content = (value.get("bytes") if isinstance(value, dict) else value) or b""
        return Photo(photo_id, image_id, content)


def open_input(path: Path) -> Source:
    """The photos that a path names.

    Args:
        path: of a folder, or of a file of the kinds above.

    Raises:
        BatchError: it cannot be used.
    """
    if path.is_dir():
        return Files(path, list(_below(path)))
    kind = path.suffix.casefold()
    if kind == ".parquet":
        return Parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise BatchError(f"{path} cannot be read: {reason}.") from error
    if kind == ".json":
        return _coco(path, text)
    return Files(path.parent, [line for line in text.splitlines() if line.strip()])


def _coco(path: Path, text: str) -> Files:
    try:
        images = json.loads(text)["images"]
        names = [str(image["file_name"]) for image in images]
        return Files(path.parent, names, [int(image["id"]) for image in images])
    except (ValueError, KeyError, TypeError) as error:
        raise BatchError(
            f"{path} is not a COCO file: it needs `images` with `id` and `file_name`."
        ) from error


def _below(folder: Path) -> Iterator[str]:
    """The photos below a folder, in the order of their paths' parts.

    Hidden files and folders do not count, nor those that programs make; links to folders are not
    followed, so that nothing is there twice.
    """
    for directory, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name.casefold() not in SYSTEM_FOLDERS
        )
        below = Path(directory).relative_to(folder)
        for name in sorted(files):
            if not name.startswith(".") and is_photo(Path(name)):
                yield (below / name).as_posix()


def _refuse(error: OSError) -> None:
    raise BatchError(f"{error.filename} cannot be read: {error.strerror}.")


def _check_unique(kind: str, values: Sequence[object]) -> None:
    if len(set(values)) == len(values):
        return
    known: set[object] = set()
    for value in values:
        if value in known:
            raise BatchError(f"The {kind} {value!r} is in the input twice.")
        known.add(value)


def _pyarrow_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise BatchError("Parquet needs the package pyarrow: pip install pyarrow") from None
    return parquet
