"""Decoding in real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app import decoder, decoding, image_header, images
from app.clock import Clock
from app.decoder import Decoded, Job
from app.decoding import Decoders
from app.errors import (
    BreedCAMError,
    NotReady,
    QueueFull,
    StartupError,
    TooCostly,
    TooManyPixels,
    UndecodableImage,
)
from app.image_header import Header
from app.settings import PROJECT
from tests import needs
from tests.app.conftest import JPEG, LONG, encode, picture
from tests.app.services import footprint_mb, wait_for_memory

pytestmark = pytest.mark.anyio

JOB = Job(max_pixels=50_000_000, size=224, resize="bilinear", overlay=512)
WIDTH = 6000
SLOW = encode(picture(WIDTH, 4500), "PNG", compress_level=1)
"""Most of a second of processor time or more; for the slow lane."""


def make(*, count: int = 1, seconds: float = 10.0, **changes: int) -> Decoders:
    limits = {"max_bytes": 20_000_000, "max_pixels": 50_000_000, "max_pending": 500_000_000}
    return Decoders(count=count, seconds=seconds, **(limits | changes))


@asynccontextmanager
async def running(count: int = 1, seconds: float = 10.0, **changes: int) -> AsyncIterator[Decoders]:
    decoders = make(count=count, seconds=seconds, **changes)
    decoders.start()
    try:
        yield decoders
    finally:
        decoders.stop()


def quick(data: bytes) -> Header:
    """Its header, but as if it cost next to nothing."""
    return replace(image_header.read(data), cost=1, peak_bytes=1)


def costly(data: bytes) -> Header:
    """Its header, but as if it cost just too much for the quick lane."""
    return replace(image_header.read(data), cost=decoding.QUICK_COST + 1)


async def decoded(decoders: Decoders, data: bytes, job: Job = JOB) -> Decoded:
    return await decoders.decode(data, job, image_header.read(data), Clock())


def children(parent: int) -> dict[int, str]:
    """Command lines of the decoders that a process has started, by their ids."""
    lines = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            ppid = int(status.read_text().rpartition(")")[2].split()[1])
            line = status.with_name("cmdline").read_text()
        except OSError:
            continue  # ended meanwhile
        if ppid == parent and "app.decoder" in line:
            lines[int(status.parent.name)] = line
    return lines


@pytest.fixture(autouse=True)
def others(decoders: Decoders) -> Iterator[set[int]]:
    """Processes that are no test's; no test leaves any."""
    before = set(children(os.getpid()))
    yield before
    assert set(children(os.getpid())) == before


def quick_process(others: set[int]) -> int:
    """The process of the quick lane: the one of ordinary priority that a test has started."""
    lines = children(os.getpid())
    [pid] = [pid for pid in lines if pid not in others and lines[pid].endswith("\x000\x00")]
    return pid


# -- the same as in this process


@pytest.mark.parametrize("overlay", [None, 300, 1024])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
async def test_another_process_decodes_alike(
    decoders: Decoders, format: str, overlay: int | None
) -> None:
    decoders.start()
    photo = encode(picture(1300, 900), format)
    job = replace(JOB, overlay=overlay)
    outcome = await decoded(decoders, photo, job)
    here = decoder.decode(photo, job)
    assert (outcome.width, outcome.height) == (1300, 900)
    np.testing.assert_array_equal(outcome.squashed, here.squashed)
    if overlay is None:
        assert outcome.pixels is None
    else:
        assert outcome.pixels is not None
        assert here.pixels is not None
        np.testing.assert_array_equal(outcome.pixels, here.pixels)


async def test_the_input_is_squashed_from_the_photo(decoders: Decoders) -> None:
    decoders.start()
    photo = encode(picture(400, 300), "PNG")
    outcome = await decoded(decoders, photo, replace(JOB, size=100, resize="bicubic"))
    expected = images.squash(np.asarray(picture(400, 300)), 100, "bicubic")
    np.testing.assert_array_equal(outcome.squashed, expected)


