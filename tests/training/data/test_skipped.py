import pytest

from training.data.skipped import Skipped


def test_ten_reasons_of_a_kind_are_listed_and_the_rest_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    skipped = Skipped()
    skipped.report()
    assert capsys.readouterr().err == ""
    for index in range(13):
        skipped.add("photo", f"{index}.jpg", ValueError(f"broken at {index}"))
    skipped.add("box", "b.jpg", "reversed")
    for index in range(11):
        skipped.add("annotation", f"{index}.xml", f"broken at {index}")

    skipped.report()

    assert capsys.readouterr().err.splitlines() == [
        "Left out:",
        *(f"  {index}.jpg: broken at {index}" for index in range(10)),
        "  b.jpg: reversed",
        *(f"  {index}.xml: broken at {index}" for index in range(10)),
        "  and more: annotation 1, photo 3",
        "Left out in total: annotation 11, box 1, photo 13.",
    ]


def test_items_with_the_same_reason_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = Skipped()
    for index in range(500):
        skipped.add("photo", f"{index}.cr2", "not a format")
    skipped.add("photo", "a.jpg", "broken")
    for index in range(3):
        skipped.add("box", f"{index}.xml", "broken")

    skipped.report()

    assert capsys.readouterr().err.splitlines() == [
        "Left out:",
        "  0.cr2, 1.cr2, 2.cr2 and 497 more: not a format",
        "  a.jpg: broken",
        "  0.xml, 1.xml, 2.xml: broken",
        "Left out in total: box 3, photo 501.",
    ]
