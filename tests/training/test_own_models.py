"""Versions of a user's own, from the command line to the service and what it is sure of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle import Method, load
from tests.training.folders import write_photos
from tests.training.pictures import photo
from tests.training.service_client import post_photo
from tests.training.small_networks import tiny_net
from training import cli


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without boxes."""
    directory = tmp_path_factory.mktemp("photos")
    write_photos(directory, 10)
    return directory


def _log_odds(predictions: list[dict[str, Any]]) -> float:
    red = next(entry["probability"] for entry in predictions if entry["label"] == "red dog")
    return float(np.log(red / (1 - red)))


@pytest.mark.slow
def test_keras_classifier_is_calibrated_on_a_folder_without_boxes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("n00000001\tred dog\nblue dog\n", encoding="utf-8")
    tiny_net(2).save(tmp_path / "own.keras")
    models = ("--models-dir", str(tmp_path), "--name", "own", "--input-size", "32")
    cli.main(["export", "--keras", str(tmp_path / "own.keras"), "--labels", str(labels), *models])
    version, sent = tmp_path / "own" / "1", photo(0, 1).read()
    card = load(version).card
    card.model_copy(update={"thresholds": {Method.CAM: {"last": 0.3}}}).write(version)
    (before,) = post_photo(version, sent, "/predict")
    assert before.json()["confidence"] is None

    cli.main(
        ["calibrate", "--model", str(version), "--source", "folder", "--data-dir", str(photos)]
    )

    printed = capsys.readouterr()
    after = load(version).card
    assert "No photo of the training split has a box" in printed.err
    assert after.confidence is not None
    assert f"temperature {after.confidence.temperature:g}" in printed.out
    assert "Boxes" not in printed.out
    assert (after.thresholds, after.fused) == ({Method.CAM: {"last": 0.3}}, {})
    assert after.confidence.most_novelty is None
    assert after.confidence.photos >= 2
    predict, cam = post_photo(version, sent, "/predict", "/cam")
    assert predict.json()["confidence"] in ("ok", "low")
    assert _log_odds(predict.json()["predictions"]) == pytest.approx(
        _log_odds(before.json()["predictions"]) / after.confidence.temperature, rel=1e-3
    )
    assert cam.json()["explanation"]["threshold"] == 0.3


@pytest.mark.slow
def test_network_trained_on_a_folder_without_boxes(photos: Path, tmp_path: Path) -> None:
    source = ("--source", "folder", "--data-dir", str(photos))
    run, version = tmp_path / "run", tmp_path / "mine" / "1"
    network = ("--architecture", "custom_cnn", "--weights", "none", "--input-size", "32")
    steps = ("--stages", "32x1", "--batch-size", "8", "--precision", "float32")
    cli.main(["train", *source, "--run", str(run), *network, *steps])
    cli.main(["export", "--run", str(run), "--models-dir", str(tmp_path), "--name", "mine"])
    card = load(version).card
    assert card.data is not None
    assert (card.foreground.rule, card.foreground.photos) == ("ddt", card.data.splits["train"])
    assert card.novelty is not None
    (before,) = post_photo(version, photo(0, 1).read(), "/predict")
    assert before.json()["confidence"] is None

    cli.main(["calibrate", "--model", str(version), *source])

    after = load(version).card
    assert after.thresholds == {}
    assert after.confidence is not None
    assert after.confidence.photos == card.data.splits["validation"]
    assert after.confidence.most_novelty is not None
    answers = post_photo(version, photo(0, 1).read(), "/predict", "/gradcam?layers=last6", "/cam")
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert answers[0].json()["confidence"] in ("ok", "low")
