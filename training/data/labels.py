"""A model's classes as a text file: one per line, `name` or `synset<TAB>name`."""

from pathlib import Path

from pydantic import ValidationError

from app.bundle import Label, check_different
from training.errors import ExportError

__all__ = ["STANFORD_DOGS", "read"]

STANFORD_DOGS = Path(__file__).parent / "stanford_dogs.txt"
"""The 120 breeds of Stanford Dogs, in the order of their synsets."""


def read(path: Path) -> tuple[Label, ...]:
    """Read the classes in the order of the lines; blank lines at the end do not count.

    Raises:
        ExportError: the file does not exist or is not UTF-8, a line has no name or one that
            `model.json` cannot hold, or two classes are called the same.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"The labels {path} cannot be read: {error}") from error
    labels = []
    for index, line in enumerate(lines):
        synset, tab, name = line.rpartition("\t")
        if not name.strip():
            raise ExportError(f"{path}, line {index + 1}: the class has no name.")
        try:
            label = Label(index=index, synset=synset.strip() if tab else None, name=name.strip())
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ExportError(f"{path}, line {index + 1}: {reason}.") from error
        labels.append(label)
    try:
        check_different(labels)
    except ValueError as error:
        raise ExportError(f"{path}: {error}.") from error
    return tuple(labels)
