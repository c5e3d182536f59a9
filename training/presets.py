"""Recommended configurations: what each is for, its command, time and accuracy."""

from typing import Any, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from app.bundle import Architecture
from training.config import OptimizerName, PresetName, Schedule, Stage, Stages, TrainConfig

__all__ = ["PRESETS", "Finetune", "Paper", "Refine", "Scratch"]


class _Pretrained(TrainConfig):
    """A preset whose rates and epochs suit pre-trained weights."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.weights == "none" and self.architecture is not Architecture.CUSTOM_CNN:
            raise ValueError(
                f"--weights none: the preset {self.preset} is for pre-trained weights. Pass "
                "--preset scratch to train from random weights."
            )
        return self


class Finetune(_Pretrained):
    """Fine-tune a pre-trained network: the default.

    One epoch trains the head on the frozen backbone at the peak rate; then one cycle of the rate
    trains everything, with augmentation, label smoothing and weight decay. Patience is long,
    since a cycle's best epochs are its last.

    Command:
        python -m training train --data-dir DIR --weights FILE --run runs/finetune
    Time:
        Not measured.
    Accuracy:
        Not measured.
    """

    preset: PresetName = Field("finetune", description="where the other values come from")
    stages: Stages = Field(
        (Stage(size=128, epochs=5), Stage(size=160, epochs=3)),
        min_length=1,
        description=TrainConfig.model_fields["stages"].description,
    )
    head_epochs: int = Field(
        1, ge=0, description=TrainConfig.model_fields["head_epochs"].description
    )
    patience: int | None = Field(
        5, ge=1, description=TrainConfig.model_fields["patience"].description
    )


class Refine(_Pretrained):
    """Refine a network that already knows the classes, and change it little.

    For dog breeds, which are classes of ImageNet: the final layer starts from ImageNet's own rows,
    only the last stage is trained, at a low rate, and batch norm stays as it is. With `--teachers
    DIR,...`, the predictions of other model versions are learnt beside the labels.

    Command:
        python -m training train --preset refine --data-dir DIR --weights FILE --head FILE \
            --run runs/refine
    Time:
        Not measured as a whole run. On two CPU cores with bfloat16 and nothing else to do, a step
        takes about 0.05 s a photo at 224 px.
    Accuracy:
        See docs/training.md, which has the figures of nearly the same steps, run in PyTorch.
    """

    preset: PresetName = "refine"
    head: str = Field("imagenet", description=TrainConfig.model_fields["head"].description)
    train_from: str | None = "conv5"
    freeze_batch_norm: bool = True
    stages: Stages = Field((Stage(size=256, epochs=3),), min_length=1)
    input_size: int = Field(256, ge=32, le=1024)
    batch_size: int = Field(64, ge=2)
    optimizer: OptimizerName = "adam"
    learning_rate: PositiveFloat = 5e-5
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    crop_area: float = Field(0.6, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _last_stage(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Where the last stage begins depends on the network."""
        if values.get("architecture") == Architecture.EFFICIENTNET_LITE2:
            return {"train_from": "block6", **values}
        return values


class Paper(_Pretrained):
    """The plain recipe: ImageNet weights, two epochs of SGD at a constant rate, nothing else.

    Batches of 16 photos at 224 px, squashed and not augmented; no momentum, no weight decay, no
    label smoothing. Validation is watched after each epoch.

    Command:
        python -m training train --preset paper --data-dir DIR --run runs/paper
    Time:
        28 minutes an epoch of 10,362 photos on two CPU cores with bfloat16 (Intel with AMX).
    Accuracy:
        Top-1 0.161 on 1,152 validation photos, 0.146 on 2,066 test photos, 0.101 on 306 photos that
        ImageNet's weights have not seen. Mean IoU on the test photos by the customary rule: CAM
        0.569, Grad-CAM 0.563; a constant box has 0.594. See docs/paper.md.
    """

    preset: PresetName = "paper"
    stages: Stages = Field((Stage(size=224, epochs=2),), min_length=1)
    batch_size: int = Field(16, ge=2)
    schedule: Schedule = "constant"
    learning_rate: PositiveFloat = 0.01
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: bool = False


class Scratch(TrainConfig):
    """Train from random weights, on photos that grow from 96 to 160 px.

    Command:
        python -m training train --preset scratch --data-dir DIR --run runs/scratch
    Time:
        Not measured. On two CPU cores, hours: plan for a GPU.
    Accuracy:
        Not measured. Expect far less than from fine-tuning: 100 photos a breed teach a network
        little.
    """

    preset: PresetName = "scratch"
    weights: str = "none"
    stages: Stages = Field(
        (Stage(size=96, epochs=30), Stage(size=128, epochs=20), Stage(size=160, epochs=10)),
        min_length=1,
    )
    learning_rate: PositiveFloat = 0.05
    weight_decay: NonNegativeFloat = 5e-4
    patience: int | None = Field(15, ge=1)


PRESETS: dict[PresetName, type[TrainConfig]] = {
    "finetune": Finetune,
    "refine": Refine,
    "paper": Paper,
    "scratch": Scratch,
}
"""The presets by name."""
