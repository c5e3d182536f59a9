"""The subcommand that writes a model version as an ONNX file."""

from pathlib import Path

from pydantic import BaseModel, Field

from app import bundle as bundles
from training.commands.terminal import say
from training.errors import ExportError
from training.options import Directory, File
from training.quiet import start_tensorflow

__all__ = ["Onnx", "check_destination"]


class Onnx(BaseModel):
    """Write a model version as one ONNX file, which predicts and explains without this project.

    It has the SavedModel's inputs and outputs, and model.json in its metadata.
    """

    model: Directory = Field(description="models/NAME or models/NAME/VERSION")
    out: File = Field(description="the file to write; one that exists is replaced")
    float16: bool = Field(False, description="compute in float16, which is for GPUs")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        bundle = bundles.load(self.model)
        check_destination(self.out, bundle.path)
        from training.export.onnx.file import write

        if self.float16 and bundle.card.precision == "float32":
            say("Warning: by model.json, this model predicts what it should in float32 only.")
        change = write(bundle, self.out, float16=self.float16)
        say(
            f"Wrote {self.out}. On test images, probabilities by ONNX Runtime differ from those by "
            f"OpenVINO by {change.predictions.probability:.1g} at most, and maps by "
            f"{change.outputs[change.greatest]:.1g} of their size ({change.greatest})."
        )


def check_destination(path: Path, version_dir: Path) -> None:
    """Check what can be checked of an ONNX file before there is a model version.

    Args:
        path: of the file.
        version_dir: of the version, which need not exist yet.

    Raises:
        ExportError: the extra is missing, or the file cannot be written there.
    """
    start_tensorflow()
    try:
        from training.export.onnx import file
    except ImportError as error:
        raise ExportError(
            f"ONNX export needs the extra `onnx`, which cannot be imported ({error}): run "
            "`make .venv/.onnx`, or pip install -r requirements/onnx.txt."
        ) from error
    file.check_destination(path, version_dir)
