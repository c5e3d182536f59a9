import sys
from pathlib import Path

import onnxruntime
import pytest

from app import bundle as bundles
from app.bundle import Bundle, ModelCard
from tests.training.small_networks import tiny_net
from training import cli


def test_command_writes_a_file(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.onnx"

    cli.main(["onnx", "--model", str(small_bundle.path), "--out", str(path), "--float16"])

    stderr = capsys.readouterr().err
    assert f"Wrote {path}. On test images, probabilities by ONNX Runtime differ" in stderr
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().producer_name == "breedcam"


def test_export_writes_a_file_as_well(tmp_path: Path) -> None:
    labels, path = tmp_path / "labels.txt", tmp_path / "own.onnx"
    labels.write_text("red dog\nblue dog\n", encoding="utf-8")
    tiny_net(2).save(tmp_path / "own.keras")
    keras = ("--keras", str(tmp_path / "own.keras"), "--labels", str(labels), "--input-size", "32")

    cli.main(["export", *keras, "--models-dir", str(tmp_path), "--onnx", str(path)])

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    card = ModelCard.model_validate_json(session.get_modelmeta().custom_metadata_map["model.json"])
    assert card == bundles.load(tmp_path / "dogs" / "1").card.replace(checksums={})


def test_a_model_that_needs_float32_is_a_warning(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, card = tmp_path / "small.onnx", small_bundle.card
    options = ["onnx", "--model", str(small_bundle.path), "--out", str(path)]
    card.replace(precision="float32").write(small_bundle.path)
    try:
        cli.main([*options, "--float16"])
        cli.main(options)
    finally:
        card.write(small_bundle.path)

    assert capsys.readouterr().err.count("Warning: by model.json, this model") == 1


def test_absent_packages_are_named(
    small_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in list(sys.modules):
        if name.startswith("training.export.onnx"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(SystemExit, match=r"needs the extra `onnx`.*make \.venv/\.onnx"):
        cli.main(["onnx", "--model", str(small_bundle.path), "--out", str(tmp_path / "a.onnx")])
    assert capsys.readouterr().out == ""
