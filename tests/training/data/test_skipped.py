import pytest

from training.data.skipped import Skipped


def test_ten_of_a_kind_are_named_and_the_rest_counted(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = Skipped()
    skipped.report()
    assert capsys.readouterr().err == ""
    for index in range(13):
        skipped.add("photo", f"{index}.jpg", "broken")
    skipped.add("box", "b.jpg", "reversed")
    for index in range(11):
        skipped.add("annotation", f"{index}.xml", "broken")

    skipped.report()

    report = capsys.readouterr().err.splitlines()
    assert report == [
        "Left out:",
        *(f"  {index}.jpg: broken" for index in range(10)),
        "  b.jpg: reversed",
        *(f"  {index}.xml: broken" for index in range(10)),
        "  and more: annotation 1, photo 3",
        "Left out in total: annotation 11, box 1, photo 13.",
    ]
