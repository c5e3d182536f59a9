"""The file of ratings, against SQLite itself: kills, rivals and full disks."""

import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Timer
from typing import Any

import pytest

from app.errors import StartupError, StorageBusy, StorageFull
from app.ratings import Ratings
from app.schemas import Rating
from app.settings import PROJECT

WRITER = """
import sys
from pathlib import Path
from app.ratings import Ratings
from app.schemas import Rating
ratings = Ratings.open(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    rating = Rating(digest=f"{number:064x}", methods=("cam/last", "gradcam/last6"), answer="first",
                    rater=sys.argv[2] * 32)
    ratings.add(rating, "dogs", 1)
    print(number, flush=True)
"""


def rating(number: int = 0, **changes: Any) -> Rating:
    fields: dict[str, Any] = {
        "digest": f"{number:064x}",
        "methods": ("cam/last", "gradcam/last6"),
        "answer": "first",
        "rater": "a" * 32,
    }
    return Rating(**fields | changes)


def writer(path: Path, rater: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), rater, str(count)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def filled(ratings: Ratings) -> int:
    """How many ratings were confirmed until there was no space."""
    for number in range(10_000):
        try:
            ratings.add(rating(number), "dogs", 1)
        except StorageFull:
            return number
    pytest.fail("there is no bound")


def counted(path: Path) -> int:
    ratings = Ratings.open_to_read(path)
    count = ratings.summary("dogs", 1).ratings
    ratings.close()
    return count


def kept(path: Path) -> set[str]:
    """The digests."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT digest FROM rating").fetchall()
    connection.close()
    return {digest for (digest,) in rows}


def intact(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return rows == [("ok",)]


def test_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    ratings = Ratings.open(path)
    ratings.add(rating(misses=["gradcam/last6"]), "dogs", 3)
    ratings.close()
    with sqlite3.connect(path) as connection:
        (row,) = connection.execute("SELECT * FROM rating").fetchall()
    connection.close()
    *fields, time, rater = row
    assert fields == ["dogs", 3, "0" * 64, "cam/last", "gradcam/last6", "first", 0, 1]
    assert time.endswith("+00:00")
    assert rater == "a" * 32


def test_the_order_shown_does_not_matter_to_the_summary(tmp_path: Path) -> None:
    ratings = Ratings.open(tmp_path / "ratings.sqlite")
    swapped = ("gradcam/last6", "cam/last")
    ratings.add(rating(0), "dogs", 1)
    ratings.add(rating(1, methods=swapped, answer="second", misses=["gradcam/last6"]), "dogs", 1)
    ratings.add(rating(2, methods=swapped, rater="b" * 32), "dogs", 1)
    ratings.add(rating(3, answer="same", misses=["cam/last", "gradcam/last6"]), "dogs", 1)
    ratings.add(rating(4), "dogs", 2)  # another version
    summary = ratings.summary("dogs", 1)
    ratings.close()
    (pair,) = summary.pairs
    assert (pair.methods, pair.wins, pair.same) == (("cam/last", "gradcam/last6"), (2, 1), 1)
    assert (summary.ratings, summary.raters) == (4, 2)
    assert [(score.shown, score.misses) for score in summary.methods] == [(4, 1), (4, 2)]


def test_a_repeated_rating_counts_once_and_the_last_one(tmp_path: Path) -> None:
    ratings = Ratings.open(tmp_path / "ratings.sqlite")
    ratings.add(rating(), "dogs", 1)
    ratings.add(rating(methods=("gradcam/last6", "cam/last")), "dogs", 1)
    summary = ratings.summary("dogs", 1)
    ratings.close()
    assert (summary.ratings, summary.pairs[0].wins) == (1, (0, 1))


def test_a_killed_process_loses_nothing_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    process = writer(path, "a", 1_000_000)
    assert process.stdout
    for _ in range(20):
        assert process.stdout.readline()
    process.kill()
    confirmed = 20 + len(process.stdout.readlines())
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert counted(path) in (confirmed, confirmed + 1)  # the last may not have been printed
    assert intact(path)


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    start = Barrier(8)

    def open_and_add(path: Path, number: int) -> None:
        start.wait()
        ratings = Ratings.open(path)
        ratings.add(rating(number), "dogs", 1)
        ratings.close()

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(10):
            path = tmp_path / f"{attempt}.sqlite"
            list(pool.map(open_and_add, [path] * 8, range(8)))
            assert counted(path) == 8


def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    rival = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    rival.execute("BEGIN IMMEDIATE")
    release = Timer(0.2, rival.execute, ["ROLLBACK"])
    release.start()
    Ratings.open(path).close()
    release.join()
    rival.close()
    assert counted(path) == 0


def test_commits_are_synced(tmp_path: Path) -> None:
    """What a killed process cannot show: a crash of the machine."""
    ratings = Ratings.open(tmp_path / "ratings.sqlite")
    assert ratings._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ratings._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ratings.close()


def test_a_file_system_without_wal_mode_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own `unix-dotfile` lacks shared memory, as network file systems do."""
    path = tmp_path / "ratings.sqlite"
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3,
            "connect",
            lambda name, **options: connect(f"{name}&vfs=unix-dotfile", **options),
        )
        with pytest.raises(StartupError, match=r"journal mode 'delete'.* on a local disk\.$"):
            Ratings.open(path)
    Ratings.open(path).close()
    assert counted(path) == 0


