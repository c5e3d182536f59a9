"""The examples of README and docs, run against a real service.

`python -m tests.readme` writes their answers anew.
"""

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.settings import PROJECT
from tests import needs
from tests.app.services import LONG, serving

__all__ = [
    "DOCS",
    "PAGES",
    "PHOTOS",
    "README",
    "Example",
    "Table",
    "check_like",
    "commands",
    "examples",
    "rounded",
    "serve",
]

README = PROJECT / "README.md"
DOCS = PROJECT / "docs"
PAGES = (README, *sorted(DOCS.glob("*.md")))
PHOTOS = needs.SHARED / "photos"
VARIABLES = {"PHOTO": "n02093754_Border_terrier.JPEG", "BEAGLE": "n02088364_beagle.JPEG"}
"""The photos, by their names in the commands."""

_BLOCK = re.compile(
    r"```sh\n(?P<command>.*?)```(?P<between>\s*```(?:json|http)\n)?(?(between)(?P<answer>.*?)```)",
    re.S,
)
_DIGITS = {"box": 1, "peak": 1, "timings_ms": 1}
_HEADERS = ("breedcam-", "content-", "x-request-id")


@dataclass(frozen=True)
class Example:
    """A command, and its answer as printed; None where there is none."""

    command: str
    answer: str | None

    @property
    def gives_headers(self) -> bool:
        return "-D -" in self.command

    @property
    def output(self) -> str | None:
        """Name of the file that it writes."""
        match = re.search(r"-o (\S+)", self.command)
        return match[1] if match else None

    @property
    def uses_photos(self) -> bool:
        """It sends photos that do not come with the project."""
        return any(f"${name}" in self.command for name in VARIABLES)

    def run(self, address: str, directory: Path) -> str:
        """Its standard output, with the service at that address; files go into the directory."""
        photos = {name: str(PHOTOS / file) for name, file in VARIABLES.items()}
        command = self.command.replace("localhost:8000", address)
        done = subprocess.run(
            ["bash", "-c", command.replace("@docs/", f"@{DOCS}/")],
            cwd=directory,
            env=os.environ | photos,
            capture_output=True,
            text=True,
            check=True,
            timeout=2 * LONG,
        )
        return done.stdout


def examples(text: str) -> list[Example]:
    return [Example(match["command"], match["answer"]) for match in _BLOCK.finditer(text)]


def commands(text: str, start: str) -> list[list[str]]:
    """The words of each command of that start, in code blocks and between backticks.

    The start itself, such as `-m training`, is not among them; lines that end in a backslash go on.
    """
    joined = re.sub(r" *\\\n +", " ", text)
    lines = re.findall(rf"^(?:    .*|`.*)?{re.escape(start)} +(.+)$", joined, re.M)
    spans = re.findall(rf"`[^`\n]*{re.escape(start)} +([^`]+)`", joined)
    blocks = [line for line in lines if "`" not in line]
    return [shlex.split(command, comments=True) for command in blocks + spans]


@dataclass(frozen=True)
class Table:
    """The rows of a Markdown table, each a cell for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, text: str, *columns: str) -> "Table":
        """The table with these first columns."""
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("|") and _cells(line)[: len(columns)] == columns:
                body = lines[number + 2 :]
                length = next((i for i, row in enumerate(body) if not row.startswith("|")), None)
                return cls(_cells(line), tuple(_cells(row) for row in body[:length]))
        raise ValueError(f"no table has the columns {columns}")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().removeprefix("|")[:-1].split("|"))


@contextmanager
def serve() -> Iterator[str]:
    """The address of the service without settings, but in the arithmetic that every CPU has."""
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory), precision="float32") as service,
    ):
        yield f"127.0.0.1:{service.port}"


def rewrite() -> None:
    """Put the answers of the model in service into the pages."""
    with serve() as address:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            changed = _BLOCK.sub(lambda match: _answered(match, address), text)
            if changed != text:
                page.write_text(changed, encoding="utf-8")


def _answered(match: re.Match[str], address: str) -> str:
    """The block with the answer of now."""
    example = Example(match["command"], match["answer"])
    if example.answer is None:
        return match[0]
    with tempfile.TemporaryDirectory() as directory:
        example.run(address, Path(directory))  # the first call is slower than the others
        output = example.run(address, Path(directory))
    answer = _headers(output) if example.gives_headers else _laid_out(output)
    return match[0].replace(f"\n{example.answer}```", f"\n{answer}```")


def _headers(output: str) -> str:
    first, *lines = output.splitlines()
    return "\n".join([first, *(line for line in lines if line.startswith(_HEADERS))]) + "\n"


def _laid_out(output: str) -> str:
    """A line for each member and each explanation; an answer of one member stays as it is."""
    answer = json.loads(output)
    if len(answer) == 1:
        return output + "\n"
    members = []
    for name, value in rounded(answer).items():
        text = json.dumps(value)
        if name == "explanations":
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        members.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(members) + "\n}\n"


def rounded(value: Any, digits: int = 4) -> Any:
    """A JSON document with its numbers as they are printed."""
    if isinstance(value, dict):
        return {name: rounded(member, _DIGITS.get(name, digits)) for name, member in value.items()}
    if isinstance(value, list):
        return [rounded(member, digits) for member in value]
    return round(value, digits) if isinstance(value, float) else value


def check_like(answer: Any, printed: Any, key: str = "") -> None:
    """Hold that an answer is as printed, but for times and ids, which differ.

    Words are equal, and numbers nearly: another CPU rounds in another way.
    """
    if isinstance(printed, dict):
        assert set(answer) == set(printed)
        for name in set(printed) - {"timings_ms", "request_id"}:
            check_like(answer[name], printed[name], name)
    elif isinstance(printed, list):
        assert len(answer) == len(printed)
        for value, other in zip(answer, printed, strict=True):
            check_like(value, other, key)
    elif isinstance(printed, float):
        near = {"box": 8.0, "peak": 40.0}.get(key, 0.05)
        assert answer == pytest.approx(printed, abs=near)
    else:
        assert answer == printed


if __name__ == "__main__":
    rewrite()
