"""A model's classes as a text file: one per line, `name` or `synset<TAB>name`."""

from pathlib import Path

from app.bundle import Label
from training.errors import ExportError

__all__ = ["STANFORD_DOGS", "read"]

STANFORD_DOGS = Path(__file__).parent / "stanford_dogs.txt"
"""The 120 breeds of Stanford Dogs, in the order of their synsets."""


def read(path: Path) -> tuple[Label, ...]:
    """Read the classes in the order of the lines; blank lines at the end do not count.

    Raises:
        ExportError: the file does not exist or is not UTF-8, or a line has no name.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"The labels {path} cannot be read: {error}") from error
    labels = []
    for index, line in enumerate(lines):
        synset, tab, name = line.rpartition("\t")
        if not name.strip():
            raise ExportError(f"{path}, line {index + 1}: the class has no name.")
        labels.append(Label(index=index, synset=synset.strip() if tab else None, name=name.strip()))
    return tuple(labels)
