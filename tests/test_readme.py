"""What the README says is so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bundle import Bundle
from app.settings import PROJECT, Settings
from tests import needs, readme

README = readme.README.read_text(encoding="utf-8")


def test_settings_table_is_that_of_the_settings() -> None:
    rows = re.findall(r"^\| `(BREEDCAM_\w+)` \| `(.*)` \| (.*) \|$", README, re.M)

    assert rows == [
        (f"BREEDCAM_{name.upper()}", str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_figures_are_those_of_the_shipped_model(shipped_bundle: Bundle) -> None:
    """Those that `evaluate --write` keeps; the never-seen photos' stand in no model.json."""
    metrics = shipped_bundle.card.metrics
    baselines = metrics["mean_iou_baselines"]
    accuracy = {
        "top-1 accuracy": metrics["top1"],
        "top-5 accuracy": metrics["top5"],
        "expected calibration error": metrics["ece"],
        "`confidence` is `ok`": metrics["confidence_ok"],
    }
    by_default = {
        "share with an IoU of 0.5 or more, `/gradcam`": metrics["gt_known_localization"],
        "mean IoU, constant box (80 % x 90 %, centred)": baselines["constant_box"],
        "mean IoU, the whole frame": baselines["full_frame"],
    }
    by_rule = {
        "mean IoU, `/gradcam`": ("gradcam", "last"),
        "mean IoU, `/cam`": ("cam", "last"),
        "mean IoU, `/gradcam?method=layercam&layers=last6`": ("layercam", "last6"),
    }
    part = README[README.index("## The model") : README.index("## Train")]
    rows = re.findall(r"^\| (.+?) \| (0\.\d{3})? ?\| (0\.\d{3})? ?\|$", part, re.M)
    printed = {name: (first, second) for name, first, second in rows}

    for name, figure in (accuracy | by_default).items():
        assert printed[name][0] == f"{figure:.3f}", name
    for name, (method, layers) in by_rule.items():
        figures = (metrics[key][method][layers] for key in ("mean_iou_fused", "mean_iou"))
        assert printed[name] == tuple(f"{figure:.3f}" for figure in figures), name
    for name in accuracy:
        assert printed[name][1], f"{name}: not measured on photos never seen"
    assert metrics["photos"] == 2066
    assert "TBD" not in part


def test_terms_of_the_weights_are_stated(shipped_bundle: Bundle) -> None:
    terms = r"\bImageNet\b.*\bnon-commercial\s+research\s+and\s+education\b"
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")

    for place in (shipped_bundle.card.licence, README, dockerfile):
        assert re.search(terms, place, re.S)


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake (serve|test|train|[a-z]+-[a-z]+)\b", README))

    assert {"serve", "test", "train"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_training_commands_exist() -> None:
    from training.cli import Training

    named = set(re.findall(r"-m training ([a-z]+)", README))

    assert named == {"train", "export", "bootstrap", "calibrate", "evaluate", "report"}
    assert named <= set(Training.model_fields)


def test_files_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        if target.startswith("#"):
            heading = target[1:].replace("-", " ")
            assert re.search(rf"^#+ {heading}$", README, re.M | re.I), target
        else:
            assert (PROJECT / target).exists(), target


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with readme.serve() as address:
        yield address


@pytest.mark.parametrize("example", readme.examples(README), ids=lambda each: each.command[:80])
def test_commands_work_as_printed(
    address: str, shipped_bundle: Bundle, tmp_path: Path, example: readme.Example
) -> None:
    needs.shared("photos")
    assert example.command.count("curl ") == 1
    given = example.run(address, tmp_path)

    if example.gives_headers:
        assert example.answer is not None
        assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")
        told = {line.partition(":")[0].lower() for line in example.answer.splitlines()}
        names = {line.partition(":")[0].lower() for line in given.splitlines()}
        assert {name for name in told if name.startswith("breedcam-")} <= names
        assert "breedcam-iou" in told
    elif example.answer is None:
        assert json.loads(given)["name"] == shipped_bundle.card.name
    else:
        _check_like(json.loads(given), json.loads(example.answer))


def _check_like(given: Any, told: Any, key: str = "") -> None:
    """Words equal; numbers nearly so, for another CPU rounds in another way; times as they are."""
    if isinstance(told, dict):
        assert set(given) == set(told)
        for each in told:
            if each != "timings_ms":
                _check_like(given[each], told[each], each)
    elif isinstance(told, list):
        assert len(given) == len(told)
        for one, other in zip(given, told, strict=True):
            _check_like(one, other, key)
    elif isinstance(told, float):
        near = {"box": 8.0, "peak": 40.0}.get(key, 0.05)
        assert given == pytest.approx(told, abs=near)
    else:
        assert given == told
