"""The subcommands that write a new model version: `export` and `bootstrap`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from training.config import Source as PhotoSource
from training.config import TrainConfig
from training.errors import ExportError
from training.hints import command, photo_options
from training.terminal import say

if TYPE_CHECKING:
    from training.survey import TrainingPhotos

__all__ = ["Bootstrap", "Export"]


class _NewVersion(BaseModel):
    models_dir: Path = Field(Path("models"), description="where model versions are kept")
    name: str = Field("dogs", pattern=r"[a-z0-9][a-z0-9_-]*", description="the model's name")
    version: int | None = Field(None, ge=1, description="default: the next one")
    overwrite: bool = Field(False, description="replace the version if it is there")
    licence: str = Field(
        "",
        description="the weights' licence, for model.json; default: ImageNet's terms where the "
        "weights derive from its photos",
    )
    provenance: str = Field(
        "", description="where the weights come from, for model.json; default: what is known"
    )

    @property
    def place(self) -> Path:
        """The version's directory."""
        from training.versions import next_version

        version = self.version or next_version(self.models_dir / self.name)
        return self.models_dir / self.name / str(version)

    @property
    def card_options(self) -> dict[str, Any]:
        """The options that every export has."""
        return self.model_dump(include={"licence", "provenance", "overwrite"})


class _WithPhotos(BaseModel):
    """Photos for models that bring none: foreground and novelty are learnt from them."""

    source: PhotoSource = Field(
        "stanford_dogs", description="training photos: Stanford Dogs, or a folder of the classes"
    )
    data_dir: Path | None = Field(
        None,
        description="the folder, or a prepared TFDS directory; default: no photos, or with "
        "--source stanford_dogs a download",
    )
    boxes: Path | None = Field(
        None, description="boxes of a folder's photos: VOC directory, COCO or CSV; default: found"
    )
    photos: int = Field(
        1000, ge=1, description="training photos at most, for foreground and novelty"
    )

    @property
    def training_photos(self) -> "TrainingPhotos | None":
        """The photos to learn from; None where no option names any.

        Raises:
            ExportError: options would have no effect.
        """
        from training.survey import TrainingPhotos

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

    run: Path = Field(Path("runs/dogs"), description="directory of the run")
    keras: Path | None = Field(None, description="in place of a run, a .keras or whole .h5 model")
    labels: Path | None = Field(
        None, description="of a Keras model: its classes, one `name` or `synset<TAB>name` a line"
    )
    input_size: int | None = Field(
        None, ge=16, le=1024, description="of a Keras model that takes any: pixels"
    )
    preprocessing: Literal["caffe", "none"] = Field(
        "none", description="of a Keras model: what it wants done to RGB 0..255 beforehand"
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        if self.keras is not None:
            self._export_keras(self.keras)
            return
        from training.from_run import export_run

        for name in _OF_KERAS:
            if name in self.model_fields_set:
                raise ExportError(f"--{name.replace('_', '-')} goes with --keras FILE alone.")
        place = self.place
        export_run(self.run, place, photos=self.photos, **self.card_options)
        _say_next(place, photo_options(TrainConfig.of_run(self.run)))

    def _export_keras(self, path: Path) -> None:
        from training.keras_file import export_keras
        from training.preprocessing import Preprocessing

        if "run" in self.model_fields_set:
            raise ExportError("--run is of a run, and has no effect with --keras.")
        if self.labels is None:
            raise ExportError("--keras FILE needs --labels FILE: its classes, one a line.")
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
            say(f"Wrote {place}. Its thresholds are the default; calibrate finds better ones.")
        else:
            _say_next(place, photo_options(photos))


class Bootstrap(_WithPhotos, _NewVersion):
    """Write a model of 120 breeds with no training, from an ImageNet ResNet50.

    From Keras's download, a weights file in Keras's layout with the top, or one without the top
    and ImageNet's final layer beside it.
    """

    name: str = Field("dogs120", pattern=r"[a-z0-9][a-z0-9_-]*", description="the model's name")
    weights: str = Field(
        "imagenet", description="imagenet (downloaded by Keras), or a file in Keras's layout"
    )
    head: Path | None = Field(
        None,
        description="of a file without the top: ImageNet's final layer, an .npz with kernel "
        "[2048, 1000] and bias [1000]",
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.bootstrap import bootstrap

        place, photos = self.place, self.training_photos
        bootstrap(place, weights=self.weights, head=self.head, photos=photos, **self.card_options)
        _say_next(place, photo_options(photos) if photos else ())


def _say_next(place: Path, options: Sequence[str | Path]) -> None:
    say(f"Wrote {place}. Next:\n  {command('calibrate', '--model', place, *options)}")
