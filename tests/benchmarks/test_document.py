from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.results import Measured, Part, Table, Target

PART = Part(
    "What it costs",
    "Measured *so*.",
    [Table(("a", "b"), [("1", "2")], "Times:")],
    [Target("one", 1.0, 1.5), Target("two", 0.5, 0.6, at_most=False)],
    ["Peer: it is not here"],
)
MACHINES = {
    "Intel with AMX": Measured({"processor": "a fast one"}, {"part": PART}),
    "AMD with AVX2": Measured(
        {"processor": "a slow one"},
        {
            "part": Part("What it costs", "Measured *so*.", targets=[Target("one", 3.0, 2.5)]),
            "other": Part("Another", "Only here."),
        },
    ),
}


def only(part: Part) -> dict[str, Measured]:
    """Measured on one machine."""
    return {"ARM with other instructions": Measured({}, {"part": part})}


@pytest.mark.parametrize(
    ("measured", "at_most", "reached"),
    [
        (1.0, True, True),
        (1.5, True, True),
        (1.6, True, False),
        (1.6, False, True),
        (1.5, False, True),
        (1.4, False, False),
    ],
)
def test_target_is_reached_on_its_side_of_the_limit(
    measured: float, at_most: bool, reached: bool
) -> None:
    assert Target("", measured, 1.5, at_most).reached is reached


def test_document_says_of_each_target_whether_it_is_reached_on_each_machine() -> None:
    text = document.render(MACHINES)

    assert "| machine | Intel with AMX | AMD with AVX2 |\n" in text
    assert "| processor | a fast one | a slow one |\n" in text
    assert "| one | 1 (at most 1.5) | **3 (at most 2.5)** |\n" in text
    assert "| two | **0.5 (at least 0.6)** |  |\n" in text


def test_each_part_is_described_once_and_has_the_figures_of_each_machine() -> None:
    text = document.render(MACHINES)

    assert text.count("## What it costs\n\nMeasured *so*.\n\n### What it costs: Intel") == 1
    assert (
        "### What it costs: Intel with AMX\n\nTimes:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
        in text
    )
    assert "### What it costs: AMD with AVX2\n" in text
    assert "### Another: AMD with AVX2\n" in text
    assert "### Another: Intel" not in text
    assert "Disturbed" not in text
    assert "Not measured:\n\n- Peer: it is not here\n" in text


def test_target_that_is_missed_narrowly_is_told_from_its_limit() -> None:
    targets = [Target("one", 1.0623, 1.06), Target("two", 1.05999, 1.06)]
    text = document.render(only(Part("A", "b", targets=targets)))

    assert "| one | **1.062 (at most 1.06)** |" in text
    assert "| two | 1.06 (at most 1.06) |" in text


def test_document_says_where_other_work_disturbed() -> None:
    text = document.render(only(Part("A", "b", others=0.123)))
    assert "**Disturbed**: other work took 12% of the processor meanwhile." in text


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    assert document.read(path) == {}

    document.write(path, MACHINES)

    again = document.read(path)
    assert document.render(again) == (tmp_path / "performance.md").read_text()
    assert again["Intel with AMX"].targets == PART.targets
