"""Splits and samples of a data set's photos. The same seed gives the same photos."""

from collections import defaultdict
from collections.abc import Sequence, Set
from hashlib import blake2b

import numpy as np

from training.data.dataset import Example

__all__ = ["SPLIT_NAMES", "balanced_sample", "hash_split", "hold_out", "subsample"]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Splits by the names of their folders, in lower case."""


def subsample(split: Sequence[Example], limit: int | None, seed: int) -> tuple[Example, ...]:
    """Draw at most `limit` photos at random; None takes all. They keep their order."""
    if limit is None or limit >= len(split):
        return tuple(split)
    indices = np.random.default_rng(seed).permutation(len(split))[:limit]
    return tuple(split[index] for index in sorted(indices.tolist()))


def balanced_sample(examples: Sequence[Example], limit: int, seed: int) -> tuple[Example, ...]:
    """Draw a sample with the same number of photos of each class, as far as a class has them.

    The classes take turns: in each round, every class gives the next photo of its own random order,
    until there are `limit`. The order of the classes within a round is random too, so that chance
    decides which of them have one photo more than the others.

    Args:
        examples: the photos.
        limit: the size of the sample; 0 takes all photos.
        seed: of the sample.

    Returns:
        The sample, in the order of `examples`.
    """
    if not limit or limit >= len(examples):
        return tuple(examples)
    rng = np.random.default_rng(seed)
    labels = np.array([example.label for example in examples])  # [N]
    order = rng.permutation(len(examples))  # [N], indices of photos
    turns = rng.permutation(int(labels.max()) + 1)  # [classes], a class's place within a round
    rounds = np.empty(len(examples), int)  # [N], the round in which a photo comes up
    for label in np.unique(labels):
        class_order = order[labels[order] == label]
        rounds[class_order] = np.arange(len(class_order))
    # lexsort sorts by its last key first: by round, and within a round by the class's turn.
    indices = np.lexsort((turns[labels], rounds))[:limit]
    return tuple(examples[index] for index in sorted(indices.tolist()))


def hold_out(
    train: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Take a random share of each class, rounded to whole photos, out of `train`.

    Where that rounds to no photo of any class, about that share of all photos is taken instead, at
    most one of a class.

    Returns:
        The photos that stay, and those taken.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    class_sizes = np.bincount([example.label for example in train])  # [classes]
    quota = np.rint(class_sizes * share).astype(int)  # [classes], photos still to take
    if not quota.any():
        quota[[train[index].label for index in order[: round(len(train) * share)]]] = 1
    held_out: set[int] = set()
    for index in order.tolist():
        label = train[index].label
        if quota[label] > 0:
            quota[label] -= 1
            held_out.add(index)
    return _partition(train, held_out)


def hash_split(
    examples: Sequence[Example], share: float, salt: str, *, least: int = 1
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Take about `share` of the photos of each class, and at least one, out of `examples`.

    A hash of a photo's name decides, so that a photo stays in its split when others are added or
    removed. There is one exception: a class of few photos. Where the hashes would take none of a
    class, or leave fewer than `least`, the photos nearest to the limit are moved, and these may
    move again once the class has more photos.

    Args:
        examples: more than `least` photos of each class.
        share: the probability that a photo is taken.
        salt: goes into the hash; another salt takes other photos.
        least: how many photos of each class have to stay.

    Returns:
        The photos that stay, and those taken.
    """
    tickets: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)  # by class
    for index, example in enumerate(examples):
        # A file name that is not UTF-8 holds surrogates, which only this handler encodes.
        key = f"{salt}\0{example.name}".encode(errors="surrogateescape")
        # The first 64 bits of the hash, as a fraction: uniform in [0, 1), so that P(ticket < share)
        # is `share`. No other photo has any part in it.
        ticket = int.from_bytes(blake2b(key, digest_size=8).digest()) / 2**64
        tickets[example.label].append((ticket, index))
    taken: set[int] = set()
    for class_tickets in tickets.values():
        below = sum(ticket < share for ticket, _ in class_tickets)
        count = min(max(1, below), len(class_tickets) - least)
        # The lowest tickets go first. Except in small classes, these are those below `share`.
        taken.update(index for _, index in sorted(class_tickets)[:count])
    return _partition(examples, taken)


def _partition(
    examples: Sequence[Example], taken: Set[int]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples whose index is not in `taken`, and those whose index is; both in order."""
    return (
        tuple(example for index, example in enumerate(examples) if index not in taken),
        tuple(example for index, example in enumerate(examples) if index in taken),
    )
