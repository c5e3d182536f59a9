"""What a training run is made of: typed, stored beside its results and in `model.json`."""

from pathlib import Path
from typing import Any, Literal, Self

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

__all__ = ["OptimizerName", "Precision", "PresetName", "Schedule", "Source", "Stage", "TrainConfig"]

Source = Literal["stanford_dogs", "folder"]
"""Where photos come from: TensorFlow Datasets, or a folder with one for each class."""

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


class TrainConfig(BaseModel):
    """A training run; `training.presets` has the ones that are worth repeating."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: PresetName | None = Field(None, description="where the other values come from")
    source: Source = Field("stanford_dogs", description="Stanford Dogs, or a folder of your own")
    data_dir: Path | None = Field(
        None, description="the folder, or a prepared TFDS directory; default: download"
    )
    boxes: Path | None = Field(
        None, description="boxes of a folder's photos: VOC directory, COCO or CSV; default: found"
    )
    architecture: Literal[Architecture.RESNET50, Architecture.CUSTOM_CNN] = Field(
        Architecture.RESNET50, description="custom_cnn: a plain network, from nothing"
    )
    breeds: tuple[str, ...] = Field((), description="synsets or names; default: all present")
    limit: int | None = Field(
        None,
        ge=20,
        description="at most this many photos of a split, before validation's share is taken",
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="taken from the training split")
    test_share: float = Field(0.1, ge=0, lt=1, description="of a folder that has no test split")
    weights: str = Field("imagenet", description="imagenet, none or a file")
    head: str = Field(
        "random",
        description="first weights of the final layer: random, imagenet (downloaded by Keras), or "
        "an .npz file of ImageNet's final layer; breeds that ImageNet lacks start at random",
    )
    teachers: tuple[Path, ...] = Field(
        (), description="model versions whose answers are learnt beside the labels: DIR,..."
    )
    teacher_weight: float = Field(
        0.7, ge=0, le=1, description="share of the teachers' answers in what is learnt"
    )
    train_from: str | None = Field(
        None,
        description="first layer to train, by the start of its name (conv5 or conv4_block6); those "
        "before it keep their weights; default: all are trained",
    )
    freeze_batch_norm: bool = Field(
        False, description="batch norm keeps its statistics, scales and offsets"
    )
    stages: tuple[Stage, ...] = Field(
        (Stage(size=128, epochs=4), Stage(size=160, epochs=3)),
        min_length=1,
        description="SIZExEPOCHS,...",
    )
    head_epochs: int = Field(
        0,
        ge=0,
        description="the first so many of the stages' epochs train the head alone, "
        "on a frozen backbone; without effect where weights is none",
    )
    input_size: int = Field(224, ge=32, le=1024, description="pixels, at validation and serving")
    batch_size: int = Field(
        32,
        ge=2,
        description="photos in a step, over all devices and hosts together; an epoch leaves out "
        "what does not fill its last step, other photos each time",
    )
    optimizer: OptimizerName = Field("sgd", description="sgd or adam")
    schedule: Schedule = Field("one_cycle", description="of the rate")
    learning_rate: float = Field(
        0.02, gt=0, description="peak of the one-cycle schedule, or the constant rate"
    )
    warmup: float = Field(0.15, ge=0, lt=1, description="share of the cycle before the peak")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov's; 0: plain SGD; Adam's beta 1")
    weight_decay: float = Field(1e-4, ge=0, description="L2 on kernels")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    augment: bool = Field(True, description="random crops, flips and colour")
    crop_area: float = Field(
        0.3, gt=0, le=1, description="least share of the photo's area in a random crop"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs in a row without a better validation accuracy, "
        "the head's own not counted; default: never",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="of first weights, order, augmentation, held-out share"
    )
    deterministic: bool = Field(
        False, description="the same bits each time, where that takes slower operations too"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 on a GPU or CPU that has it, float16 on a GPU with tensor "
        "cores that has not, else float32",
    )
    checkpoint_minutes: float = Field(5.0, gt=0, description="what a crash may cost at most")

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
                f"custom_cnn trains at its input size alone: --stages {self.input_size}xEPOCHS"
            )
        return self

    @classmethod
    def of_run(cls, run_dir: Path) -> Self:
        """What a run's directory says it was configured as.

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
        """What `model.json` keeps: everything but where things lay on one machine."""
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
