import sys
from pathlib import Path

import onnxruntime
import pytest

from app.bundle import Bundle
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
