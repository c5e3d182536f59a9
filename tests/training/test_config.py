import pytest
from pydantic import ValidationError

from app.bundle import Architecture
from training.config import Stage, TrainConfig


@pytest.mark.parametrize("wrong", ["big", "128", 128])
def test_stages_say_how_they_are_written(wrong: object) -> None:
    with pytest.raises(ValidationError, match="is not SIZExEPOCHS, such as 128x5"):
        TrainConfig.model_validate({"stages": [wrong]})


def test_stages_are_read_as_written() -> None:
    config = TrainConfig(stages=["96x2", "128x1"])

    assert config.stages == (Stage(size=96, epochs=2), Stage(size=128, epochs=1))
    assert [str(stage) for stage in config.stages] == ["96x2", "128x1"]
    assert config.epochs == 3
    assert [config.size_at(epoch) for epoch in range(3)] == [96, 96, 128]


@pytest.mark.parametrize("stage", ["96", "96x", "x2", "8x1", "96x0", "axb"])
def test_malformed_stage_is_refused(stage: str) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(stages=[stage])


def test_configuration_survives_json() -> None:
    config = TrainConfig(breeds=("beagle", "dingo"), stages=(Stage(size=64, epochs=1),))

    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_public_configuration_tells_no_path() -> None:
    config = TrainConfig(data_dir="/somewhere/private", weights="/somewhere/private/dogs.h5")

    public = config.public()

    assert public["weights"] == "dogs.h5"
    assert "private" not in str(public)
    assert public["learning_rate"] == config.learning_rate


def test_custom_cnn_trains_at_its_input_size_alone() -> None:
    config = TrainConfig(architecture="custom_cnn", stages=["64x2", "64x1"], input_size=64)

    assert config.architecture is Architecture.CUSTOM_CNN
    with pytest.raises(ValidationError, match="--stages 64xEPOCHS"):
        TrainConfig(architecture="custom_cnn", stages=["48x2", "64x1"], input_size=64)


def test_only_architectures_that_are_built_here_are_trained() -> None:
    with pytest.raises(ValidationError, match="architecture"):
        TrainConfig(architecture="keras")


def test_configuration_of_a_run_before_there_were_two_architectures() -> None:
    stored = TrainConfig().model_dump(mode="json")
    del stored["architecture"]

    assert TrainConfig.model_validate(stored).architecture is Architecture.RESNET50
