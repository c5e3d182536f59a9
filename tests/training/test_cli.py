import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import bundle as bundles
from app.settings import PROJECT, Settings
from tests.training.command_line import hint, shell, training
from tests.training.small_networks import tiny_net
from training import cli
from training.commands.export import Bootstrap

TRAIN = ["train", "--preset", "scratch", "--stages", "32x1,48x1", "--input-size", "64"]
OPTIONS = ["--batch-size", "4", "--precision", "float32"]


def _error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code, capsys.readouterr().err


def test_bad_values_are_told_by_option(capsys: pytest.CaptureFixture[str]) -> None:
    code, stderr = _error(capsys, ["train", "--batch-size", "1", "--stages", "big"])

    assert code == 2
    assert "--batch-size: " in stderr
    assert "--stages" in stderr
    assert "Traceback" not in stderr


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    code, stderr = _error(capsys, ["train", "--architecture", "custom_cnn"])

    assert code == 2
    assert stderr.startswith("error: ")
    assert "--stages 224xEPOCHS" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--no-such-option", "1"], "unrecognized arguments: --no-such-option 1"),
        (["train", "--batch-size"], "argument --batch-size: expected one argument"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, stderr = _error(capsys, arguments)

    assert code == 2
    command = " ".join(["python -m training", *[name for name in arguments[:1] if name == "train"]])
    assert stderr == f"error: {message}. See `{command} --help`.\n"


def test_help_says_what_an_epoch_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    _, _, of_batches = text.partition("--batch-size N photos in a step")
    assert "leaves out what does not fill its last step" in of_batches[:200]


def test_resume_needs_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _ = _error(capsys, ["train", "--run", str(tmp_path), "--resume"])

    assert code == f"error: {tmp_path} holds no run."


@pytest.mark.parametrize("command", [["train", "--resume"], ["export"]])
def test_configuration_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "config.json").write_text('{"seed": "half a')

    code, _ = _error(capsys, [*command, "--run", str(tmp_path)])

    assert str(code).startswith(f"error: {tmp_path}/config.json cannot be read")


def test_finished_run_says_so(
    capsys: pytest.CaptureFixture[str],
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.fit import trainable

    monkeypatch.setattr(trainable, "build", lambda _config, labels: tiny_net(len(labels)))
    run = ["--run", str(tmp_path / "run")]
    train = [*TRAIN[:3], "--stages", "32x1", *TRAIN[5:]]
    cli.main([*train, *OPTIONS, *run, "--data-dir", str(prepared)])
    stderr = capsys.readouterr().err
    python, _, rest = hint(stderr).partition(" ")
    assert Path(python).absolute() == Path(sys.executable)
    assert rest == f"-m training export --run {tmp_path}/run"

    cli.main(["train", *run, "--resume"])

    assert "This run is finished: 9 of 9 steps." in capsys.readouterr().err


def test_run_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    code, _ = _error(capsys, ["train", "--run", str(tmp_path)])

    assert "--resume" in str(code)


def test_data_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["train", "--run", str(tmp_path / "run"), "--data-dir", str(tmp_path / "none")]

    code, _ = _error(capsys, arguments)

    assert str(code).startswith("error: No prepared TFDS data set at")
    assert not (tmp_path / "run").exists()


def test_model_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _ = _error(capsys, ["evaluate", "--model", str(tmp_path / "none")])

    assert str(code).startswith("error: There is no model at")


def test_figures_that_could_not_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = tmp_path / "none" / "figures.json"

    code, _ = _error(capsys, ["evaluate", "--model", str(tmp_path), "--out", str(place)])

    assert code == f"error: --out {place}: there is no directory {place.parent}."


def test_figures_beside_others_have_to_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _ = _error(capsys, ["evaluate", "--model", str(tmp_path), "--beside", "others"])

    assert str(code).startswith("error: --beside says where --write puts the figures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "l.txt"], "--labels goes with --keras FILE alone."),
        (["--input-size", "64"], "--input-size goes with --keras FILE alone."),
        (["--preprocessing", "none"], "--preprocessing goes with --keras FILE alone."),
        (["--keras", "own.h5", "--run", "runs/dogs"], "--run is of a run"),
        (["--data-dir", "photos"], "--data-dir goes with --keras FILE alone."),
        (["--source", "folder"], "--source goes with --keras FILE alone."),
        (["--keras", "own.h5", "--labels", "l.txt", "--photos", "9"], "--photos has no effect"),
        ([], "runs/dogs holds no run."),
        (["--keras", "own.h5", "--labels", "l.txt"], "The labels l.txt cannot be read"),
    ],
)
def test_export_takes_the_options_of_its_source_alone(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    code, _ = _error(capsys, ["export", *options])

    assert str(code).startswith(f"error: {message}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_photos_to_a_model_that_is_served(prepared: Path, tmp_path: Path) -> None:
    run, models = tmp_path / "run", tmp_path / "models"
    command = [sys.executable, "-m", "training", *TRAIN, *OPTIONS, "--data-dir", str(prepared)]
    process = subprocess.Popen(
        [*command, "--run", str(run)], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (run / "history.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert hint(stderr).endswith(f"train --run {run} --resume")

    shell(hint(stderr))
    rows = (run / "history.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [["1", "32", "9"], ["2", "48", "18"]]

    training("export", "--run", run, "--models-dir", models, "--name", "trio")
    version = models / "trio" / "1"
    training("calibrate", "--model", version, "--data-dir", prepared)
    on_model = ("--model", version, "--data-dir", prepared, "--sample", "2")
    training("evaluate", *on_model, "--write", "--out", tmp_path / "figures.json")
    evaluated = json.loads((tmp_path / "figures.json").read_bytes())

    card = bundles.load(version).card  # verifies the checksums
    assert card.data is not None
    assert set(card.thresholds) == set(bundles.Method)
    assert card.confidence is not None
    assert card.confidence.photos == card.data.splits["validation"]
    assert card.confidence.most_novelty is not None
    assert card.metrics == {name: evaluated[name] for name in card.metrics}
    assert {"top1", "mean_iou", "mean_iou_baselines"} <= card.metrics.keys()
    assert {"localization", "faithfulness", "breeds"} <= evaluated.keys() - card.metrics.keys()
    assert [label.synset for label in card.labels] == ["n02088364", "n02099601", "n02115641"]
    photos = card.data.splits["train"]
    assert (card.foreground.rule, card.foreground.photos) == ("ddt", photos)
    assert card.foreground.layers == ("conv4_block6_out", "conv5_block3_out")
    assert card.novelty is not None
    assert (card.novelty.dimensions, card.novelty.photos) == (photos // 4, photos)
    assert card.training["stages"] == [{"size": 32, "epochs": 1}, {"size": 48, "epochs": 1}]
    assert str(tmp_path) not in (version / bundles.CARD_PATH).read_text()
    assert str(prepared) not in (version / bundles.CARD_PATH).read_text()


def test_teachers_weight_needs_teachers(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no effect without --teachers"):
        cli.main(["train", "--run", str(tmp_path), "--teacher-weight", "0.3"])


def test_bootstrap_does_not_replace_the_model_that_is_served() -> None:
    served: Path = Settings.model_fields["model"].default

    assert Bootstrap().name != served.name
