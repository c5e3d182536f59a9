import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

from app.bundle import Architecture
from training import cli
from training.config import Stage, Stages
from training.options import Directory, File, Metavar, help_text, metavar

SUBCOMMANDS = ("train", "export", "bootstrap", "calibrate", "evaluate", "onnx", "int8", "report")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "N"),
        (int | None, "N"),
        (float, "X"),
        (str, "TEXT"),
        (Path | None, "PATH"),
        (Directory, "DIR"),
        (File | None, "FILE"),
        (Stages, "SIZExEPOCHS,..."),
        (tuple[Directory, ...], "DIR,..."),
        (Annotated[str | None, Metavar("LAYER")], "LAYER"),
        (Literal["sgd", "adam"], "{sgd,adam}"),
        (Literal[Architecture.RESNET50], "{resnet50}"),
    ],
)
def test_metavar(annotation: Any, expected: str) -> None:
    assert metavar(annotation) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (Field(), "what it is (required)"),
        (Field(None), "what it is"),
        (Field(()), "what it is"),
        (Field(""), "what it is"),
        (Field(0), "what it is (default: 0)"),
        (Field(1e-4), "what it is (default: 0.0001)"),
        (Field(Path("runs/dogs")), "what it is (default: runs/dogs)"),
        (Field(Architecture.RESNET50), "what it is (default: resnet50)"),
        (
            Field((Stage(size=128, epochs=5), Stage(size=160, epochs=3))),
            "what it is (default: 128x5,160x3)",
        ),
        (Field(True), "what it is (default: --augment)"),
        (Field(False), "what it is"),
        (Field(5.0), "what it is (default: 5)"),
    ],
)
def test_default_is_shown_as_typed(field: FieldInfo, expected: str) -> None:
    field.description = "what it is"

    assert help_text(field, "--augment") == expected


def _help(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*arguments, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_shows_what_can_be_typed(capsys: pytest.CaptureFixture[str], subcommand: str) -> None:
    text = _help(capsys, subcommand)

    for representation in ("Stage(", "PosixPath", "Architecture.", "None", "()", "==SUPPRESS=="):
        assert representation not in text
    types = "int|float|str|bool|list|dict|tuple|Path|JSON|TEXT|PydanticUndefined"
    assert not re.search(rf"--[a-z-]+ ({types})\b", text)


def test_help_of_all_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "{" + ",".join(SUBCOMMANDS) + "}" in _help(capsys)


@pytest.mark.parametrize(
    ("subcommand", "expected"),
    [
        ("train", "--stages SIZExEPOCHS,..."),
        ("train", "(default: 128x5,160x3)"),
        ("train", "--preset {finetune,refine,paper,scratch}"),
        ("train", "--teachers DIR,..."),
        ("train", "--batch-size N photos in a step"),
        ("train", "(default: --augment)"),
        ("train", "--data-dir DIR "),
        ("evaluate", "--out FILE "),
        ("evaluate", "95 % intervals"),
        ("export", "--preprocessing {caffe,none}"),
    ],
)
def test_help_of_options(
    capsys: pytest.CaptureFixture[str], subcommand: str, expected: str
) -> None:
    assert expected in _help(capsys, subcommand)


def test_description_has_no_margin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])

    assert "\nThe defaults below are those of the preset finetune." in capsys.readouterr().out


def test_required_options_are_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys, "calibrate")

    assert " --model DIR" in text
    assert "[--model" not in text
    assert "[--limit N]" in text


def test_required_option_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["calibrate"])

    assert "required: --model" in capsys.readouterr().err
