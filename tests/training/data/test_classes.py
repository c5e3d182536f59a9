import pytest

from app.bundle import Label
from training.data.classes import check_distinct, kept_classes, label, matching_index
from training.errors import DataError


@pytest.mark.parametrize(
    ("name", "synset", "display_name"),
    [
        ("n02099601-golden_retriever", "n02099601", "golden retriever"),
        ("n02086240-shih-tzu", "n02086240", "shih-tzu"),
        ("golden_retriever", None, "golden_retriever"),
        ("n123-short", None, "n123-short"),
        ("north-side", None, "north-side"),
    ],
)
def test_label(name: str, synset: str | None, display_name: str) -> None:
    parsed = label(3, name)

    assert (parsed.index, parsed.synset, parsed.name) == (3, synset, display_name)


@pytest.mark.parametrize(
    "names",
    [("beagle", "Beagle"), ("shih-tzu", "shih_tzu"), ("n00000001-crane", "crane")],
)
def test_classes_with_the_same_name_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"{names[0]} and {names[1]} have the same"):
        check_distinct(names)


def test_synsets_tell_classes_apart() -> None:
    check_distinct(("n00000001-crane", "n00000002-crane", "beagle"))


MODEL_LABELS = (
    Label(index=0, synset="n00000001", name="crane"),
    Label(index=1, synset="n00000002", name="Crane"),
    Label(index=2, name="Shih-Tzu"),
)


@pytest.mark.parametrize(
    ("synset", "name", "index"),
    [
        ("n00000002", "crane", 1),
        ("n00000002", "a bird", 1),
        ("n00000003", "crane", None),
        (None, "Crane", 1),
        (None, "crane", 0),
        (None, "n00000002", 1),
        ("n00000004", "shih_tzu", 2),
        (None, "beagle", None),
    ],
)
def test_classes_match_by_synset_and_else_by_name(
    synset: str | None, name: str, index: int | None
) -> None:
    assert matching_index(Label(index=9, synset=synset, name=name), MODEL_LABELS) == index


@pytest.mark.parametrize("name", ["CRANE", "cranE"])
def test_class_that_fits_two_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"fits two of the model's: crane \(0\) and Crane \(1\)"):
        matching_index(Label(index=9, name=name), MODEL_LABELS)


def test_composed_and_decomposed_name_are_the_same_exactly() -> None:
    labels = (Label(index=0, name="\u00c9t\u00e9"), Label(index=1, name="\u00e9t\u00e9"))

    assert matching_index(Label(index=9, name="e\u0301te\u0301"), labels) == 1


@pytest.mark.parametrize("name", ["a\x1bb", "x" * 300, "a\u202eb"])
def test_name_that_no_model_can_hold(name: str) -> None:
    with pytest.raises(DataError, match=r"^The class '.*': .*\.$"):
        label(0, name)


BREEDS = (
    "n02113624-toy_poodle",
    "n02113712-miniature_poodle",
    "n02113799-standard_poodle",
    "n02088364-beagle",
    "n02086240-Shih-Tzu",
)


@pytest.mark.parametrize(
    ("breed", "near"),
    [
        ("poodle", "Near: toy poodle, miniature poodle, standard poodle."),
        ("Beagel", "Near: beagle."),
        ("shih tsu", "Near: Shih-Tzu."),
        ("n02088363", "n02088364 (beagle)"),
    ],
)
def test_unknown_breed_names_those_near_it(breed: str, near: str) -> None:
    with pytest.raises(DataError) as error:
        kept_classes(BREEDS, {0, 1, 2, 3, 4}, ("beagle", breed))

    assert str(error.value).startswith(f"No such breed: {breed}. Near: ")
    assert near in str(error.value)


def test_unknown_breed_that_is_near_none() -> None:
    with pytest.raises(DataError, match=r"^No such breed: tabby\.$"):
        kept_classes(BREEDS, {0, 1, 2, 3, 4}, ("beagle", "tabby"))


@pytest.mark.parametrize("spelling", ["SHIH_TZU", "shih-tzu", " shih  tzu ", "n02086240-shih_tzu"])
def test_breeds_are_kept_in_any_spelling(spelling: str) -> None:
    assert kept_classes(BREEDS, {0, 1, 2, 3, 4}, ("beagle", spelling)) == [3, 4]
