"""Configurations worth repeating: what each is for, its command, its time, its accuracy."""

from pydantic import Field, NonNegativeFloat, PositiveFloat

from training.config import PresetName, Schedule, Stage, TrainConfig

__all__ = ["PRESETS", "Finetune", "Paper", "Scratch"]


class Finetune(TrainConfig):
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

    preset: PresetName = Field("finetune", description="finetune, paper or scratch")
    stages: tuple[Stage, ...] = Field(
        (Stage(size=128, epochs=5), Stage(size=160, epochs=3)),
        min_length=1,
        description="SIZExEPOCHS,...",
    )
    head_epochs: int = Field(
        1, ge=0, description=TrainConfig.model_fields["head_epochs"].description
    )
    patience: int | None = Field(
        5, ge=1, description=TrainConfig.model_fields["patience"].description
    )


class Paper(TrainConfig):
    """The plain recipe: ImageNet weights, two epochs of SGD at a constant rate, nothing else.

    Batches of 16 photos at 224 px, squashed and not augmented; no momentum, no weight decay, no
    label smoothing. Validation is watched after each epoch.

    Command:
        python -m training train --preset paper --data-dir DIR --run runs/paper
    Time:
        Not measured.
    Accuracy:
        Not measured. ImageNet's weights have seen the photos of Stanford Dogs' test split with
        their breeds, so accuracy on it is higher than on new photos.
    """

    preset: PresetName = "paper"
    stages: tuple[Stage, ...] = Field((Stage(size=224, epochs=2),), min_length=1)
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
    stages: tuple[Stage, ...] = Field(
        (Stage(size=96, epochs=30), Stage(size=128, epochs=20), Stage(size=160, epochs=10)),
        min_length=1,
    )
    learning_rate: PositiveFloat = 0.05
    weight_decay: NonNegativeFloat = 5e-4
    patience: int | None = Field(15, ge=1)


PRESETS: dict[PresetName, type[TrainConfig]] = {
    "finetune": Finetune,
    "paper": Paper,
    "scratch": Scratch,
}
"""Each preset by its name."""
