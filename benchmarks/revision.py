"""The service beside an earlier revision of itself, with requests to each in turn.

    python -m benchmarks revision 4295391

Both run from the Git repository, with the packages that are installed now.
"""

import argparse
import base64
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from benchmarks import document, pictures, services
from benchmarks.protocol import PROJECT, Worker
from benchmarks.results import Table
from benchmarks.timing import Call, Spread, interleave

__all__ = ["main", "measure"]

PHOTOS = {"224 px": (224, 224), "500 px": (500, 375), "12 MP": (4032, 3024)}

PATHS = ("/predict", "/gradcam")


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        arguments: what follows `revision` on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks revision", description=__doc__)
    parser.add_argument("revision", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        extract(options.revision, root)
        print(document.markdown(_report(measure(root, options.rounds), options.revision)))


def extract(revision: str, root: Path) -> None:
    """Write a revision's files into a directory."""
    archive = subprocess.run(
        ["git", "archive", revision], cwd=PROJECT, check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(root, filter="data")


def measure(root: Path, rounds: int) -> dict[str, tuple[Spread, Spread]]:
    """Milliseconds of a request by case: of the revision in `root`, and of this one."""
    with (
        Worker("benchmarks.workers.load") as load,
        services.ours(root) as before,
        services.ours() as after,
    ):
        both = {"before": before, "after": after}
        for name, size in PHOTOS.items():
            data = base64.b64encode(pictures.jpeg(*size)).decode()
            load.ask("keep", name=name, data=data)

        def sends(service: services.Service, path: str, photo: str) -> Call:
            request = {"ports": [service.port], "path": path, "photo": photo}
            return lambda: load.ask("send", clients=1, requests=1, **request)["times_ms"]

        spreads = {}
        for photo in PHOTOS:
            for path in PATHS:
                calls = {name: sends(service, path, photo) for name, service in both.items()}
                timed = interleave(calls, rounds=rounds)
                spreads[f"`{path}`, {photo}"] = timed["before"], timed["after"]
        return spreads


def _report(spreads: dict[str, tuple[Spread, Spread]], revision: str) -> Table:
    rows = [
        (case, str(before), str(after), f"{after.median / before.median:.3f}")
        for case, (before, after) in spreads.items()
    ]
    return Table(("one client", f"{revision}, ms", "now, ms", "ratio of medians"), rows)