def test_a_file_that_has_left_wal_mode_returns_to_it(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    Ratings.open(path).close()
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    other.close()
    ratings = Ratings.open(path)
    assert ratings._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ratings.close()


def test_two_processes_write(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    processes = [writer(path, rater, 100) for rater in "ab"]
    for process in processes:
        output, _ = process.communicate()
        assert len(output.splitlines()) == 100
        assert process.returncode == 0
    assert counted(path) == 200
    assert intact(path)


def test_a_failed_write_of_the_system_keeps_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    ratings = Ratings.open(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a quota does
    try:
        confirmed = filled(ratings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert confirmed > 0
    ratings.add(rating(20_000), "dogs", 1)
    ratings.close()
    assert counted(path) == confirmed + 1
    assert intact(path)


FILLER = """
import sys
from pathlib import Path
from app.ratings import Ratings
from tests.app.test_ratings import counted, filled, intact, rating
disk = Path(sys.argv[1])
path = disk / "ratings.sqlite"
ratings = Ratings.open(path)
ballast = disk / "ballast"
ballast.write_bytes(bytes(100_000))
confirmed = filled(ratings)
assert confirmed > 0
assert ratings.summary("dogs", 1).ratings == confirmed
ballast.unlink()
ratings.add(rating(20_000), "dogs", 1)
ratings.close()
assert counted(path) == confirmed + 1
assert intact(path)
"""


def test_a_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    """A small disk in memory, which only the process that fills it sees."""
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=512k none {shlex.quote(str(tmp_path))}"
    if subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system in memory")
    done = subprocess.run(
        [*inside, f'{mount} && exec "$@"', "sh", sys.executable, "-c", FILLER, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_locked_file_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    ratings = Ratings.open(path)
    ratings._connection.execute("PRAGMA busy_timeout = 10")
    rival = sqlite3.connect(path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageBusy):
        ratings.add(rating(), "dogs", 1)
    rival.execute("ROLLBACK")
    rival.close()
    ratings.add(rating(), "dogs", 1)
    ratings.close()
    assert counted(path) == 1


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    other, text = tmp_path / "other.sqlite", tmp_path / "text"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    text.write_text("no database" * 100)
    for path in (other, text):
        before = path.read_bytes()
        with pytest.raises(StartupError):
            Ratings.open(path)
        with pytest.raises(StartupError):
            Ratings.open_to_read(path)
        assert path.read_bytes() == before
    with pytest.raises(StartupError, match="cannot be used"):
        Ratings.open(tmp_path / "missing" / "ratings.sqlite")
    with pytest.raises(StartupError, match="cannot be read"):
        Ratings.open_to_read(tmp_path / "missing.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()
