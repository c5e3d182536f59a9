"""Classes of a data set: their names, which of them to keep, and their match with a model's."""

import re
import unicodedata
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

from pydantic import ValidationError

from app.bundle import Label, comparable, near_classes
from training.data.dataset import Dataset, Example
from training.errors import DataError

__all__ = [
    "check_distinct",
    "kept_classes",
    "label",
    "letters",
    "matching_index",
    "relabel",
    "spellings",
]


def label(index: int, name: str) -> Label:
    """The label of a class, from the name that a data set gives it.

    `n02099601-golden_retriever`, as in Stanford Dogs, becomes a synset (WordNet's `n` and eight
    digits) and the name `golden retriever`. Any other name is kept as it is.

    Raises:
        DataError: `model.json` cannot hold the name.
    """
    synset, own = _parsed(name)
    try:
        return Label(index=index, synset=synset, name=own)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"The class {name[:80]!r}: {reason}.") from error


def _parsed(name: str) -> tuple[str | None, str]:
    """The synset and the name in what a data set calls a class."""
    match = re.fullmatch(r"(n\d{8})-(.+)", name)
    return (None, name) if match is None else (match[1], match[2].replace("_", " "))


def spellings(name: str) -> set[str]:
    """What a class may be called, as `comparable` and in Unicode's composed form (NFC).

    Args:
        name: of the class, as `label` takes it, or a name to look up: then one spelling is enough.
    """
    synset, own = _parsed(name)
    return {_key(name), _key(own), _key(synset or name)}


def letters(name: str) -> str:
    """A class's name by its letters and digits, without a number or synset before it.

    `001.Affenpinscher` is `affenpinscher`, and `St. Bernard` is `stbernard`. Looser than
    `spellings`: several classes may be alike.
    """
    text = re.sub(r"^(n\d{8}|\d+)[\W_]+(?=[^\W\d_])", "", _key(name))
    # Letters, digits, and the marks that belong to letters.
    return "".join(character for character in text if unicodedata.category(character)[0] in "LMN")


def _key(name: str) -> str:
    # macOS may give a folder's name in the decomposed form, where a keyboard types the composed.
    return _composed(comparable(_composed(name)))


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
        near = near_classes(breed, labels)
        lines.append(f"No such breed: {breed}." + (f" Near: {', '.join(near)}." if near else ""))
    return "\n".join(lines)


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
        DataError: the data set has a class that the model does not know, or that fits two of the
            model's. The message lists unknown classes, and those that only the model has.
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
    named by the candidate's synset. Names as they are written go before other spellings.

    Raises:
        DataError: `own` fits two of them equally well.
    """
    passes: tuple[Callable[[Label], bool], ...] = (
        lambda other: other.synset is not None and other.synset in (own.synset, own.name),
        lambda other: _composed(other.name) == _composed(own.name),
        lambda other: _key(other.name) == _key(own.name),
    )
    named = [other for other in labels if not (own.synset and other.synset)]
    for candidates, fits in zip((labels, named, named), passes, strict=True):
        fitting = [other for other in candidates if fits(other)]
        if len(fitting) > 1:
            first, second, *_ = fitting
            raise DataError(
                f"The class {own.name} fits two of the model's: {first.name} ({first.index}) and "
                f"{second.name} ({second.index})."
            )
        if fitting:
            return fitting[0].index
    return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