async def test_refusals_come_back_as_they_are(decoders: Decoders) -> None:
    decoders.start()
    cut, header = JPEG[: len(JPEG) // 2], image_header.read(JPEG)
    with pytest.raises(UndecodableImage) as here:
        images.decode(cut)
    with pytest.raises(UndecodableImage) as there:
        await decoders.decode(cut, JOB, header, Clock())
    assert str(there.value) == str(here.value)
    with pytest.raises(TooManyPixels, match="the limit is 100 in all"):
        await decoders.decode(JPEG, replace(JOB, max_pixels=100), header, Clock())
    # The process is none the worse for it.
    assert (await decoded(decoders, JPEG)).width == 320


async def test_photos_are_decoded_side_by_side_and_in_their_own_order(decoders: Decoders) -> None:
    decoders.start()
    photos = [encode(picture(100 + n, 90), ("JPEG", "PNG")[n % 2]) for n in range(30)]
    outcomes = await asyncio.gather(*(decoded(decoders, photo) for photo in photos))
    assert [outcome.width for outcome in outcomes] == [100 + n for n in range(30)]


# -- limits


async def test_a_photo_past_its_time_is_refused_and_its_process_replaced() -> None:
    async with running(seconds=0.2) as decoders:
        begun = time.monotonic()
        with pytest.raises(TooCostly, match=r"more than 0\.2 s of processor time"):
            await decoded(decoders, SLOW)
        assert time.monotonic() - begun < LONG / 2
        assert decoders.ended == 1
        assert decoders.pending_pixels == 0
        assert (await decoded(decoders, JPEG)).width == 320
        with pytest.raises(TooCostly):
            await decoded(decoders, SLOW)  # by the new process, too


async def test_a_photo_dearer_than_it_looks_moves_to_the_slow_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "QUICK_S", 0.1)
    async with running() as decoders:
        outcome = await decoders.decode(SLOW, JOB, quick(SLOW), Clock())
        assert outcome.width == WIDTH
        assert decoders.ended == 1


async def test_a_costly_photo_delays_no_other() -> None:
    async with running() as decoders:
        first = asyncio.ensure_future(decoded(decoders, SLOW))
        second = asyncio.ensure_future(decoders.decode(JPEG, JOB, costly(JPEG), Clock()))
        await asyncio.sleep(0.05)
        for _ in range(3):
            await decoded(decoders, JPEG)
        assert not second.done()  # it waits for the first
        outcomes = await asyncio.gather(first, second)
        assert [outcome.width for outcome in outcomes] == [WIDTH, 320]


