"""Files that Keras cannot load: its reason, in one line."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import pytest

from tests.training.small_networks import tiny_net
from training.errors import ExportError
from training.export.keras_file import load


def _rewritten(path: Path, change: Callable[[dict[str, Any]], None], version: str) -> None:
    """Change the layer `stem`'s configuration in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config, metadata = json.loads(parts["config.json"]), json.loads(parts["metadata.json"])
    change(next(layer for layer in config["config"]["layers"] if layer["name"] == "stem"))
    metadata["keras_version"] = version
    parts |= {"config.json": json.dumps(config).encode()}
    parts["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: layer["config"].update(novel=1), r"layer 'stem': .*Conv2D.*'novel'"),
        (lambda layer: layer["config"].update(activation="novel"), "layer 'stem': .*novel"),
        (lambda layer: layer.update(class_name="Novel", module=None), "class 'Novel'.*code"),
    ],
    ids=["argument", "activation", "layer"],
)
def test_newer_file(tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str) -> None:
    path = tmp_path / "own.keras"
    tiny_net(2).save(path)
    _rewritten(path, change, "4.0.0")

    with pytest.raises(ExportError, match=reason) as caught:
        load(path)

    message = str(caught.value)
    assert f"Keras {keras.__version__} cannot load" in message
    assert "which Keras 4.0.0 wrote" in message
    assert "\n" not in message
    assert len(message) < 800


def test_version_of_a_legacy_file(tmp_path: Path) -> None:
    path = tmp_path / "own.weights.h5"
    tiny_net(2).save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = b"2.4.0"

    with pytest.raises(ExportError, match=r"own\.weights\.h5, which Keras 2\.4\.0 wrote"):
        load(path)


@pytest.mark.parametrize("kind", ["lambda", "function"])
def test_code_that_is_not_in_the_file(tmp_path: Path, kind: str) -> None:
    function = keras.applications.resnet50.preprocess_input
    layer = keras.layers.Lambda(function if kind == "function" else lambda x: x * 2)
    model = keras.Sequential([keras.Input((16, 16, 3)), layer, keras.layers.Flatten()])
    model.save(tmp_path / "own.keras")

    with pytest.raises(ExportError, match=r"code is not in the file.*--preprocessing") as caught:
        load(tmp_path / "own.keras")

    assert "\n" not in str(caught.value)


def test_directory_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is a directory; save the model as one \.keras file"):
        load(tmp_path)


def test_line_that_announces_the_reason_is_joined_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(
            "A total of 1 objects could not be loaded. Example error message:\n\n  Why"
        )

    (tmp_path / "own.keras").touch()
    monkeypatch.setattr(keras.models, "load_model", fail)

    with pytest.raises(ExportError, match=r"Example error message: Why\)$"):
        load(tmp_path / "own.keras")
