"""The command, ended in every way."""

import json
import signal
from pathlib import Path

import pytest

from app.batch.cli import main
from tests.app.batch.runs import (
    ENDING,
    SETTINGS,
    check_alike,
    rows,
    run,
    running,
    wait_for_parts,
    write_photos,
)
from tests.app.services import LONG

EXACT = {"precision": "float32"}


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of runs by `start`, and pytest's own logging, for `main` in this process."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"BREEDCAM_{name.upper()}", str(value))
    monkeypatch.setattr("app.logs.configure", lambda *_: None)


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL in mid-write of a part, Ctrl-C in that of another, and the rest."""
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 40)
    (photos / "b" / "0001.jpg").write_bytes(b"no photo")
    command = (photos, out, "--part-photos", 8, "--coco")

    # `run.json` takes calls 1 and 2; the first part 3 and 4, the second 5.
    status, _ = run(*command, code=("-c", ENDING.format(call=5, signal="SIGKILL")), **EXACT)
    assert status == -signal.SIGKILL
    assert 1 <= len(list(out.glob("part-*.jsonl"))) < 5
    first = [path.stat().st_mtime_ns for path in out.glob("part-*")]

    status, errors = run(*command, code=("-c", ENDING.format(call=1, signal="SIGINT")), **EXACT)
    assert status == 128 + signal.SIGINT
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert not (out / "summary.json").exists()

    status, errors = run(*command, **EXACT)
    assert status == 0, errors
    assert "40 photos: 39 answered, 1 refused (unsupported-media-type 1)." in errors
    assert [row["id"] for row in rows(out)] == names
    assert not list(out.glob(".draft-*"))
    assert first[0] in [path.stat().st_mtime_ns for path in out.glob("part-*")]
    boxes = [row for row in rows(out) if row["explanation"] and row["explanation"]["box"]]
    results = json.loads((out / "coco_results.json").read_text())
    assert [result["image_id"] for result in results] == [row["image_id"] for row in boxes]

    status, errors = run(photos, tmp_path / "whole", "--part-photos", 8, **EXACT)
    assert status == 0, errors
    check_alike(rows(out), rows(tmp_path / "whole"), 1e-4)


def test_a_finished_run_is_left_alone(
    capsys: pytest.CaptureFixture[str], finished: tuple[Path, Path]
) -> None:
    photos, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    main([str(photos), str(out)])
    assert "1 photos: 1 answered" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}
    main([str(photos), str(out), "--coco"])  # can be made of what is there
    assert (out / "coco_results.json").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_photos(folder / "in", 1)
    status, errors = run(folder / "in", folder / "out")
    assert status == 0, errors
    return folder / "in", folder / "out"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--part-photos", "7"], "part_photos"),
        (["--top-k", "2"], "query"),
        (["--endpoint", "cam"], "endpoint, query"),
        (["--rows", "parquet"], "rows"),
        (["--overlays"], "query, overlays"),
    ],
)
def test_other_options_are_refused(
    finished: tuple[Path, Path],
    options: list[str],
    names: str,
) -> None:
    photos, out = finished
    with pytest.raises(SystemExit) as ended:
        main([str(photos), str(out), *options])
    assert f"differs in {names} " in str(ended.value)


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (["--top-k", "many"], 2, "--top-k: Input should be a valid integer"),
        (["--endpoint", "cam", "--layers", "last6"], 2, "--layers: the endpoint has no such"),
        (["--target", "cat"], 1, "--target: 'cat'"),
        (["--layers", "conv9"], 1, "does not expose 'conv9'"),
        (["--endpoint", "predict", "--coco"], 1, "--coco needs boxes"),
        (["--endpoint", "predict", "--overlays"], 1, "--overlays needs a heatmap"),
        (["--workers", "2"], 1, "no effect without --ray"),
        (["--part-photos", "0"], 2, "--part-photos"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    status: int,
    reason: str,
) -> None:
    write_photos(tmp_path / "in", 1)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "in"), str(tmp_path / "out"), *options])
    if status == 1:
        assert reason in str(ended.value)
    else:
        assert reason in capsys.readouterr().err
        assert ended.value.code == 2
    assert not (tmp_path / "out").exists()


def test_no_photos_and_no_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for out, reason in [("out", "There are no photos"), ("in/out", "must not lie in")]:
        with pytest.raises(SystemExit, match=reason):
            main([str(tmp_path / "in"), str(tmp_path / out)])


@pytest.mark.slow
def test_2000_photos_killed_twice(tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 2000)
    command = (photos, out, "--part-photos", 100)
    for parts in (3, 8):
        with running(*command, max_batch=8) as process:
            wait_for_parts(process, out, parts)
            process.kill()
            assert process.wait(LONG) == -signal.SIGKILL
        assert len(rows(out)) < 2000
    with running(*command, max_batch=8) as process:
        wait_for_parts(process, out, 12)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 128 + signal.SIGTERM
    status, errors = run(*command, max_batch=8)
    assert status == 0, errors
    assert [row["id"] for row in rows(out)] == names
    assert not list(out.glob(".draft-*"))

    status, errors = run(photos, tmp_path / "whole", max_batch=8)
    assert status == 0, errors
    # Arithmetic in bfloat16 has three digits.
    check_alike(rows(out), rows(tmp_path / "whole"), 0.1)
