"""The configuration of a training run, stored beside its results and in `model.json`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from app.bundle import Architecture
from training.errors import RunError
from training.options import Metavar

__all__ = [
    "OptimizerName",
    "Precision",
    "PresetName",
    "Schedule",
    "Source",
    "Stage",
    "Stages",
    "TrainConfig",
]

Source = Literal["stanford_dogs", "folder"]
"""Where photos come from: TensorFlow Datasets, or a folder that holds one per class."""

PresetName = Literal["finetune", "refine", "paper", "scratch"]
Schedule = Literal["one_cycle", "constant"]
OptimizerName = Literal["sgd", "adam"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Stage(BaseModel):
    """Epochs at one input size; written `128x4` on the command line."""

    model_config = ConfigDict(frozen=True)

    size: int = Field(ge=32, le=1024, description="pixels")
    epochs: int = Field(ge=1)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if not isinstance(value, str | int):
            return value
        size, cross, epochs = str(value).partition("x")
        if not cross:
            raise ValueError(f"{str(value)!r} is not SIZExEPOCHS, such as 128x5")
        return {"size": size, "epochs": epochs}

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.size}x{self.epochs}"


Stages = Annotated[tuple[Stage, ...], Metavar("SIZExEPOCHS,...")]
"""The stages of a run, in order."""


class TrainConfig(BaseModel):
    """The configuration of a training run; `training.presets` holds the recommended ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: PresetName | None = Field(None, description="where the other values come from")
    source: Source = Field("stanford_dogs", description="Stanford Dogs, or your own folder")
    data_dir: Annotated[Path | None, Metavar("DIR")] = Field(
        None,
        description="the folder, or a prepared TFDS directory; by default, Stanford Dogs is "
        "downloaded",
    )
    boxes: Path | None = Field(
        None,
        description="boxes of a folder's photos: a VOC directory, a COCO or a CSV file; by "
        "default, they are looked for in the folder",
    )
    architecture: Literal[
        Architecture.RESNET50, Architecture.EFFICIENTNET_LITE2, Architecture.CUSTOM_CNN
    ] = Field(
        Architecture.RESNET50,
        description="efficientnet_lite2 is smaller and faster; custom_cnn is a plain network that "
        "starts at random weights",
    )
    breeds: Annotated[tuple[str, ...], Metavar("BREED,...")] = Field(
        (), description="synsets or names; by default, all classes with photos"
    )
    limit: int | None = Field(
        None,
        ge=20,
        description="use at most this many photos of a split, before the validation photos are "
        "taken out",
    )
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training split that is held out for validation"
    )
    test_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the photos that is held out for the test split, where a folder has "
        "none",
    )
    weights: Annotated[str, Metavar("{imagenet,none,FILE}")] = Field(
        "imagenet",
        description="initial weights; none is random; imagenet is downloaded by Keras or, for "
        "efficientnet_lite2, read from an installed package",
    )
    head: Annotated[str, Metavar("{random,imagenet,FILE}")] = Field(
        "random",
        description="initial weights of the final layer; imagenet comes from where --weights "
        "imagenet does, FILE is an .npz file of ImageNet's final layer or, for efficientnet_lite2, "
        "its weights file; breeds that ImageNet lacks start at random",
    )
    teachers: Annotated[tuple[Path, ...], Metavar("DIR,...")] = Field(
        (), description="model versions whose predictions are learnt beside the labels"
    )
    teacher_weight: float = Field(
        0.7, ge=0, le=1, description="share of the teachers' predictions in the training targets"
    )
    train_from: Annotated[str | None, Metavar("LAYER")] = Field(
        None,
        description="first layer to train, or the start of its name (conv5 or conv4_block6); the "
        "layers before it are frozen; by default, all layers are trained",
    )
    freeze_batch_norm: bool = Field(
        False, description="batch norm keeps its statistics, scales and offsets"
    )
    stages: Stages = Field(
        (Stage(size=128, epochs=4), Stage(size=160, epochs=3)),
        min_length=1,
        description="input size in pixels and epochs of each stage",
    )
    head_epochs: int = Field(
        0,
        ge=0,
        description="train the head alone, on a frozen backbone, for this many of the stages' "
        "epochs; no effect with --weights none",
    )
    input_size: int = Field(
        224, ge=32, le=1024, description="pixels, in validation and in the service"
    )
    batch_size: int = Field(
        32,
        ge=2,
        description="photos in a step, over all devices and hosts together; an epoch leaves out "
        "what does not fill its last step, other photos each time",
    )
    optimizer: OptimizerName = Field("sgd", description="sgd has Nesterov momentum")
    schedule: Schedule = Field("one_cycle", description="of the learning rate")
    learning_rate: float = Field(
        0.02, gt=0, description="peak of the one-cycle schedule, or the constant rate"
    )
    warmup: float = Field(0.15, ge=0, lt=1, description="share of the cycle before the peak")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Nesterov momentum (0 is plain SGD), or Adam's beta 1"
    )
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty on kernels")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of a label that is spread over all classes"
    )
    augment: bool = Field(True, description="random crops, flips and colours")
    crop_area: float = Field(
        0.3, gt=0, le=1, description="smallest share of a photo's area in a random crop"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs in a row without a better validation accuracy, "
        "not counting those of the head alone",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of the initial weights, the order of photos, augmentation and the held-out "
        "photos",
    )
    deterministic: bool = Field(
        False, description="give the same bits each time, with slower operations where needed"
    )
    precision: Precision = Field(
        "auto",
        description="auto is bfloat16 on a GPU or CPU that supports it, float16 on an older GPU "
        "with tensor cores, and float32 elsewhere",
    )
    checkpoint_minutes: Annotated[float, Metavar("MINUTES")] = Field(
        5.0, gt=0, description="time between checkpoints, and so the most a crash can cost"
    )

    @field_validator("breeds", "teachers", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [entry.strip() for entry in value.split(",") if entry.strip()]
        return value

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        """A fully connected layer behind a Flatten takes maps of one size."""
        sizes = {stage.size for stage in self.stages}
        if self.architecture is Architecture.CUSTOM_CNN and sizes != {self.input_size}:
            raise ValueError(
                f"custom_cnn trains only at its input size: --stages {self.input_size}xEPOCHS"
            )
        return self

    @classmethod
    def of_run(cls, run_dir: Path) -> Self:
        """The configuration stored in a run's directory.

        Raises:
            RunError: it holds no run, or one whose `config.json` cannot be read.
        """
        path = run_dir / "config.json"
        if not path.exists():
            raise RunError(f"{run_dir} holds no run.")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def public(self) -> dict[str, Any]:
        """The part that `model.json` keeps: all but the paths on one machine."""
        options = self.model_dump(mode="json", exclude={"data_dir", "boxes", "checkpoint_minutes"})
        return options | {
            "weights": Path(self.weights).name,
            "head": Path(self.head).name,
            "teachers": ["/".join(path.parts[-2:]) for path in self.teachers],
        }

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def frozen_epochs(self) -> int:
        """Epochs at the start that train the head alone; at least the last one trains all."""
        return 0 if self.weights == "none" else min(self.head_epochs, self.epochs - 1)

    def size_at(self, epoch: int) -> int:
        """Input size, in pixels, of an epoch counted from 0."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.size
            epoch -= stage.epochs
        return self.stages[-1].size