async def test_memory_is_bounded_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo of 16 bytes a pixel, in a process that may have half of them."""
    if not sys.platform.startswith("linux"):
        needs.absent("Linux, which bounds data")
    photo = encode(Image.new("RGB", (6000, 6000)), "WEBP", lossless=True)
    monkeypatch.setattr(decoding, "BYTES_PER_PIXEL", 6)
    async with running() as decoders:
        header = replace(image_header.read(photo), peak_bytes=1)  # else refused unseen
        with pytest.raises(TooCostly, match="more memory"):
            await decoders.decode(photo, JOB, header, Clock())
        assert (await decoded(decoders, JPEG)).width == 320


async def test_memory_of_a_photo_goes_back_when_no_other_comes(others: set[int]) -> None:
    photo = encode(picture(4000, 3000), "JPEG", progressive=True)  # 36 MB of coefficients
    async with running() as decoders:
        await decoded(decoders, encode(picture(500, 375), "JPEG"))
        process = [quick_process(others)]
        rest = footprint_mb(process)
        await decoders.decode(photo, JOB, quick(photo), Clock())
        await asyncio.to_thread(wait_for_memory, process, rest + 15)
        await decoded(decoders, JPEG)
        assert [quick_process(others)] == process


async def test_a_file_for_which_there_is_no_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not sys.platform.startswith("linux"):
        needs.absent("Linux, which bounds data")
    monkeypatch.setattr(decoding, "QUICK_BYTES", 1_000_000)
    photo = JPEG + bytes(150_000_000)
    async with running(max_bytes=len(JPEG), max_pixels=100_000) as decoders:
        with pytest.raises(TooCostly, match="more memory"):
            await decoders.decode(photo, JOB, quick(JPEG), Clock())
        assert (await decoded(decoders, JPEG)).width == 320
        assert decoders.ended == 0
    async with running(max_bytes=len(photo), max_pixels=100_000) as decoders:
        assert (await decoders.decode(photo, JOB, quick(JPEG), Clock())).width == 320


async def test_what_would_take_too_much_memory_is_not_begun() -> None:
    async with running() as decoders:
        header = replace(image_header.read(JPEG), peak_bytes=700_000_000)
        with pytest.raises(TooCostly, match="would take 700 MB; the limit is 650 MB"):
            await decoders.decode(JPEG, JOB, header, Clock())
        assert decoders.ended == 0


async def test_costly_photos_are_admitted_by_pixels() -> None:
    cost = image_header.read(SLOW).cost
    async with running(max_pending=2 * cost) as decoders:
        slow = [asyncio.ensure_future(decoded(decoders, SLOW)) for _ in range(2)]
        await asyncio.sleep(0)
        assert decoders.pending_pixels == 2 * cost
        with pytest.raises(QueueFull) as refused:
            await decoded(decoders, SLOW)
        assert refused.value.headers == {"Retry-After": "1"}
        assert (await decoded(decoders, JPEG)).width == 320  # ordinary ones are admitted
        slow[1].cancel()  # it waits: its pixels are free at once
        await asyncio.wait({slow[1]})
        assert decoders.pending_pixels == cost
        await slow[0]
        assert decoders.pending_pixels == 0


async def test_a_photo_over_the_bound_is_admitted_alone() -> None:
    async with running(max_pending=1) as decoders:
        assert (await decoded(decoders, SLOW)).width == WIDTH


# -- requests that are given up


async def test_a_cancelled_decode_is_ended_before_anything_is_freed() -> None:
    async with running() as decoders:
        slow = asyncio.ensure_future(decoded(decoders, SLOW))
        await asyncio.sleep(0.05)
        slow.cancel()
        await asyncio.sleep(0)
        assert not slow.done()  # nor are its bytes free
        assert decoders.pending_pixels > 0
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert decoders.pending_pixels == 0
        assert decoders.ended == 1
        assert (await decoders.decode(JPEG, JOB, costly(JPEG), Clock())).width == 320


@pytest.mark.parametrize("offset_s", [0, 0.001, 0.02, 0.1, 0.105, 0.12])
async def test_a_decode_that_is_cancelled_twice_loses_no_process(offset_s: float) -> None:
    """Before, while and after its process is ended."""
    async with running() as decoders:
        for _ in range(2):  # as many as there are processes, and one more
            task = asyncio.ensure_future(decoded(decoders, SLOW))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(offset_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert decoders.pending_pixels == 0
        async with asyncio.timeout(LONG):
            assert (await decoders.decode(JPEG, JOB, costly(JPEG), Clock())).width == 320


async def test_a_cancelled_decode_of_an_ordinary_photo_costs_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "GRACE_S", LONG)
    async with running() as decoders:
        for _ in range(5):
            task = asyncio.ensure_future(decoded(decoders, JPEG))
            await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.wait({task})
        assert decoders.ended == 0
        assert (await decoded(decoders, JPEG)).width == 320


async def test_a_photo_that_waits_is_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "GRACE_S", LONG)  # of one that is decoded
    async with running() as decoders:
        first = asyncio.ensure_future(decoded(decoders, SLOW))
        second = asyncio.ensure_future(decoded(decoders, SLOW))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not first.done()
        assert (await first).width == WIDTH
        assert decoders.ended == 0


# -- processes that end


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGBUS])
async def test_a_process_that_crashes_is_replaced(
    others: set[int], sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "QUICK_S", 10.0)
    async with running() as decoders:
        slow = asyncio.ensure_future(decoders.decode(SLOW, JOB, quick(SLOW), Clock()))
        await asyncio.sleep(0.1)
        os.kill(quick_process(others), sent)
        with pytest.raises(UndecodableImage):
            await slow
        assert decoders.ended == 1
        assert (await decoded(decoders, JPEG)).width == 320


KILLED = """
import os, runpy, signal, socket, sys
log = {log!r}
if os.path.getsize(log) < {kills}:
    channel = socket.socket(fileno=0)
    channel.sendall(b"+")
    channel.recv(1)
    open(log, "a").write("+")
    os.kill(os.getpid(), signal.SIGKILL)
sys.argv[1:] = sys.argv[2:]
runpy.run_module("app.decoder", run_name="__main__")
"""


@pytest.mark.parametrize("kills", [1, 2])
async def test_a_photo_whose_process_is_killed_gets_a_second_one(
    kills: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the kernel does where memory runs out."""
    log = tmp_path / "log"
    log.touch()
    source = KILLED.format(log=str(log), kills=kills)
    monkeypatch.setattr(decoding, "COMMAND", ("-c", source, "app.decoder"))
    async with running() as decoders:
        if kills == 2:
            with pytest.raises(NotReady, match="ended the decoder twice") as refused:
                await decoded(decoders, JPEG)
            assert "Retry-After" in refused.value.headers
        assert (await decoded(decoders, JPEG)).width == 320
        assert decoders.ended == kills
    assert log.read_text() == "+" * kills


async def test_one_that_ended_while_idle_is_not_noticed(others: set[int]) -> None:
    async with running() as decoders:
        for _ in range(2):
            old = quick_process(others)
            os.kill(old, signal.SIGKILL)
            # Its exit status is left for its parent.
            await asyncio.to_thread(os.waitid, os.P_PID, old, os.WEXITED | os.WNOWAIT)
            assert (await decoded(decoders, JPEG)).width == 320
            assert quick_process(others) != old


