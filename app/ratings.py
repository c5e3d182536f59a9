"""Ratings in an SQLite file: which of two heatmaps explains better.

A rating is on the disk before `add` returns. Several processes may use one file.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from app.errors import BreedCAMError, StartupError, StorageBusy, StorageFull
from app.preferences import Summary, Tally, summarize
from app.schemas import Rating

__all__ = ["BreedCAMError", "Ratings"]

_BUSY_S = 5.0
"""How long a write waits for that of another process."""

_VERSION = 1
"""Of the tables, in SQLite's `user_version`."""

_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS rating (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    first TEXT NOT NULL,
    second TEXT NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('first', 'second', 'same')),
    first_misses INTEGER NOT NULL,
    second_misses INTEGER NOT NULL,
    time TEXT NOT NULL,
    rater TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS rating_once
    ON rating (model, version, rater, digest, min(first, second), max(first, second));
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_ADD = """
INSERT INTO rating VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (model, version, rater, digest, min(first, second), max(first, second))
DO UPDATE SET first = excluded.first, second = excluded.second, answer = excluded.answer,
    first_misses = excluded.first_misses, second_misses = excluded.second_misses,
    time = excluded.time
"""

_TALLIES = """
SELECT min(first, second), max(first, second),
    sum(answer = iif(first < second, 'first', 'second')),
    sum(answer = iif(first < second, 'second', 'first')),
    sum(answer = 'same'),
    sum(iif(first < second, first_misses, second_misses)),
    sum(iif(first < second, second_misses, first_misses))
FROM rating WHERE model = ? AND version = ? GROUP BY 1, 2 ORDER BY 1, 2
"""

_RATERS = "SELECT count(DISTINCT rater) FROM rating WHERE model = ? AND version = ?"

# A quota is reported as a failed write.
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class Ratings:
    """An open file of ratings. Its calls block; only one runs at a time, on whatever thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection in autocommit mode, to a file that has the tables."""
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file; it is made where there is none.

        Raises:
            StartupError: it cannot be opened, is something else, or cannot be in WAL mode.
        """
        with _connected(path, "rwc", f"BREEDCAM_RATINGS: {path} cannot be used") as connection:
            version, is_empty = _contents(connection)
            is_new = version == 0 and is_empty
            if not is_new and version != _VERSION:
                raise StartupError(f"BREEDCAM_RATINGS: {path} holds something else.")
            if (mode := _use_wal(connection)) != "wal":
                raise StartupError(
                    f"BREEDCAM_RATINGS: {path} stays in SQLite's journal mode {mode!r}: its file "
                    "system does not support WAL mode. Put the file on a local disk."
                )
            if is_new:
                connection.executescript(_TABLES)
            # The default, but a build of SQLite may have another: each commit is synced.
            connection.execute("PRAGMA synchronous = FULL")
            # SQLite opens a file that is read-only, too; this fails there.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        return cls(connection)

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Open a file that exists, and leave its ratings as they are.

        Raises:
            StartupError: it cannot be read, or is something else.
        """
        with _connected(path, "ro", f"{path} cannot be read") as connection:
            if _contents(connection)[0] != _VERSION:
                raise StartupError(f"{path} holds no ratings.")
        return cls(connection)

    def add(self, rating: Rating, model: str, version: int) -> None:
        """Keep a rating. A rater's later one of the same photo and methods takes its place.

        Args:
            rating: as it was sent.
            model: whose heatmaps they are.
            version: the model's.

        Raises:
            StorageFull: there is no space; what was kept before is still there.
            StorageBusy: other processes write all the time.
        """
        first, second = rating.methods
        row = (
            model,
            version,
            rating.digest,
            first,
            second,
            rating.answer,
            first in rating.misses,
            second in rating.misses,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            rating.rater,
        )
        with _translated():
            self._connection.execute(_ADD, row)  # a transaction of its own

    def summary(self, model: str, version: int) -> Summary:
        """What the ratings of a model version say.

        Raises:
            StorageBusy: other processes keep the file locked.
        """
        with _translated():
            self._connection.execute("BEGIN")
            try:
                rows = self._connection.execute(_TALLIES, (model, version)).fetchall()
                (raters,) = self._connection.execute(_RATERS, (model, version)).fetchone()
            finally:
                self._connection.execute("ROLLBACK")
        tallies = [
            Tally((first, second), (wins, losses), same, (first_misses, second_misses))
            for first, second, wins, losses, same, first_misses, second_misses in rows
        ]
        return summarize(tallies, raters)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def _connected(path: Path, mode: str, failure: str) -> Iterator[sqlite3.Connection]:
    """A connection, which stays open unless the block fails.

    Raises:
        StartupError: SQLite does, in the block too; the message begins with `failure`.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StartupError(f"{failure}: {error}.") from error


def _contents(connection: sqlite3.Connection) -> tuple[int, bool]:
    """The version of the tables, and whether there are none."""
    connection.execute("BEGIN")  # another process may be making them
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.execute("ROLLBACK")
    return version, tables == 0


def _use_wal(connection: sqlite3.Connection) -> str:
    """Change to WAL mode; for this lock, SQLite does not wait by itself.

    Returns:
        The mode in force: another one where the file system lacks what WAL needs.
    """
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            mode: str
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return mode
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # without what kind of it


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours, where they are foreseen."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in _FULL:
            raise StorageFull("There is no space left for ratings.") from error
        if _is_busy(error):
            raise StorageBusy("Other processes keep the ratings locked.") from error
        raise
