"""The photos of a run, in an order that does not change.

    input               a photo's id                     its image_id
    folder              path below the folder            running number
    list, `.txt`        line                             running number
    COCO, `.json`       `file_name` of `images`          `id` of `images`
    Parquet, `.parquet` column `id`, else its path, else column `image_id`, else running number
                        running number

Paths in a file are relative to its folder. Running numbers start with 0. The input has to stay as
it is during a run, and all machines have to see the same: what differs ends the run.
"""

import codecs
import errno
import hashlib
import json
import os
import socket
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

_FAULTS_OF_PATHS = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
)
"""Errors that the next try would meet too. Others are those of a machine or its storage."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that has not been read, or the bytes of one.

    Attributes:
        id: unique in the input; text that UTF-8 can express.
        image_id: the number by which COCO results name it.
        content: its file, or what the file holds.
        listed_size: of the file when the run began, in bytes; None where it could not be read.
    """

    id: str
    image_id: int
    content: Path | bytes
    listed_size: int | None = None

    def size(self, most: int) -> int:
        """Bytes of the encoded photo.

        Args:
            most: how many it may have.

        Raises:
            MissingImage: there is nothing to read, and was not when the run began.
            TooManyBytes: there are more.
            BatchError: the file is not what it was when the run began.
            OSError: the storage fails.
        """
        if isinstance(self.content, bytes):
            size = len(self.content)
        else:
            size = self._file_size(self.content)
        if size > most:
            raise TooManyBytes(f"The photo exceeds the limit of {most} bytes.")
        if not size:
            raise MissingImage("The image is empty: there are no bytes in it.")
        return size

    def _file_size(self, path: Path) -> int:
        try:
            size = _measure(path)
        except MissingImage:
            if self.listed_size is None:
                raise
            size = -1
        if size != self.listed_size:
            raise _changed(path)
        return size

    def read(self, size: int) -> bytes:
        """The encoded photo, whose size is known.

        Raises:
            BatchError: the file is not what it was.
            OSError: it cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content
        try:
            with self.content.open("rb") as file:
                data = file.read(size + 1)
        except OSError as error:  # those of `read` do not name the file
            raise OSError(error.errno, error.strerror, str(self.content)) from error
        if len(data) != size:
            raise _changed(self.content)
        return data


def _changed(path: Path) -> BatchError:
    return BatchError(
        f"{path} has changed since the run began, or differs on {socket.gethostname()}."
    )


def _measure(path: Path) -> int:
    """Bytes of a file that can be read.

    Raises:
        MissingImage: there is no such file.
        OSError: the storage fails.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise MissingImage("The path does not name a file.")
        path.open("rb").close()
    except ValueError as error:
        raise MissingImage("The file cannot be read: the path is malformed.") from error
    except OSError as error:
        if error.errno not in _FAULTS_OF_PATHS:
            raise
        raise MissingImage(f"The file cannot be read: {error.strerror}.") from error
    return status.st_size


