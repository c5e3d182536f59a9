import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from training import cli
from training.config import Stage, TrainConfig
from training.presets import PRESETS, Finetune, Paper, Refine, Scratch


def _configured(*options: str) -> TrainConfig:
    """What the command line makes of options."""
    made: list[TrainConfig] = []

    def keep(train: cli.Train) -> None:
        made.append(train._config())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.Train, "cli_cmd", keep)
        cli.main(["train", *options])
    [config] = made
    return config


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_each_says_its_command_time_and_accuracy(preset: type[TrainConfig]) -> None:
    docstring = preset.__doc__ or ""

    for word in ("Command:\n", "Time:\n", "Accuracy:\n"):
        assert word in docstring
    assert "python -m training train" in docstring
    named = re.search(r"--preset (\w+)", docstring)
    assert preset().preset == (named.group(1) if named else "finetune")


@pytest.mark.parametrize("name", PRESETS)
def test_each_goes_by_its_name_and_survives_json(name: Any) -> None:
    config = PRESETS[name]()

    assert config.preset == name
    assert config.public()["preset"] == name
    stored = TrainConfig.model_validate_json(config.model_dump_json())
    assert stored.model_dump() == config.model_dump()


@pytest.mark.parametrize("name", PRESETS)
def test_bounds_hold_in_each(name: Any) -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"stages": []},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"momentum": 1},
        {"weight_decay": -1},
        {"label_smoothing": 1},
        {"patience": 0},
        {"head_epochs": -1},
    )
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            PRESETS[name].model_validate(wrong)


def test_paper_is_the_plain_recipe() -> None:
    config = Paper()

    assert (config.weights, config.batch_size, config.stages) == (
        "imagenet",
        16,
        (Stage(size=224, epochs=2),),
    )
    assert (config.schedule, config.learning_rate, config.momentum) == ("constant", 0.01, 0.0)
    assert (config.weight_decay, config.label_smoothing, config.augment) == (0.0, 0.0, False)
    assert (config.patience, config.frozen_epochs) == (None, 0)


def test_refine_forgets_little() -> None:
    config = Refine()

    assert (config.head, config.train_from, config.freeze_batch_norm) == ("imagenet", "conv5", True)
    assert config.size_at(config.epochs) == config.input_size


def test_teachers_and_files_are_kept_by_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    config = _configured(
        "--preset", "refine", "--teachers", "models/a,models/b/2", "--head", "head.npz"
    )

    assert config.teachers == (tmp_path / "models/a", tmp_path / "models/b/2")
    assert config.head == str(tmp_path / "head.npz")
    assert config.train_from == "conv5"  # the preset's, since none is given
    public = config.public()
    assert (public["head"], public["teachers"]) == ("head.npz", ["models/a", "b/2"])
    assert str(tmp_path) not in str(public)


def test_refine_trains_the_last_stage_of_either_network() -> None:
    assert Refine().train_from == "conv5"
    assert Refine(architecture="efficientnet_lite2").train_from == "block6"
    assert Refine(architecture="efficientnet_lite2", train_from="block7").train_from == "block7"
    options = ("--preset", "refine", "--architecture", "efficientnet_lite2")
    assert _configured(*options).train_from == "block6"


def test_finetune_trains_the_head_first() -> None:
    assert Finetune().frozen_epochs == 1
    assert TrainConfig(weights="none", head_epochs=1).frozen_epochs == 0
    assert Finetune(head_epochs=99).frozen_epochs == Finetune().epochs - 1


@pytest.mark.parametrize("name", ["finetune", "refine", "paper"])
def test_presets_for_pretrained_weights_refuse_random_ones(name: Any) -> None:
    with pytest.raises(ValidationError, match=f"the preset {name} is for .* --preset scratch"):
        PRESETS[name](weights="none")


def test_custom_cnn_has_random_weights_with_any_preset() -> None:
    config = Finetune(architecture="custom_cnn", weights="none", stages=["224x1"])

    assert config.weights == "none"


def test_preset_to_use_with_random_weights_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = ("--run", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        _configured(*run, "--preset", "paper", "--weights", "none")

    assert "--preset scratch" in capsys.readouterr().err
    assert _configured(*run, "--preset", "scratch", "--weights", "none") == Scratch()


def test_scratch_grows_from_random_weights() -> None:
    config = Scratch()

    assert [stage.size for stage in config.stages] == [96, 128, 160]
    assert (config.weights, config.frozen_epochs) == ("none", 0)


def test_command_line_begins_with_finetune(tmp_path: Path) -> None:
    config = _configured("--run", str(tmp_path))

    assert config == Finetune()


def test_options_override_a_preset(tmp_path: Path) -> None:
    config = _configured(
        *("--run", str(tmp_path), "--preset", "paper", "--batch-size", "8", "--augment")
    )

    assert config == Paper(batch_size=8, augment=True)
    assert config.learning_rate == 0.01


def test_values_that_are_the_defaults_of_another_preset_count_too(tmp_path: Path) -> None:
    config = _configured("--run", str(tmp_path), "--preset", "scratch", "--stages", "128x5,160x3")

    assert config.stages == Finetune().stages
