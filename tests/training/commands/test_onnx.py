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


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Where `own_model` is exported to."""
    return tmp_path / "models"


@pytest.fixture
def own_model(tmp_path: Path, models: Path) -> list[str]:
    """The command that exports a Keras model."""
    labels, path = tmp_path / "labels.txt", tmp_path / "own.keras"
    labels.write_text("red dog\nblue dog\n", encoding="utf-8")
    tiny_net(2).save(path)
    keras = ["--keras", str(path), "--labels", str(labels), "--input-size", "32"]
    return ["export", *keras, "--models-dir", str(models)]


def test_export_writes_a_file_as_well(own_model: list[str], models: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"

    cli.main([*own_model, "--onnx", str(path)])
    # Beside the version, which is found below the model's folder.
    model = models / "dogs"
    cli.main(["onnx", "--model", str(model), "--out", str(model / "own.onnx")])
    assert (model / "own.onnx").read_bytes() == path.read_bytes()

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    card = ModelCard.model_validate_json(session.get_modelmeta().custom_metadata_map["model.json"])
    assert card == bundles.load(models / "dogs" / "1").card.replace(checksums={})


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


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("training.export.onnx"):
            monkeypatch.delitem(sys.modules, name)
    # A module that was imported stays an attribute of its package.
    monkeypatch.delattr("training.export.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)


@pytest.mark.usefixtures("without_onnx")
def test_absent_packages_are_named(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"needs the extra `onnx`.*make \.venv/\.onnx"):
        cli.main(["onnx", "--model", str(small_bundle.path), "--out", str(tmp_path / "a.onnx")])
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("without_onnx")
def test_nothing_is_exported_where_packages_are_absent(own_model: list[str], models: Path) -> None:
    with pytest.raises(SystemExit, match="needs the extra `onnx`"):
        cli.main([*own_model, "--onnx", str(models.parent / "own.onnx")])
    assert not models.exists()


@pytest.mark.parametrize(
    ("path", "problem"),
    [("absent/own.onnx", "absent is no directory"), ("models/dogs/1/a.onnx", "lies in the model")],
)
def test_nothing_is_exported_where_no_file_can_be_written(
    own_model: list[str], models: Path, path: str, problem: str
) -> None:
    with pytest.raises(SystemExit, match=problem):
        cli.main([*own_model, "--onnx", str(models.parent / path)])
    assert not models.exists()
