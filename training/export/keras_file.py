"""A Keras model from its file; where that fails, the reason in one line."""

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras

from training.errors import ExportError

__all__ = ["load"]

_LONGEST = 400
"""Characters of a reason."""

_NO_CODE = (
    " Its code is not in the file: only models of Keras's own layers can be exported, and "
    "keras.applications' preprocess_input is to be called on a tensor or left out (see "
    "--preprocessing)."
)


def load(path: Path) -> keras.Model:
    """Load a whole model from a `.keras` file, or a legacy `.h5` file.

    Raises:
        ExportError: there is no such file, it is a directory, or Keras cannot load it; the message
            then holds Keras's reason, the layer, and the versions of Keras that wrote it and that
            runs.
    """
    if path.is_dir():
        raise ExportError(f"{path} is a directory; save the model as one .keras file.")
    if not path.is_file():
        raise ExportError(f"The model file {path} does not exist.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own
        writer = _writer(path)
        written = f", which Keras {writer} wrote" if writer else ""
        raise ExportError(
            f"Keras {keras.__version__} cannot load a whole model from {path}{written} "
            f"({type(error).__name__}: {_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in one line.

    Keras nests messages: a model's contains that of its layer, with the layer's configuration,
    and the reason comes last.
    """
    outer, nested, text = str(error).rpartition("Exception encountered: ")
    text = text.partition("Full object config:")[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = lines[0] if lines else "no reason given"
    if reason.endswith(":"):
        reason = " ".join(lines[:2])
    if len(reason) > _LONGEST:
        reason = reason[:_LONGEST] + "..."
    layers = re.findall(r"config=\{'name': '([^']+)'", outer)
    if nested and layers:
        reason = f"layer {layers[-1]!r}: {reason}"
    if "Could not locate" in reason or "`Lambda`" in reason:
        # Keras goes on with advice for whoever has the code.
        reason = reason.partition(". ")[0] + "." + _NO_CODE
    return reason


def _writer(path: Path) -> str:
    """The version of Keras that wrote a file; empty where the file does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
        else:
            with h5py.File(path) as file:
                version = file.attrs["keras_version"]
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return ""
    text = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    return text if re.fullmatch(r"[\w.+-]{1,30}", text) else ""
