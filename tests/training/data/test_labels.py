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