TAKEN_OVER = """
import socket, time
channel = socket.socket(fileno=0)
channel.sendall(b"+")
channel.recv(1)
channel.sendall({answer!r} + bytes(1 << 20))
time.sleep(60)
"""


async def test_an_answer_that_is_none_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo may take its process over: what comes from there is not believed."""
    shapes = {"squashed": [224, 224, 3], "pixels": [9**9, 9**9, 3]}
    for answer in (
        decoder.pack({"width": 1, "height": 1} | shapes),
        decoder.pack({"width": 1, "height": 1, "squashed": [2, 2], "pixels": None}),
        decoder.pack({"width": 1, "height": 1, "squashed": [-1, -1, 3], "pixels": None}),
        decoder.pack({"width": "1"}),
        b"\xff" * 9999,
        decoder.HEAD.pack(3) + b"{}}",
        decoder.pack({"error": "engine-failed", "detail": "", "cause": ""}),
        decoder.pack({"error": [], "detail": "", "cause": ""}),
    ):
        source = TAKEN_OVER.format(answer=answer)
        monkeypatch.setattr(decoding, "COMMAND", ("-c", source, "app.decoder"))
        async with running() as decoders:
            with pytest.raises(BreedCAMError, match="answer was malformed"):
                await decoded(decoders, JPEG)
            assert decoders.ended == 1


async def test_processes_that_do_not_start_stop_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "COMMAND", ("-c", "import sys; sys.exit(3)"))
    with pytest.raises(StartupError, match="do not start"):
        make().start()


async def test_of_processes_that_do_not_all_start_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The quick one ends at once, the slow one goes on; the fixture `others` looks for it."""
    source = "import sys, time; sys.argv[-1] == '0' and sys.exit(3); time.sleep(600)"
    monkeypatch.setattr(decoding, "COMMAND", ("-c", source, "app.decoder"))
    with pytest.raises(StartupError, match="do not start"):
        make().start()


@contextmanager
def stray(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


PARENT = """
import asyncio, os, sys
from app import decoding, image_header
from app.clock import Clock
from app.decoder import Decoded, Job
decoders = decoding.Decoders(
    count=1, seconds=10, max_bytes=20_000_000, max_pixels=50_000_000, max_pending=1
)
decoders.start()
photo = open(sys.argv[1], "rb").read()
async def main():
    job = Job(50_000_000, 224, "bilinear", None)
    task = asyncio.ensure_future(decoders.decode(photo, job, image_header.read(photo), Clock()))
    await asyncio.sleep(0.1)
    print("decodes", flush=True)
    await task
asyncio.run(main())
"""


def test_processes_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    photo = tmp_path / "slow.png"
    photo.write_bytes(SLOW)
    with stray("-c", PARENT, str(photo)) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"decodes\n"
        pids = children(parent.pid)
        assert len(pids) == 2
        # Signals to them are not theirs to obey: the service ends them, after their last answer.
        for pid in pids:
            for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, sent)
        time.sleep(0.05)
        assert set(children(parent.pid)) == set(pids)
        parent.kill()
        parent.wait(LONG)
    until = time.monotonic() + LONG
    while any(Path(f"/proc/{pid}").exists() for pid in pids):  # within their processor time
        assert time.monotonic() < until
        time.sleep(0.01)


def test_busy_processes_end_at_once_with_the_service(tmp_path: Path) -> None:
    """Not only when they write their answer, or when their time is over."""
    if not sys.platform.startswith("linux"):
        needs.absent("Linux, which tells of a parent's end")
    photo = tmp_path / "slow.png"
    photo.write_bytes(SLOW)
    with stray("-c", PARENT, str(photo)) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"decodes\n"
        pids = children(parent.pid)
        [busy] = [pid for pid in pids if not pids[pid].endswith("\x000\x00")]
        os.kill(busy, signal.SIGSTOP)  # it would never be done
        try:
            parent.kill()
            parent.wait(LONG)
            limit = time.monotonic() + LONG
            while any(alive(pid) for pid in pids):
                assert time.monotonic() < limit
                time.sleep(0.01)
        finally:
            with suppress(ProcessLookupError):
                os.kill(busy, signal.SIGKILL)


