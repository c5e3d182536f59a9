"""Classes of a data set: their names, which of them to keep, and their match with a model's."""

import re
import unicodedata
from collections.abc import Sequence, Set
from dataclasses import replace
from difflib import get_close_matches

from app.bundle import Label, comparable
from training.data.dataset import Dataset, Example
from training.errors import DataError

__all__ = ["check_distinct", "kept_classes", "label", "matching_index", "relabel", "spellings"]


def label(index: int, name: str) -> Label:
    """The label of a class, from the name that a data set gives it.

    `n02099601-golden_retriever`, as in Stanford Dogs, becomes a synset (WordNet's `n` and eight
    digits) and the name `golden retriever`. Any other name is kept as it is.
    """
    match = re.fullmatch(r"(n\d{8})-(.+)", name)
    if match is None:
        return Label(index=index, name=name)
    return Label(index=index, synset=match[1], name=match[2].replace("_", " "))


def spellings(name: str) -> set[str]:
    """What a class may be called, as `comparable` and in Unicode's composed form (NFC).

    Args:
        name: of the class, as `label` takes it, or a name to look up: then one spelling is enough.
    """
    own = label(0, name)
    return {_key(name), _key(own.name), _key(own.synset or name)}


def _key(name: str) -> str:
    # macOS may give a folder's name in the decomposed form, where a keyboard types the composed.
    return unicodedata.normalize("NFC", comparable(unicodedata.normalize("NFC", name)))


def kept_classes(
    names: Sequence[str], present: Set[int], breeds: Sequence[str], *, partial: bool = False
) -> list[int]:
    """Which of a data set's classes to keep, in its order.

    Args:
        names: of all classes, as `label` takes them.
        present: indices of those with a training photo.
        breeds: synsets or names to keep; empty keeps each one present.
        partial: whether the photos are for a model that exists: some of `breeds` may be missing,
            and a single class will do.

    Raises:
        DataError: no such breed, no photo of it, or too few classes.
    """
    if breeds:
        labels = [label(index, name) for index, name in enumerate(names)]
        keys = [spellings(name) for name in names]
        wanted = {_key(breed): breed for breed in breeds}
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
    if partial:
        if not kept:
            raise DataError("The data has no photo of any of the model's classes.")
    elif len(kept) < 2:
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
    """At most five classes: those whose name has the unknown words, then similar spellings."""
    key = _key(breed)
    names = {_key(own.name): own.name for own in labels}
    names |= {own.synset: f"{own.synset} ({own.name})" for own in labels if own.synset}
    containing = [spelling for spelling in names if key and f" {key} " in f" {spelling} "]
    similar = get_close_matches(key, names, n=5, cutoff=0.7)
    return [names[spelling] for spelling in dict.fromkeys([*containing, *similar])][:5]


def check_distinct(names: Sequence[str]) -> None:
    """Make sure that a name identifies one class: no two are spelled alike.

    Two synsets may share a name (a crane is a bird or a machine). A class without a synset may
    share its name with no other, since only the name identifies it.

    Args:
        names: of the classes, as `label` takes them.

    Raises:
        DataError: two classes have the same name.
    """
    first_class: dict[str, tuple[str, str | None]] = {}  # by spelling: name and synset
    for index, name in enumerate(names):
        current = label(index, name)
        other, synset = first_class.setdefault(_key(current.name), (name, current.synset))
        if other != name and (current.synset is None or synset in (None, current.synset)):
            raise DataError(f"The classes {other} and {name} have the same name.")


def relabel(dataset: Dataset, labels: Sequence[Label]) -> Dataset:
    """The data set with a model's labels, in the model's order.

    Classes are matched by synset, or by name where one of the two has no synset. A class of the
    model may have no photos.

    Raises:
        DataError: the data set has a class that the model does not know. The message lists these
            classes, and those that only the model has.
    """
    matches = {label.index: matching_index(label, labels) for label in dataset.labels}
    new_index = {old: new for old, new in matches.items() if new is not None}
    unknown = [label.name for label in dataset.labels if label.index not in new_index]
    if unknown:
        known = set(new_index.values())
        missing = [label.name for label in labels if label.index not in known]
        message = (
            f"{dataset.name} does not have the model's classes. "
            f"Unknown to the model: {', '.join(sorted(unknown))}."
        )
        if missing:
            message += f" Missing from the data: {', '.join(sorted(missing))}."
        raise DataError(message)

    def relabelled(split: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(example, label=new_index[example.label]) for example in split)

    return Dataset(
        dataset.name,
        tuple(labels),
        *map(relabelled, (dataset.train, dataset.validation, dataset.test)),
    )


def matching_index(own: Label, labels: Sequence[Label]) -> int | None:
    """The index of the label in `labels` that means the same class; None if there is none.

    Two synsets are compared where both labels have one. Otherwise the names are, and `own` may be
    named by the candidate's synset.
    """
    for candidate in labels:
        if candidate.synset and own.synset:
            if candidate.synset == own.synset:
                return candidate.index
        elif _key(candidate.name) == _key(own.name) or own.name == candidate.synset:
            return candidate.index
    return None
