import inspect
import re

import pytest

from app import errors
from app.errors import (
    BreedCAMError,
    EngineDown,
    NotReady,
    QueueFull,
    RequestError,
    StartupError,
    StorageBusy,
    TooManyConnections,
)


def family(kind: type[BreedCAMError]) -> list[type[BreedCAMError]]:
    return [kind, *(descendant for child in kind.__subclasses__() for descendant in family(child))]


# Elsewhere in the tests there may be errors of their own.
EVERY = [kind for kind in family(BreedCAMError) if kind.__module__ == errors.__name__]


def drawn_tree() -> dict[str, tuple[str | None, str]]:
    """Name to parent and the rest of the line, as the module's docstring draws it."""
    tree: dict[str, tuple[str | None, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:│   |    )*(?:[├└]── )?)(\w+)\s{2,}(.*)", line)
        if match:
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            tree[match[2]] = (path[depth - 1] if depth else None, match[3])
    return tree


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {name: parent for name, (parent, _) in drawn_tree().items()}
    real = {kind.__name__: kind.__bases__[0].__name__ for kind in EVERY}
    assert drawn == real | {"BreedCAMError": None}


@pytest.mark.parametrize("kind", EVERY)
def test_the_docstring_tells_status_and_code(kind: type[BreedCAMError]) -> None:
    _, rest = drawn_tree()[kind.__name__]
    if issubclass(kind, StartupError) and kind is not StartupError:
        return  # never answered: told in words
    assert rest.split()[:2] == [str(kind.status), kind.code]


def test_everything_is_exported() -> None:
    defined = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert sorted(errors.__all__) == sorted(defined)


def test_codes_are_unlike_each_other() -> None:
    answered = [kind for kind in EVERY if not issubclass(kind, StartupError)]
    assert len({kind.code for kind in answered}) == len(answered)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code) for kind in answered)


@pytest.mark.parametrize("kind", EVERY)
def test_the_client_is_blamed_exactly_for_what_it_can_mend(kind: type[BreedCAMError]) -> None:
    if issubclass(kind, RequestError):
        assert 400 <= kind.status < 500
    else:
        assert kind.status == 429 or 500 <= kind.status < 600


def test_only_errors_that_pass_ask_for_another_try() -> None:
    asking = {kind for kind in EVERY if "Retry-After" in kind("x").headers}
    assert asking == {QueueFull, NotReady, EngineDown, TooManyConnections, StorageBusy}
    assert all(int(kind("x").headers["Retry-After"]) > 0 for kind in asking)