async def test_all_are_killed_without_waiting(others: set[int]) -> None:
    async with running() as decoders:
        slow = asyncio.ensure_future(decoded(decoders, SLOW))
        await asyncio.sleep(0.05)
        pids = set(children(os.getpid())) - others
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # none would end by itself
        decoders.kill()
        with pytest.raises(NotReady):
            await slow
        for pid in pids:
            with suppress(ChildProcessError):  # its exit status has been read
                await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended may wait for someone to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_a_photo_writes_nothing_to_the_service_s_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The library that reads TIFF does so about each fault of a file."""
    photo = bytearray(encode(picture(), "TIFF", compression="tiff_lzw"))
    photo[8:2000] = b"\xff" * 1992
    header = image_header.read(bytes(photo))
    with pytest.raises(UndecodableImage):
        images.decode(bytes(photo))
    assert capfd.readouterr().err  # in this process
    async with running() as decoders:
        with pytest.raises(UndecodableImage):
            await decoders.decode(bytes(photo), JOB, header, Clock())
    assert not capfd.readouterr().err


async def test_a_process_that_does_not_start_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "COMMAND", ("-m", "app.decoder", "no number"))
    with pytest.raises(StartupError):
        make().start()
    assert "ValueError" in capfd.readouterr().err


def environment(pid: int) -> dict[str, str]:
    block = Path(f"/proc/{pid}/environ").read_text()
    return dict(line.split("=", 1) for line in block.split("\0") if line)


async def test_processes_get_no_secrets(others: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"LC_TIME": "C", "PYTHONHASHSEED": "1", "TMPDIR": "/tmp"}
    for name, value in {"BREEDCAM_API_KEYS": "s3cret", "OTEL_X": "s3cret", **kept}.items():
        monkeypatch.setenv(name, value)
    async with running():
        variables = environment(quick_process(others))
    assert "s3cret" not in variables.values()
    assert variables.items() >= kept.items()


async def test_what_is_stopped_takes_no_photo(others: set[int]) -> None:
    decoders = make()
    decoders.start()
    slow = asyncio.ensure_future(decoded(decoders, SLOW))
    behind = asyncio.ensure_future(decoded(decoders, SLOW))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(decoders.stop)
    for task in (slow, behind):
        with pytest.raises(NotReady):
            await task
    with pytest.raises(NotReady):
        await decoded(decoders, JPEG)
    assert decoders.ended == 1  # the one that had a photo
    assert set(children(os.getpid())) == others


def test_a_telephone_s_photo_is_quick() -> None:
    """The commonest formats of 12 megapixels, at a usual size of file."""
    black = Image.new("RGB", (4032, 3024))
    header = image_header.read(encode(black, "HEIF", enc_params={"preset": "ultrafast"}))
    assert header.cost + 24 * 1_500_000 <= decoding.QUICK_COST
    assert header.peak_bytes <= decoding.QUICK_BYTES
    header = image_header.read(encode(picture(4032, 3024), quality=95))
    assert header.cost <= decoding.QUICK_COST
    assert header.peak_bytes <= decoding.QUICK_BYTES


async def test_a_jpeg_in_one_scan_is_quick_up_to_the_limit() -> None:
    """It is decoded at a reduced scale, so that it takes less memory than other formats."""
    photo = encode(Image.new("RGB", (8_000, 6_000), "tan"))
    header = image_header.read(photo)
    assert header.cost + 2 * 12_000_000 <= decoding.QUICK_COST  # beside it, a usual size of file
    async with running(max_pending=0) as decoders:
        decoded_ = await decoders.decode(photo, replace(JOB, overlay=1024), header, Clock())
        assert decoded_.width == 8_000
        assert decoders.ended == 0
        assert header.peak_bytes <= decoding.QUICK_BYTES


def test_a_decoder_imports_little(tmp_path: Path) -> None:
    """It starts in a quarter of a second, and takes 40 MB, because of this."""
    with stray("-c", "import app.decoder, sys; print(*sys.modules)") as process:
        assert process.stdout
        modules = set(process.stdout.read().decode().split())
    assert "app.images" in modules
    top = {name.partition(".")[0] for name in modules}
    assert not top & {"pydantic", "fastapi", "openvino", "cv2", "uvicorn", "tensorflow"}


# -- memory while decoding in this process


def test_the_second_decode_for_a_large_overlay_is_of_a_jpeg_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides: list[int] = []
    decode = images.decode

    def noted(data: bytes, **options: Any) -> images.Photo:
        sides.append(options["side"])
        return decode(data, **options)

    monkeypatch.setattr(images, "decode", noted)
    large = picture(2400, 1800)
    decoder.decode(encode(large), replace(JOB, overlay=1024))
    assert sides == [324, 720]
    sides.clear()
    decoder.decode(encode(large, "PNG", compress_level=1), replace(JOB, overlay=1024))
    assert sides == [324]
