from collections import Counter
from dataclasses import replace

import pytest

from tests.training.pictures import photo
from training.dataset import Example
from training.splits import draw, evenly, hold_out, limited


def _photos(count: int) -> list[Example]:
    return [Example(f"{index}.jpg", b"", index % 2, ()) for index in range(count)]


EXAMPLES = _photos(30)


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
