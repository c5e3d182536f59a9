"""The command, ended in every way."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.batch import cli
from app.batch.cli import main, parser
from app.batch.inputs import Source
from app.batch.output import Output
from app.batch.rows import Row
from app.errors import UndecodableImage
from app.schemas import PredictQuery
from tests.app.batch.runs import (
    ENDING,
    SETTINGS,
    rows,
    run,
    running,
    wait_for_parts,
    write_dogs,
    write_photos,
)
from tests.app.services import LONG


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of runs by `start`, and pytest's own logging, for `main` in this process."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"BREEDCAM_{name.upper()}", str(value))
    monkeypatch.setattr("app.logs.configure", lambda *_: None)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL in mid-write of a part, SIGTERM in that of another, and the rest."""
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 40)
    (photos / "b" / "0001.jpg").write_bytes(b"no photo")
    command = (photos, out, "--part-photos", 8, "--coco")

    # `run.json` takes calls 1 and 2; the first part 3 and 4, the second 5.
    status, _ = run(*command, code=("-c", ENDING.format(call=5, signal="SIGKILL")))
    assert status == -signal.SIGKILL
    assert 1 <= len(list(out.glob("part-*.jsonl"))) < 5
    first = [path.stat().st_mtime_ns for path in out.glob("part-*")]

    status, errors = run(*command, code=("-c", ENDING.format(call=1, signal="SIGTERM")))
    assert status == 128 + signal.SIGTERM
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert not (out / "summary.json").exists()

    status, errors = run(*command)
    assert status == 0, errors
    assert "40 photos: 39 answered, 1 refused (unsupported-media-type 1)." in errors
    assert [row["id"] for row in rows(out)] == names
    assert not (out / ".drafts").exists()
    assert first[0] in [path.stat().st_mtime_ns for path in out.glob("part-*")]
    boxes = [row for row in rows(out) if row["explanation"] and row["explanation"]["box"]]
    results = json.loads((out / "coco_results.json").read_text())
    assert [result["image_id"] for result in results] == [row["image_id"] for row in boxes]


def refuse_all(*run: Any) -> None:
    """In place of the model's work, where it does not matter."""
    source: Source
    output: Output
    _, _, source, output, parts = run
    for part in parts:
        [photos] = source.batches(*output.manifest.bounds(part))
        rows = [Row.refused(photo, UndecodableImage("no")) for photo in photos]
        output.write_part(part, rows)


def test_a_finished_run_is_left_alone(
    capsys: pytest.CaptureFixture[str], finished: tuple[Path, Path]
) -> None:
    photos, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != ".lock"}
    main([str(photos), str(out)])
    assert "1 photo: 0 answered, 1 refused" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}
    main([str(photos), str(out), "--coco"])  # can be made of what is there
    assert (out / "coco_results.json").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_photos(folder / "in", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.logs.configure", lambda *_: None)
        patch.setattr(cli, "_write", refuse_all)
        for name, value in SETTINGS.items():
            patch.setenv(f"BREEDCAM_{name.upper()}", str(value))
        main([str(folder / "in"), str(folder / "out")])
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
    ("options", "reason"),
    [
        (["--top-k", "many"], "--top-k must be a whole number."),
        (
            ["--endpoint", "cam", "--layers", "last6"],
            "--layers: there is no such parameter. There are --top-k,",
        ),
        (["--target", "beagel"], "--target: the model has no class 'beagel'; near: beagle"),
        (["--target", "beagle", "--versus", "Beagle"], "--target and --versus name the same"),
        (["--layers", "conv9"], "does not expose 'conv9'"),
        (["--endpoint", "predict", "--coco"], "--coco needs boxes"),
        (["--endpoint", "predict", "--overlays"], "--overlays needs a heatmap"),
        (["--workers", "2"], "--workers has no effect without --ray"),
        (["--ray-address", "here:1"], "--ray-address has no effect without --ray"),
        (["--part-photos", "0"], "--part-photos: '0' is not a whole number from 1 up"),
        (["--topk", "3"], "unrecognized arguments: --topk 3. See `python -m app.batch --help`."),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    reason: str,
) -> None:
    write_photos(tmp_path / "in", 1)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "in"), str(tmp_path / "out"), *options])
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert reason in stderr
    assert len(stderr.splitlines()) == 1
    assert ended.value.code == 2
    assert not (tmp_path / "out").exists()


def test_no_photos(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SystemExit, match="There are no photos"):
        main([str(tmp_path / "in"), str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("out", "reason"),
    [("in/out", "must not lie in"), ("file", "is not a folder"), ("", "it is empty")],
)
def test_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "in"), out and str(tmp_path / out)])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_ray_takes_no_other_argument() -> None:
    options = parser().parse_args(["--ray", "photos", "out"])
    assert (options.ray, options.input, options.output) == (True, Path("photos"), Path("out"))


def test_settings_that_cannot_be_right_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREEDCAM_MAX_BATCH", "none")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: BREEDCAM_MAX_BATCH must be a whole number.\n"


def test_a_bug_is_not_reported_as_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "open_input", lambda _: PredictQuery(top_k=-1))
    with pytest.raises(ValidationError):
        main([str(tmp_path / "in"), str(tmp_path / "out")])


def test_a_part_that_is_lost_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is one that somebody deletes after the run: nothing that is made of it is stale."""
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 3)

    def lose_the_first(*run: Any) -> None:
        *others, parts = run
        refuse_all(*others, parts[1:])

    monkeypatch.setattr(cli, "_write", lose_the_first)
    command = [str(photos), str(out), "--part-photos", "2", "--coco"]
    with pytest.raises(SystemExit, match=r"error: part-00000\.jsonl is not written"):
        main(command)
    assert {path.name for path in out.iterdir()} == {".lock", "run.json", "part-00001.jsonl"}

    (out / "summary.json").write_text("{}")
    (out / "coco_results.json").write_text("stale")
    monkeypatch.setattr(cli, "_write", refuse_all)
    main(command)
    assert "3 photos: 0 answered, 3 refused (undecodable-image 3)." in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["photos"] == 3
    assert json.loads((out / "coco_results.json").read_text()) == []


@pytest.mark.slow
def test_2000_photos_killed_twice(tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_dogs(photos, 2000)
    command = (photos, out, "--part-photos", 100)
    for parts in (3, 8):
        with running(*command, max_batch=8) as process:
            wait_for_parts(process, out, parts)
            process.kill()
            assert process.wait(LONG) == -signal.SIGKILL
        assert len(rows(out)) < 2000
    with running(*command, max_batch=8) as process:
        wait_for_parts(process, out, 12)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 128 + signal.SIGINT
    status, errors = run(*command, max_batch=8)
    assert status == 0, errors
    assert "2,000 photos: 2,000 answered, 0 refused." in errors
    assert [row["id"] for row in rows(out)] == names
    assert not (out / ".drafts").exists()
