"""The README's examples, run against a real service; `python -m tests.readme` prints them anew."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import PROJECT
from tests import needs
from tests.app.services import LONG, serving

__all__ = ["PHOTOS", "README", "Example", "examples", "serve"]

README = PROJECT / "README.md"
PHOTOS = needs.SHARED / "photos"
VARIABLES = {"PHOTO": "n02093754_Border_terrier.JPEG", "BEAGLE": "n02088364_beagle.JPEG"}
"""What the commands call photos."""

_BLOCK = re.compile(
    r"```sh\n(?P<command>.*?)```(?P<between>\s*```(?:json|http)\n)?(?(between)(?P<answer>.*?)```)",
    re.S,
)
_DIGITS = {"box": 1, "peak": 1, "timings_ms": 1}
_HEADERS = ("breedcam-", "content-", "x-request-id")


@dataclass(frozen=True)
class Example:
    """A command, and its answer as printed; None where none is."""

    command: str
    answer: str | None

    @property
    def gives_headers(self) -> bool:
        return "-D -" in self.command

    def run(self, address: str, directory: Path) -> str:
        """What it writes to stdout, asked of the service at that address."""
        photos = {name: str(PHOTOS / file) for name, file in VARIABLES.items()}
        done = subprocess.run(
            ["bash", "-c", self.command.replace("localhost:8000", address)],
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


@contextmanager
def serve() -> Iterator[str]:
    """The address of the service as it starts without settings, but on the CPU."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as service:
        yield f"127.0.0.1:{service.port}"


def rewrite() -> None:
    """Put the answers of the model in service into the README."""
    text = README.read_text(encoding="utf-8")
    with serve() as address, tempfile.TemporaryDirectory() as directory:

        def anew(match: re.Match[str]) -> str:
            example = Example(match["command"], match["answer"])
            if example.answer is None:
                return match[0]
            example.run(address, Path(directory))  # what the first time takes is not told
            output = example.run(address, Path(directory))
            told = _headers(output) if example.gives_headers else _laid_out(output)
            return match[0].replace(example.answer, told)

        text = _BLOCK.sub(anew, text)
    README.write_text(text, encoding="utf-8")


def _headers(output: str) -> str:
    first, *lines = output.splitlines()
    return "\n".join([first, *(line for line in lines if line.startswith(_HEADERS))]) + "\n"


def _laid_out(output: str) -> str:
    """A member a line, and an explanation a line; an answer of one member as it is."""
    answer = json.loads(output)
    if len(answer) == 1:
        return output + "\n"
    members = []
    for name, value in _rounded(answer).items():
        told = json.dumps(value)
        if name == "explanations":
            told = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        members.append(f' "{name}": {told}')
    return "{\n" + ",\n".join(members) + "\n}\n"


def _rounded(value: Any, digits: int = 4) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each, _DIGITS.get(name, digits)) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each, digits) for each in value]
    return round(value, digits) if isinstance(value, float) else value


if __name__ == "__main__":
    rewrite()
