"""The subcommand that writes a model version as an ONNX file."""

from pydantic import BaseModel, Field

from app import bundle as bundles
from training.commands.terminal import say
from training.errors import ExportError
from training.options import Directory, File
from training.quiet import start_tensorflow

__all__ = ["Onnx"]


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
        start_tensorflow()
        try:
            from training.export.onnx.file import write
        except ImportError as error:
            raise ExportError(
                f"ONNX export needs the extra `onnx`, which cannot be imported ({error}): run "
                "`make .venv/.onnx`, or pip install -r requirements/onnx.txt."
            ) from error
        if self.float16 and bundle.card.precision == "float32":
            say("Warning: by model.json, this model predicts what it should in float32 only.")
        change = write(bundle, self.out, float16=self.float16)
        say(
            f"Wrote {self.out}. On test images, probabilities by ONNX Runtime differ from those by "
            f"OpenVINO by {change.probability:.1g} at most."
        )
