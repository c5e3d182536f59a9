import pytest

from training.skipped import Skipped


def test_ten_are_named_and_the_rest_counted(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = Skipped()
    skipped.report()
    assert capsys.readouterr().err == ""
    for index in range(13):
        skipped.add("photo", f"{index}.jpg", "broken")

    skipped.report()

    told = capsys.readouterr().err.splitlines()
    assert told[1:11] == [f"  {index}.jpg: broken" for index in range(10)]
    assert told[11:] == ["  and 3 more", "Left out in all: photo 13."]
