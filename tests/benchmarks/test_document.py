from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.results import Part, Table, Target

PART = Part(
    "What it costs",
    "Measured *so*.",
    [Table(("a", "b"), [("1", "2")], "Times:")],
    [Target("one", 1.0, 1.5), Target("two", 0.5, 0.6, at_most=False)],
    ["Peer: it is not here"],
)
MACHINE = {"processor": "a fast one"}


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


def test_document_says_of_each_target_whether_it_is_reached() -> None:
    text = document.render(MACHINE, {"part": PART})

    assert "| processor | a fast one |\n" in text
    assert "| one | 1 | at most 1.5 | yes |\n" in text
    assert "| two | 0.5 | at least 0.6 | **no** |\n" in text
    assert (
        "## What it costs\n\nMeasured *so*.\n\nTimes:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
        in text
    )
    assert "Disturbed" not in text
    assert "Not measured:\n\n- Peer: it is not here\n" in text


def test_target_that_is_missed_narrowly_is_told_from_its_limit() -> None:
    targets = [Target("one", 1.0623, 1.06), Target("two", 1.05999, 1.06)]
    text = document.render(MACHINE, {"part": Part("A", "b", targets=targets)})

    assert "| one | 1.062 | at most 1.06 | **no** |" in text
    assert "| two | 1.06 | at most 1.06 | yes |" in text


def test_document_says_where_other_work_disturbed() -> None:
    text = document.render(MACHINE, {"part": Part("A", "b", others=0.123)})
    assert "**Disturbed**: other work took 12% of the processor meanwhile." in text


def test_parts_are_read_again_on_the_same_machine_alone(tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    assert document.read(path, MACHINE) == {}

    document.write(path, MACHINE, {"part": PART})

    again = document.read(path, MACHINE)
    assert document.render(MACHINE, again) == (tmp_path / "performance.md").read_text()
    assert again["part"].targets == PART.targets
    assert document.read(path, {"processor": "another"}) == {}
