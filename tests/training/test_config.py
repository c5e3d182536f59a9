import pytest
from pydantic import ValidationError

from training.config import Stage, TrainConfig


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

    told = config.public()

    assert told["weights"] == "dogs.h5"
    assert "private" not in str(told)
    assert told["learning_rate"] == config.learning_rate
