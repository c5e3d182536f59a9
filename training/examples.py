"""Labelled photos: one, a data set of them, and how they are shared out among its splits."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from app import images
from app.bundle import Label, comparable
from training.errors import DataError
from training.files import atomic_write

__all__ = [
    "Dataset",
    "Example",
    "as_labelled",
    "check_distinct",
    "check_same",
    "draw",
    "evenly",
    "hold_out",
    "kept_classes",
    "label",
    "limited",
    "matching_index",
    "remember",
]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled photo.

    Attributes:
        name: where it comes from, for messages.
        data: the encoded image, or the file that holds it.
        label: index into the data set's labels.
        boxes: xmin, ymin, xmax, ymax of each object as shares of width and height of the upright
            photo; often none.
    """

    name: str
    data: bytes | Path
    label: int
    boxes: tuple[images.Box, ...]

    def read(self) -> bytes:
        """The encoded image."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclass(frozen=True)
class Dataset:
    """A data set cut in three. `validation` is taken from the training split, never from test."""

    name: str
    labels: tuple[Label, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Photos in each split."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def label(index: int, name: str) -> Label:
    """The label of a class: `n02099601-golden_retriever` is taken apart, any other name is kept."""
    match = re.fullmatch(r"(n\d{8})-(.+)", name)
    if match is None:
        return Label(index=index, name=name)
    return Label(index=index, synset=match[1], name=match[2].replace("_", " "))


def kept_classes(
    names: Sequence[str], present: Set[int], breeds: Sequence[str], *, partial: bool = False
) -> list[int]:
    """Which of a data set's classes to keep, in its order.

    Args:
        names: of all classes, as `label` takes them.
        present: indices of those with a training photo.
        breeds: synsets or names to keep; empty keeps each one present.
        partial: whether to keep those of `breeds` that there are, where some are missing.

    Raises:
        DataError: no such breed, no photo of it, or fewer than two classes.
    """
    if breeds:
        labels = [label(index, name) for index, name in enumerate(names)]
        keys = [
            {comparable(name), comparable(ours.name), comparable(ours.synset or name)}
            for name, ours in zip(names, labels, strict=True)
        ]
        wanted = {comparable(breed): breed for breed in breeds}
        unknown = [breed for key, breed in wanted.items() if not any(key in k for k in keys)]
        if unknown and not partial:
            raise DataError(_unknown_breeds(unknown, labels))
        kept = [index for index, k in enumerate(keys) if k & wanted.keys()]
        absent = [names[index] for index in kept if index not in present]
        if partial:
            kept = [index for index in kept if index in present]
        elif absent:
            raise DataError(f"No training photo of {', '.join(absent)} in this data.")
    else:
        kept = sorted(present)
    if len(kept) < 2:
        raise DataError(f"A classifier needs two classes or more; the data holds {len(kept)}.")
    return kept


def _unknown_breeds(unknown: Sequence[str], labels: Sequence[Label]) -> str:
    """An error that names the classes whose names or synsets are near to unknown ones."""
    lines = []
    for breed in unknown:
        near = _near(breed, labels)
        lines.append(f"No such breed: {breed}." + (f" Near: {', '.join(near)}." if near else ""))
    return "\n".join(lines)


def _near(breed: str, labels: Sequence[Label]) -> list[str]:
    """At most five classes: those whose name holds the words asked for, then similar spellings."""
    key = comparable(breed)
    names = {comparable(ours.name): ours.name for ours in labels}
    names |= {ours.synset: f"{ours.synset} ({ours.name})" for ours in labels if ours.synset}
    containing = [spelling for spelling in names if key and f" {key} " in f" {spelling} "]
    similar = get_close_matches(key, names, n=5, cutoff=0.7)
    return [names[spelling] for spelling in dict.fromkeys([*containing, *similar])][:5]


def check_distinct(names: Sequence[str]) -> None:
    """Make sure that no two classes could be asked for, or matched, by one name.

    Raises:
        DataError: two are spelled alike and are not told apart by synsets.
    """
    seen: dict[str, tuple[str, str | None]] = {}
    for index, name in enumerate(names):
        ours = label(index, name)
        other, synset = seen.setdefault(comparable(ours.name), (name, ours.synset))
        if other != name and (ours.synset is None or synset in (None, ours.synset)):
            raise DataError(f"The classes {other} and {name} bear the same name.")


def as_labelled(dataset: Dataset, labels: Sequence[Label]) -> Dataset:
    """The data set with a model's labels, in the model's order, matched by synset or name.

    There may be classes of the model without photos.

    Raises:
        DataError: the data has classes that the model does not know; the message names them, and
            those of the model that it lacks.
    """
    found = {ours.index: matching_index(ours, labels) for ours in dataset.labels}
    matches = {old: new for old, new in found.items() if new is not None}
    others = [ours.name for ours in dataset.labels if ours.index not in matches]
    missing = [each.name for each in labels if each.index not in matches.values()]
    if others:
        faults = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (("lacks", missing), ("has, unknown to the model,", others))
            if names
        ]
        raise DataError(
            f"The classes of {dataset.name} are not the model's: it {' and '.join(faults)}."
        )

    def relabelled(split: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(each, label=matches[each.label]) for each in split)

    return Dataset(
        dataset.name,
        tuple(labels),
        *map(relabelled, (dataset.train, dataset.validation, dataset.test)),
    )


def matching_index(ours: Label, labels: Sequence[Label]) -> int | None:
    """The index of a model's label for this class; names decide where a synset is missing."""
    for theirs in labels:
        if theirs.synset and ours.synset:
            if theirs.synset == ours.synset:
                return theirs.index
        elif comparable(theirs.name) == comparable(ours.name) or ours.name == theirs.synset:
            return theirs.index
    return None


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


def remember(run_dir: Path, dataset: Dataset) -> None:
    """Note in a run's directory what it is trained on."""
    atomic_write(run_dir / "data.json", json.dumps(_identity(dataset), indent=2) + "\n")


def check_same(run_dir: Path, dataset: Dataset) -> None:
    """Hold a data set against what a run was begun on.

    Raises:
        DataError: classes or photos have changed since.
    """
    path = run_dir / "data.json"
    if path.exists() and json.loads(path.read_bytes()) != _identity(dataset):
        raise DataError(
            f"The photos have changed since {run_dir} was begun: its classes, or the photos of a "
            "split, are not the same. Put them back, or begin another run."
        )


def _identity(dataset: Dataset) -> dict[str, Any]:
    """Classes, and each split by a hash of its photos' names and labels, in order."""
    splits = {"train": dataset.train, "validation": dataset.validation}
    return {
        "labels": [label.model_dump() for label in dataset.labels],
        "splits": {
            name: blake2b(
                "\n".join(f"{each.label} {each.name}" for each in split).encode(
                    errors="surrogateescape"
                ),
                digest_size=16,
            ).hexdigest()
            for name, split in splits.items()
        },
    }
