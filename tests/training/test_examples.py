from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from app.bundle import Label
from tests.training.pictures import dataset, photo
from training.errors import DataError
from training.examples import (
    Example,
    check_distinct,
    check_same,
    draw,
    evenly,
    hold_out,
    kept_classes,
    label,
    limited,
    remember,
)


def _photos(count: int) -> list[Example]:
    return [Example(f"{index}.jpg", b"", index % 2, ()) for index in range(count)]


EXAMPLES = _photos(30)


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


def test_draw_takes_about_a_share_of_each_class() -> None:
    examples = _photos(4000)

    stay, taken = draw(examples, 0.2, "lot")

    counts = Counter(example.label for example in taken)
    assert [counts[label] / 2000 for label in (0, 1)] == pytest.approx([0.2, 0.2], abs=0.03)
    assert len(stay) + len(taken) == 4000
    assert set(stay) | set(taken) == set(examples)
    assert draw(examples[::-1], 0.2, "lot")[1] == taken[::-1]


@pytest.mark.parametrize(
    ("share", "least", "each"), [(1e-9, 1, 1), (0.999999, 1, 14), (0.999999, 2, 13)]
)
def test_draw_leaves_no_class_without(share: float, least: int, each: int) -> None:
    _, taken = draw(EXAMPLES, share, "lot", least=least)

    assert Counter(example.label for example in taken) == {0: each, 1: each}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_photos_that_are_added_move_no_others(share: float) -> None:
    few, many = _photos(60), _photos(600)
    stay, taken = draw(few, share, "lot")

    more_stay, more_taken = draw(many, share, "lot")

    assert set(stay) <= set(more_stay)
    assert set(taken) <= set(more_taken)


def test_no_photo_that_stayed_is_taken_later() -> None:
    """Not even where a class is so small that one has to be taken whatever it drew."""
    stayed: set[Example] = set()
    for count in range(6, 60):
        stay, taken = draw(_photos(count), 0.1, "lot", least=2)
        assert not stayed & set(taken)
        stayed |= set(stay)


def test_lots_differ() -> None:
    assert draw(EXAMPLES, 0.5, "one") != draw(EXAMPLES, 0.5, "other")


def test_hold_out_is_rounded() -> None:
    stay, taken = hold_out(EXAMPLES, 0.3, seed=1)

    assert Counter(example.label for example in taken) == {0: 4, 1: 4}
    assert len(stay) == 22


def test_hold_out_holds_the_same_photos_out_as_ever() -> None:
    """Of data that models are trained on already: others would flatter them."""
    _, taken = hold_out(EXAMPLES, 0.3, seed=1)

    assert taken == tuple(EXAMPLES[index] for index in (1, 3, 7, 16, 20, 21, 24, 28))


def test_limited_keeps_the_order() -> None:
    some = limited(EXAMPLES, 7, seed=0)

    assert len(some) == 7
    assert sorted(some, key=EXAMPLES.index) == list(some)
    assert limited(EXAMPLES, None, 0) == limited(EXAMPLES, 30, 0) == tuple(EXAMPLES)


def test_a_run_knows_its_photos_again(tmp_path: Path) -> None:
    begun = dataset(train=6)
    check_same(tmp_path, begun)  # nothing is noted yet
    remember(tmp_path, begun)

    check_same(tmp_path, dataset(train=6))
    with pytest.raises(DataError, match="have changed"):
        check_same(tmp_path, dataset(train=8))
    renamed = replace(begun, labels=(begun.labels[0], Label(index=1, name="another dog")))
    with pytest.raises(DataError, match="have changed"):
        check_same(tmp_path, renamed)


def test_few_photos_of_many_classes_still_leave_some_to_validate_with() -> None:
    examples = [replace(photo(0, index), label=index // 2) for index in range(40)]

    kept, held_out = hold_out(examples, 0.1, 0)

    assert (len(kept), len(held_out)) == (36, 4)


def test_a_sample_has_as_many_photos_of_each_class() -> None:
    counts = {0: 9, 1: 2, 2: 5}
    photos = [
        replace(photo(0, 0), name=f"{label}-{index}", label=label)
        for label, count in counts.items()
        for index in range(count)
    ]

    def drawn(limit: int, seed: int = 0) -> Counter[int]:
        return Counter(example.label for example in evenly(photos, limit, seed))

    assert drawn(6) == {0: 2, 1: 2, 2: 2}
    assert drawn(10) == {0: 4, 1: 2, 2: 4}
    assert drawn(13) == {0: 6, 1: 2, 2: 5}
    assert {tuple(drawn(1, seed)) for seed in range(20)} == {(0,), (1,), (2,)}
    assert evenly(photos, 0, 0) == evenly(photos, 99, 0) == tuple(photos)
    sample = evenly(photos, 7, 3)
    assert sample == evenly(photos, 7, 3) != evenly(photos, 7, 4)
    assert [photos.index(example) for example in sample] == sorted(map(photos.index, sample))
    assert evenly([], 5, 0) == ()
