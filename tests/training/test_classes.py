import pytest

from training.classes import check_distinct, label
from training.errors import DataError


@pytest.mark.parametrize(
    ("name", "synset", "told"),
    [
        ("n02099601-golden_retriever", "n02099601", "golden retriever"),
        ("n02086240-shih-tzu", "n02086240", "shih-tzu"),
        ("golden_retriever", None, "golden_retriever"),
        ("n123-short", None, "n123-short"),
        ("north-side", None, "north-side"),
    ],
)
def test_label(name: str, synset: str | None, told: str) -> None:
    made = label(3, name)

    assert (made.index, made.synset, made.name) == (3, synset, told)


@pytest.mark.parametrize(
    "names",
    [("beagle", "Beagle"), ("shih-tzu", "shih_tzu"), ("n00000001-crane", "crane")],
)
def test_classes_that_bear_the_same_name(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"{names[0]} and {names[1]} bear the same"):
        check_distinct(names)


def test_synsets_tell_classes_apart() -> None:
    check_distinct(("n00000001-crane", "n00000002-crane", "beagle"))
