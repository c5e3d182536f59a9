"""What of the figures `model.json` keeps, and what the commands say."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import bundle as bundles
from app import engines
from app.bundle import Method
from tests.training.folders import write_photos
from tests.training.small_networks import tiny_net
from training import cli
from training.commands.measure import with_metrics
from training.evaluation import comparison as compared
from training.evaluation import perturbation


def test_figures_of_other_photos_lie_beside_those_of_the_test_split() -> None:
    first = with_metrics({}, {"top1": 0.8}, None)
    both = with_metrics(first, {"top1": 0.7}, "others")
    third = with_metrics(both, {"top1": 0.6}, "more")
    again = with_metrics(third, {"top1": 0.9}, None)

    assert first == {"top1": 0.8}
    assert both == {"top1": 0.8, "beside": {"others": {"top1": 0.7}}}
    assert again == {"top1": 0.9, "beside": {"others": {"top1": 0.7}, "more": {"top1": 0.6}}}
    assert with_metrics(both, {"top1": 0.5}, "others")["beside"] == {"others": {"top1": 0.5}}
    assert with_metrics({}, {"top1": 0.5}, "others") == {"beside": {"others": {"top1": 0.5}}}


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Untrained, of three classes."""
    labels = tmp_path / "labels.txt"
    labels.write_text("n00000001\tred dog\nblue dog\ndingo\n", encoding="utf-8")
    tiny_net(3).save(tmp_path / "own.keras")
    models = ("--models-dir", str(tmp_path), "--name", "own", "--input-size", "32")
    cli.main(["export", "--keras", str(tmp_path / "own.keras"), "--labels", str(labels), *models])
    return tmp_path / "own" / "1"


def test_photos_of_some_of_the_classes(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    write_photos(photos, 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", str(photos))

    cli.main(["calibrate", *source, "--limit", "2"])
    calibrated = capsys.readouterr()
    cli.main(["evaluate", *source, "--sample", "0", "--write", "--note", "never seen"])
    evaluated = capsys.readouterr()
    limited = ("--limit", "1", "--sample", "0", "--write", "--beside", "one photo")
    cli.main(["evaluate", *source, *limited])

    warning = "Warning: 1 of the model's 3 classes have no {} photo (dingo)."
    assert warning.format("validation") in calibrated.err
    assert warning.format("test") in evaluated.err
    card = bundles.load(version).card
    assert card.confidence is not None
    assert card.confidence.photos == 2
    assert "on all 2 validation photos" in calibrated.out or "on 2 of " in calibrated.out
    metrics = card.metrics
    assert (metrics["split"], metrics["note"]) == ("test", "never seen")
    assert metrics["beside"]["one photo"]["photos"] == 1
    assert metrics["photos"] > 1
    (line,) = [line for line in evaluated.out.splitlines() if line.startswith("top-1 accuracy")]
    assert line.split()[2] == f"{metrics['top1']:.3f}"
    assert "{" not in evaluated.out


def test_sample_that_misses_a_class_is_warned_of(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos", 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", f"{tmp_path / 'photos'}")

    cli.main(["evaluate", *source, "--sample", "0", "--limit", "1"])

    assert "Warning: 2 of the model's 3 classes have no test photo" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_what_another_command_writes_meanwhile_stays(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write_photos(tmp_path / "photos", 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", f"{tmp_path / 'photos'}")
    engine = engines.create

    def meanwhile(bundle: bundles.Bundle, **options: Any) -> engines.Engine:
        metrics = {"beside": {"others": {"top1": 0.5}}}
        bundle.card.replace(metrics=metrics).write(bundle.path)
        return engine(bundle, **options)

    monkeypatch.setattr(engines, "create", meanwhile)
    cli.main([command, *source, *(["--write", "--sample", "0"] if command == "evaluate" else [])])

    card = bundles.load(version).card
    assert card.metrics["beside"]["others"] == {"top1": 0.5}
    assert (card.confidence is not None) == (command == "calibrate")
    assert ("top1" in card.metrics) == (command == "evaluate")


def test_figures_of_a_version_that_is_calibrated_meanwhile_are_refused(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", f"{tmp_path / 'photos'}")
    engine = engines.create

    def meanwhile(bundle: bundles.Bundle, **options: Any) -> engines.Engine:
        bundle.card.replace(thresholds={Method.CAM: {"last": 0.4}}).write(bundle.path)
        return engine(bundle, **options)

    monkeypatch.setattr(engines, "create", meanwhile)
    with pytest.raises(SystemExit, match="has changed while it was measured"):
        cli.main(["evaluate", *source, "--write", "--sample", "0"])

    assert bundles.load(version).card.metrics == {}


def test_methods_that_perturb_photos_are_compared(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, figures = tmp_path / "photos", tmp_path / "figures.json"
    write_photos(photos, 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", str(photos))
    sizes = ("--perturbation-photos", "2", "--perturbation-samples", "100")

    cli.main(
        ["evaluate", *source, "--perturbation", "rise,lime,rise", *sizes, "--out", str(figures)]
    )

    measured = json.loads(figures.read_bytes())["perturbation"]
    assert list(measured["perturbation"]) == ["rise", "lime"]
    assert (measured["photos"], measured["samples"]) == (2, 100)
    printed = capsys.readouterr()
    (line,) = [line for line in printed.out.splitlines() if line.startswith("RISE")]
    assert line.split()[-2] == "100"
    assert "constant box" in printed.out
    assert "there are no more" not in printed.err
    with pytest.raises(SystemExit):
        cli.main(["evaluate", *source, "--perturbation", "shapley"])
    assert "'lime', 'kernelshap' or 'rise'" in capsys.readouterr().err


def test_missing_extra_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(perturbation, "import_module", missing)

    with pytest.raises(SystemExit, match="lime needs the extra `perturbation`"):
        cli.main(["evaluate", "--model", str(tmp_path / "none"), "--perturbation", "lime"])


def test_figures_are_written_before_the_hours_of_a_comparison(
    version: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, figures = tmp_path / "photos", tmp_path / "figures.json"
    write_photos(photos, 12)
    source = ("--model", str(version), "--source", "folder", "--data-dir", str(photos))

    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compared, "comparison", ended)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        cli.main(["evaluate", *source, "--perturbation", "rise", "--write", "--out", str(figures)])

    measured = json.loads(figures.read_bytes())
    assert "perturbation" not in measured
    assert bundles.load(version).card.metrics["top1"] == measured["top1"]
    err = capsys.readouterr().err
    assert f"takes {measured['photos']} photos and not 50: there are no more" in err


def test_sizes_of_a_comparison_without_its_methods_are_refused(tmp_path: Path) -> None:
    model = ("--model", str(tmp_path / "none"))

    for option in ("--perturbation-photos", "--perturbation-samples"):
        with pytest.raises(SystemExit, match="belong to --perturbation"):
            cli.main(["evaluate", *model, option, "500"])
    with pytest.raises(SystemExit, match="none"):
        cli.main(["evaluate", *model])
