from collections import Counter
from dataclasses import replace

import pytest

from tests.training.pictures import photo
from training.data.dataset import Example
from training.data.splits import balanced_sample, hash_split, hold_out, subsample


def _photos(count: int) -> list[Example]:
    return [Example(f"{index}.jpg", b"", index % 2, ()) for index in range(count)]


EXAMPLES = _photos(30)


def test_hash_split_takes_about_a_share_of_each_class() -> None:
    examples = _photos(4000)

    stay, taken = hash_split(examples, 0.2, "salt")

    counts = Counter(example.label for example in taken)
    assert [counts[label] / 2000 for label in (0, 1)] == pytest.approx([0.2, 0.2], abs=0.03)
    assert len(stay) + len(taken) == 4000
    assert set(stay) | set(taken) == set(examples)
    assert hash_split(examples[::-1], 0.2, "salt")[1] == taken[::-1]


@pytest.mark.parametrize(
    ("share", "least", "count"), [(1e-9, 1, 1), (0.999999, 1, 14), (0.999999, 2, 13)]
)
def test_hash_split_leaves_no_class_without(share: float, least: int, count: int) -> None:
    _, taken = hash_split(EXAMPLES, share, "salt", least=least)

    assert Counter(example.label for example in taken) == {0: count, 1: count}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_photos_that_are_added_move_no_others(share: float) -> None:
    few, many = _photos(60), _photos(600)
    stay, taken = hash_split(few, share, "salt")

    more_stay, more_taken = hash_split(many, share, "salt")

    assert set(stay) <= set(more_stay)
    assert set(taken) <= set(more_taken)


def test_no_photo_that_stayed_is_taken_later() -> None:
    """Not even in a class so small that one has to be taken, whatever the hash."""
    stayed: set[Example] = set()
    for count in range(6, 60):
        stay, taken = hash_split(_photos(count), 0.1, "salt", least=2)
        assert not stayed & set(taken)
        stayed |= set(stay)


def test_salts_give_different_splits() -> None:
    assert hash_split(EXAMPLES, 0.5, "test 0") != hash_split(EXAMPLES, 0.5, "test 1")


def test_hash_split_takes_the_same_photos_as_ever() -> None:
    """Other test photos would include some that existing models were trained on."""
    _, taken = hash_split(EXAMPLES, 0.2, "test 0", least=2)

    assert taken == tuple(EXAMPLES[index] for index in (0, 1, 8, 16, 22, 23, 25, 26, 29))


def test_hold_out_is_rounded() -> None:
    stay, taken = hold_out(EXAMPLES, 0.3, seed=1)

    assert Counter(example.label for example in taken) == {0: 4, 1: 4}
    assert len(stay) == 22


def test_hold_out_holds_the_same_photos_out_as_ever() -> None:
    """Other validation photos would include some that existing models were trained on."""
    _, taken = hold_out(EXAMPLES, 0.3, seed=1)

    assert taken == tuple(EXAMPLES[index] for index in (1, 3, 7, 16, 20, 21, 24, 28))


def test_subsample_is_drawn_by_the_seed_and_keeps_the_order() -> None:
    sample = subsample(EXAMPLES, 7, seed=0)

    assert len(set(sample)) == 7
    assert sorted(sample, key=EXAMPLES.index) == list(sample)
    assert sample == subsample(EXAMPLES, 7, seed=0) != subsample(EXAMPLES, 7, seed=1)
    assert subsample(EXAMPLES, None, 0) == subsample(EXAMPLES, 30, 0) == tuple(EXAMPLES)


def test_few_photos_of_many_classes_still_leave_some_to_validate_with() -> None:
    examples = [replace(photo(0, index), label=index // 2) for index in range(40)]

    kept, held_out = hold_out(examples, 0.1, 0)

    assert (len(kept), len(held_out)) == (36, 4)
    assert len({example.label for example in held_out}) == 4


def test_a_sample_has_as_many_photos_of_each_class() -> None:
    counts = {0: 9, 1: 2, 2: 5}
    photos = [
        replace(photo(0, 0), name=f"{label}-{index}", label=label)
        for label, count in counts.items()
        for index in range(count)
    ]

    def drawn(limit: int, seed: int = 0) -> Counter[int]:
        return Counter(example.label for example in balanced_sample(photos, limit, seed))

    assert drawn(6) == {0: 2, 1: 2, 2: 2}
    assert drawn(10) == {0: 4, 1: 2, 2: 4}
    assert drawn(13) == {0: 6, 1: 2, 2: 5}
    assert {tuple(drawn(1, seed)) for seed in range(20)} == {(0,), (1,), (2,)}
    assert balanced_sample(photos, 0, 0) == balanced_sample(photos, 99, 0) == tuple(photos)
    sample = balanced_sample(photos, 7, 3)
    assert sample == balanced_sample(photos, 7, 3) != balanced_sample(photos, 7, 4)
    assert [photos.index(example) for example in sample] == sorted(map(photos.index, sample))
    assert balanced_sample([], 5, 0) == ()
