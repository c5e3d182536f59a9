"""Splits and samples of a data set's photos, each repeatable by its seed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from training.dataset import Example

__all__ = ["draw", "evenly", "hold_out", "limited"]


def limited(split: Sequence[Example], limit: int | None, seed: int) -> tuple[Example, ...]:
    """At most `limit` photos, chosen by the seed, in order."""
    if limit is None or limit >= len(split):
        return tuple(split)
    chosen = np.random.default_rng(seed).permutation(len(split))[:limit]
    return tuple(split[index] for index in sorted(chosen.tolist()))


def evenly(examples: Sequence[Example], limit: int, seed: int) -> tuple[Example, ...]:
    """A sample with as many photos of each class as of any other, as far as there are.

    Classes take turns, each with its next photo in an order drawn by the seed, until there are
    enough; which classes have one more than others is drawn as well.

    Args:
        examples: the photos.
        limit: how many at most; 0 takes all.
        seed: of the sample.

    Returns:
        The sample, in the order of `examples`.
    """
    if not limit or limit >= len(examples):
        return tuple(examples)
    rng = np.random.default_rng(seed)
    labels = np.array([example.label for example in examples])
    order = rng.permutation(len(examples))
    turns = rng.permutation(int(labels.max()) + 1)  # of each class, its place in a round
    rounds = np.empty(len(examples), int)
    for label_index in np.unique(labels):
        own = order[labels[order] == label_index]
        rounds[own] = np.arange(len(own))
    chosen = np.lexsort((turns[labels], rounds))[:limit]
    return tuple(examples[index] for index in sorted(chosen.tolist()))


def hold_out(
    train: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Take a seeded share of each class, rounded, out of `train`."""
    order = np.random.default_rng(seed).permutation(len(train))
    totals = np.bincount([example.label for example in train])
    quota = np.rint(totals * share).astype(int)
    if not quota.any():  # few photos of each of many classes: a share of the whole, then
        quota[[train[index].label for index in order[: round(len(train) * share)]]] = 1
    held_out: set[int] = set()
    for index in order.tolist():
        of_class = train[index].label
        if quota[of_class] > 0:
            quota[of_class] -= 1
            held_out.add(index)
    return _cut(train, held_out)


def draw(
    examples: Sequence[Example], share: float, lot: str, *, least: int = 1
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Take about a share of each class, but at least one photo, out of `examples`.

    Each photo is taken or not by a hash of its name and `lot`, so that it stays where it is when
    others are added or removed. Only where a class would be left with none taken, or with fewer
    than `least`, do its other photos matter: then one may be taken, or given back, that would not
    be, and with so few photos it may change again when there are more.

    Args:
        examples: of each class more than `least`.
        share: the chance of each photo to be taken.
        lot: what is drawn; another one takes other photos.
        least: photos of each class that stay.

    Returns:
        What stays, what is taken.
    """
    tickets: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for index, example in enumerate(examples):
        key = f"{lot}\0{example.name}".encode(errors="surrogateescape")
        ticket = int.from_bytes(blake2b(key, digest_size=8).digest()) / 2**64
        tickets[example.label].append((ticket, index))
    taken: set[int] = set()
    for drawn in tickets.values():
        winners = sum(ticket < share for ticket, _ in drawn)
        count = min(max(1, winners), len(drawn) - least)
        taken.update(index for _, index in sorted(drawn)[:count])
    return _cut(examples, taken)


def _cut(
    examples: Sequence[Example], taken: Iterable[int]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    chosen = set(taken)
    return (
        tuple(example for i, example in enumerate(examples) if i not in chosen),
        tuple(example for i, example in enumerate(examples) if i in chosen),
    )