def _listed_size(path: Path) -> int | None:
    try:
        return _measure(path)
    except MissingImage:
        return None


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
        self,
        root: Path,
        names: Sequence[str],
        image_ids: Sequence[int] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Photos below `root`, or anywhere where their names are absolute paths.

        Args:
            root: what names are relative to.
            names: of the files.
            image_ids: default: running numbers.
            ids: of the photos; default: the names, with bytes that are not UTF-8 escaped.

        Raises:
            BatchError: an id or an image id is there twice.
            OSError: the storage fails.
        """
        self._ids = list(map(_printable, names)) if ids is None else ids
        _check_unique("photo", self._ids)
        if image_ids is not None:
            _check_unique("image id", image_ids)
        self._root = root
        self._names = names
        self._image_ids = range(len(names)) if image_ids is None else image_ids
        self._sizes = [_listed_size(root / name) for name in names]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def digest(self) -> str:
        """sha256 of ids, names, image ids and sizes."""
        digest = hashlib.sha256()
        for entry in zip(self._ids, self._names, self._image_ids, self._sizes, strict=True):
            digest.update(json.dumps(entry).encode())
        return digest.hexdigest()

    def batches(self, start: int, stop: int) -> Iterator[list[Photo]]:
        """All of them at once: their files are not read yet."""
        yield [
            Photo(
                self._ids[place],
                self._image_ids[place],
                self._root / self._names[place],
                self._sizes[place],
            )
            for place in range(start, stop)
        ]


class Parquet:
    """Photos whose bytes are in the rows of a Parquet file.

    A column of structures with the field `bytes`, as Hugging Face's datasets write images, will do.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's footer.

        Raises:
            BatchError: it is no Parquet file, or has no column of bytes.
        """
        self._path = path
        self._file = _parquet_file(path)
        names = self._file.schema_arrow.names
        bytes_column = _first_of(_BYTES_COLUMNS, names)
        if bytes_column is None:
            raise BatchError(
                f"{path} has no column of photos: call it {' or '.join(_BYTES_COLUMNS)} for "
                f"bytes, {' or '.join(_PATH_COLUMNS)} for paths."
            )
        self._bytes = bytes_column
        self._id = _first_of(("id", *_PATH_COLUMNS), names)
        self._image_id = _first_of(("image_id",), names)
        # A stream of rows, and the row that it gives next.
        self._stream: Iterator[Photo] = iter(())
        self._next = -1

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        """Other processes open the file anew."""
        return _reopened, (self._path, self._footer_digest())

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
                _check_unique(kind, _column(self._path, self._file, column))
        return self._footer_digest()

    def _footer_digest(self) -> str:
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
            try:
                photos = list(islice(self._stream, min(_ROWS, stop - self._next)))
            except (OSError, ValueError) as error:  # pyarrow's errors are among these
                raise BatchError(f"{self._path} cannot be read as Parquet: {error}") from error
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
        columns = {name for name in (self._bytes, self._id, self._image_id) if name is not None}
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
        value = row[self._bytes]
        content = (value.get("bytes") if isinstance(value, dict) else value) or b""
        return Photo(photo_id, image_id, content)


def _reopened(path: Path, footer: str) -> Parquet:
    source = Parquet(path)
    if source._footer_digest() != footer:
        raise BatchError(f"{path} differs on {socket.gethostname()}.")
    return source


def open_input(path: Path) -> Source:
    """The photos that a path names.

    Args:
        path: of a folder, or of a file of the kinds above.

    Raises:
        BatchError: it cannot be used.
    """
    path = path.absolute()  # the same in the processes of a cluster; links stay as they are
    if path.is_dir():
        return Files(path, list(_below(path)))
    kind = path.suffix.casefold()
    if kind == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
        if kind == ".json":
            return _coco(path, data)
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror}.") from error
    if b"\0" in data:
        raise BatchError(f"{path} cannot be read: it is not a text file with a path on each line.")
    text = data.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return Files(path.parent, [line for line in lines if line.strip()])


def _parquet(path: Path) -> Source:
    file = _parquet_file(path)
    names = file.schema_arrow.names
    paths = _first_of(_PATH_COLUMNS, names)
    if paths is None or _first_of(_BYTES_COLUMNS, names):
        return Parquet(path)
    image_ids = _column(path, file, "image_id") if "image_id" in names else None
    ids = list(map(str, _column(path, file, "id"))) if "id" in names else None
    return Files(path.parent, list(map(str, _column(path, file, paths))), image_ids, ids)


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise BatchError("Parquet needs the package pyarrow: pip install pyarrow") from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        raise BatchError(f"{path} cannot be read as Parquet: {error}") from error


def _column(path: Path, file: Any, name: str) -> list[Any]:
    values: list[Any] = file.read(columns=[name]).column(0).to_pylist()
    if None in values:
        raise BatchError(f"{path}: row {values.index(None)} has no {name}.")
    return values


def _first_of(names: Sequence[str], present: Sequence[str]) -> str | None:
    return next((name for name in names if name in present), None)


def _coco(path: Path, data: bytes) -> Files:
    try:
        images = json.loads(data)["images"]
        names = [str(image["file_name"]) for image in images]
        return Files(path.parent, names, [int(image["id"]) for image in images])
    except (ValueError, KeyError, TypeError) as error:
        raise BatchError(
            f"{path} is not a COCO file: it needs `images` with `file_name` and `id`, an integer."
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


def _printable(name: str) -> str:
    r"""A file's name as text that UTF-8 can express: `\udcff` stands for the byte 255."""
    return name.encode("utf-8", "backslashreplace").decode()
