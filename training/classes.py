"""Classes of a data set: how folders name them, which are kept, how they match a model's labels."""

import re
from collections.abc import Sequence, Set
from dataclasses import replace

from app.bundle import Label
from training.dataset import Dataset, Example
from training.errors import DataError

__all__ = ["as_labelled", "check_distinct", "kept_classes", "label", "matching_index"]


def label(index: int, name: str) -> Label:
    """The label of a class: `n02099601-golden_retriever` is taken apart, any other name is kept."""
    match = re.fullmatch(r"(n\d{8})-(.+)", name)
    if match is None:
        return Label(index=index, name=name)
    return Label(index=index, synset=match[1], name=match[2].replace("_", " "))


def _spelling(name: str) -> str:
    """A class's name as it is compared: case, underscores and hyphens do not matter."""
    return name.casefold().replace("_", " ").replace("-", " ")


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
            {_spelling(name), _spelling(each.name), _spelling(each.synset or name)}
            for name, each in zip(names, labels, strict=True)
        ]
        wanted = {_spelling(breed): breed for breed in breeds}
        unknown = [breed for key, breed in wanted.items() if not any(key in k for k in keys)]
        if unknown and not partial:
            raise DataError(f"No such breed: {', '.join(unknown)}.")
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


def check_distinct(names: Sequence[str]) -> None:
    """Make sure that no two classes could be asked for, or matched, by one name.

    Raises:
        DataError: two are spelled alike and are not told apart by synsets.
    """
    seen: dict[str, tuple[str, str | None]] = {}
    for index, name in enumerate(names):
        each = label(index, name)
        key = _spelling(each.name)
        other, synset = seen.setdefault(key, (name, each.synset))
        if other != name and (each.synset is None or synset in (None, each.synset)):
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
    for each in labels:
        if each.synset and ours.synset:
            if each.synset == ours.synset:
                return each.index
        elif _spelling(each.name) == _spelling(ours.name) or ours.name == each.synset:
            return each.index
    return None
