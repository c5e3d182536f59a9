"""What pydantic finds wrong with parameters and settings, for people who do not know pydantic."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

__all__ = ["listed", "near", "sentences", "setting_sentences"]

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "greater_than_equal": "must be at least {ge:.12g}",
    "greater_than": "must be more than {gt:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "less_than": "must be less than {lt:.12g}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "may be given {max_length} times at most",
    "missing": "is missing",
}
"""By pydantic's type of error; its context fills the gaps. All of these complete a sentence."""

_UNKNOWN = "extra_forbidden"

_MEMBER = re.compile(r"<\w+\.\w+: ('\w+')>")  # an enum's member: only its value is for people

NEAR = 0.7
"""Least similarity of a suggestion, as `difflib` measures it."""

SHOWN, LONGEST = 5, 40
"""Unknown names that are repeated and compared with the known ones, and characters of each."""


def sentences(
    faults: Iterable[Mapping[str, Any]],
    name: str = "{}",
    names: Sequence[str] = (),
    repeated: Collection[str] = (),
) -> list[str]:
    """One sentence, without a full stop, about each parameter or setting that is wrong.

    Args:
        faults: pydantic's, with the parameter's or setting's name first in `loc`.
        name: how a name is written; `{}` stands for it.
        names: of the parameters that there are, for those that there are not.
        repeated: names of the parameters with several values, each of which has a number.
    """
    faults = list(faults)
    unknown = [str(fault["loc"][0]) for fault in faults if fault["type"] == _UNKNOWN]
    faults = [fault for fault in faults if fault["type"] != _UNKNOWN]
    by_place: dict[str, list[str]] = {}
    for fault in faults:
        place = name.format(_place(fault["loc"], repeated))
        by_place.setdefault(place, []).append(_words(fault))
    wrong = [_joined(place, list(dict.fromkeys(words))) for place, words in by_place.items()]
    return [*wrong, *([_unknown(unknown, name, names)] if unknown else [])]


def setting_sentences(error: ValidationError) -> list[str]:
    """`sentences` about the `BREEDCAM_*` variables of which no settings could be made."""
    faults = [{**fault, "loc": (str(fault["loc"][0]).upper(),)} for fault in error.errors()]
    return sentences(faults, "BREEDCAM_{}")


def near(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """The names that one may have been meant to be, the likeliest first."""
    return get_close_matches(name, list(names), n=most, cutoff=NEAR)


def _place(loc: Sequence[int | str], repeated: Collection[str]) -> str:
    """The name, and of several values the number of the one that is wrong.

    Where a setting may be of several types, pydantic names these too.
    """
    first, *rest = loc
    if rest and isinstance(rest[0], int) and first in repeated:
        return f"{first} {rest[0] + 1}"
    return str(first)


def _words(fault: Mapping[str, Any]) -> str:
    if words := _WORDS.get(fault["type"]):
        return _MEMBER.sub(r"\1", words.format(**fault.get("ctx", {})))
    return str(fault["msg"]).removeprefix("Value error, ")


def _unknown(unknown: Sequence[str], name: str, names: Sequence[str]) -> str:
    shown = [wrong[:LONGEST] for wrong in unknown[:SHOWN]]
    is_none = "there is no such parameter" if len(unknown) == 1 else "there are no such parameters"
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    if not names:
        return f"{listed(name, shown)}{more}: {is_none}"
    guesses = dict.fromkeys(guess for wrong in shown for guess in near(wrong.lower(), names))
    hint = f"Did you mean {listed(name, guesses, 'or')}? " if guesses else ""
    only = "The only parameter is" if len(names) == 1 else "There are"
    return f"{listed(name, shown)}{more}: {is_none}. {hint}{only} {listed(name, names)}"


def _joined(place: str, words: Sequence[str]) -> str:
    """`place` with what is wrong: a setting of two types has to be of one of them."""
    if all(phrase.startswith("must be ") for phrase in words):
        choices = [phrase.removeprefix("must be ") for phrase in words]
        return f"{place} must be {', or '.join(choices)}"
    phrase = "; ".join(words)
    colon = "" if phrase.startswith(("must ", "may ", "is ")) else ":"
    return f"{place}{colon} {phrase}"


def listed(name: str, names: Iterable[str], word: str = "and") -> str:
    """Names in a row, the last after `word`."""
    *firsts, last = [name.format(item) for item in names] or [""]
    return f"{', '.join(firsts)} {word} {last}" if firsts else last
