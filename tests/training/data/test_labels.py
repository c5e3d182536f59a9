from pathlib import Path

import pytest

from app.bundle import Bundle, Label
from training.data import labels
from training.errors import ExportError


def test_synsets_are_optional(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("beagle\nn02099601\tgolden retriever\n\n", encoding="utf-8")

    assert labels.read(path) == (
        Label(index=0, name="beagle"),
        Label(index=1, synset="n02099601", name="golden retriever"),
    )


@pytest.mark.parametrize(
    ("content", "line"), [("beagle\n\ndingo\n", 2), ("n02099601\t\ndingo\n", 1)]
)
def test_line_without_a_name(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ExportError, match=rf"labels\.txt, line {line}: the class has no name"):
        labels.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("beagle\ndingo\nbeagle\n", ": classes 0 and 2 have one name: beagle"),
        ("n1\tbeagle\nn1\tdingo\n", ": classes 0 and 1 have one synset: n1"),
        ("caf\u00e9\ncafe\u0301\n", ": classes 0 and 1 have one name"),
        ("beagle\ndin\x00go\n", r", line 2: a name holds the character U\+0000"),
        ("beagle\ndin\x0bgo\n", r", line 2: a name holds the character U\+000B"),
        ("bea\u2028gle\ndingo\n", r", line 1: a name holds the character U\+2028"),
        ("beagle\n" + "x" * 201 + "\n", ", line 2: .* at most 200 characters"),
    ],
)
def test_class_that_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ExportError, match=rf"labels\.txt{message}") as caught:
        labels.read(path)

    assert str(caught.value).isprintable()


def test_names_that_differ_by_case_or_script_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    names = ["Pug", "pug", "x" * 200, "\u67f4\u72ac", "\u0633\u06af\u200c\u0647\u0627"]
    path.write_bytes("\r\n".join(names).encode())

    assert [label.name for label in labels.read(path)] == names


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.txt cannot be read"):
        labels.read(tmp_path / "none.txt")


def test_breeds_of_stanford_dogs() -> None:
    breeds = labels.read(labels.STANFORD_DOGS)
    synsets = [breed.synset or "" for breed in breeds]

    assert len(set(synsets)) == 120
    assert synsets == sorted(synsets)
    assert (breeds[0].name, breeds[119].name) == ("chihuahua", "african hunting dog")
    assert not [breed.name for breed in breeds if "dalmatian" in breed.name or "_" in breed.name]


def test_breeds_of_the_shipped_model(shipped_bundle: Bundle) -> None:
    assert shipped_bundle.card.labels == labels.read(labels.STANFORD_DOGS)
