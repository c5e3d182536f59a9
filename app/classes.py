"""The classes that a request names, by index, synset or breed."""

from collections.abc import Sequence

from app.bundle import ModelCard, near_classes
from app.errors import RequestError, UnknownTarget
from app.model import NO_CLASS, Classes
from app.schemas import CompareQuery, ExplainQuery

__all__ = ["classes_of"]


def classes_of(card: ModelCard, query: ExplainQuery | CompareQuery) -> list[Classes]:
    """The classes to explain, in the order of the request, each against that of `versus`.

    Without a `target` it is one, the likeliest.

    Raises:
        UnknownTarget: the model has no such class.
        RequestError: two of them are the same.
    """
    named = query.target if isinstance(query, CompareQuery) else [query.target]
    names: Sequence[str | None] = named or [None]
    targets = [_class_index(card, "target", name) for name in names]
    versus = _class_index(card, "versus", query.versus)
    if query.versus is not None and versus in targets:
        raise RequestError("`target` and `versus` name the same class.")
    first: dict[int, str | None] = {}  # by class
    for name, index in zip(names, targets, strict=True):
        if index in first:
            raise RequestError(f"`target`: {first[index]!r} and {name!r} name the same class.")
        first[index] = name
    return [Classes(target, versus) for target in targets]


def _class_index(card: ModelCard, parameter: str, name: str | None) -> int:
    """The class that a parameter names by index, synset or breed; `NO_CLASS` for None."""
    if name is None:
        return NO_CLASS
    indexes = card.classes_named(name)
    if len(indexes) > 1:
        fitting = ", ".join(f"{index} ({card.labels[index].name})" for index in indexes)
        raise UnknownTarget(f"`{parameter}`: {name!r} may mean any of the classes {fitting}.")
    if not indexes:
        near = near_classes(name, card.labels)
        raise UnknownTarget(
            f"`{parameter}`: the model has no class {name!r}; "
            + (f"near: {', '.join(near)}. " if near else "")
            + f"GET /model lists its {len(card.labels)}."
        )
    return indexes[0]
