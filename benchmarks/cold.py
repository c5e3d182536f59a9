"""Cold start: time until ready, and memory before and after the first deep request."""

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager

from app import bundle as bundles
from app.settings import Settings
from benchmarks import environments, pictures, services, weights
from benchmarks.protocol import Worker
from benchmarks.results import Part, Table, Target
from benchmarks.services import Service
from benchmarks.timing import Spread, spread

__all__ = ["run"]

SHALLOW = ("/predict", "/gradcam")
DEEP = "/gradcam?layers=last6&method=layercam"

BEFORE_DEEP = 32
"""Requests of each shallow endpoint, from 8 clients, before memory is read."""

OURS = "OpenVINO"

Start = Callable[[], AbstractContextManager[Service]]


def run(rounds: int) -> Part:
    """Start the services in turn, `rounds` times."""
    part = Part(
        "A cold start",
        "From the process's start to the first 200 of `/readyz`, the disk's cache warm; and "
        "resident memory of the service and its decoders, with what they share counted for each, "
        f"after {BEFORE_DEEP} requests of each of {' and '.join(SHALLOW)} by 8 clients, and after "
        f"one more of `{DEEP}`.",
    )
    file = environments.CACHE / "weights.npz"
    weights.write(bundles.load(Settings().model_path), file)
    starts: dict[str, Start] = {
        OURS: lambda: services.ours(engine="openvino"),
        "TensorFlow": lambda: services.ours(engine="tensorflow"),
        "usual way": lambda: services.plain(file),
    }
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    before: dict[str, list[float]] = {name: [] for name in starts}
    after: dict[str, list[float]] = {name: [] for name in starts}
    with Worker("benchmarks.workers.load") as load:
        data = base64.b64encode(pictures.jpeg(500, 375)).decode()
        load.ask("keep", name="photo", data=data)
        for _ in range(rounds):
            for name, start in starts.items():
                with start() as service:
                    seconds[name].append(service.started_s)
                    for path in SHALLOW:
                        _send(load, service, path, clients=8, requests=BEFORE_DEEP)
                    before[name].append(service.resident_mb)
                    if name != "usual way":
                        _send(load, service, DEEP)
                        after[name].append(service.resident_mb)
    _report(
        part,
        *(
            {n: spread(v) for n, v in values_by_service.items() if v}
            for values_by_service in (seconds, before, after)
        ),
    )
    return part


def _send(load: Worker, service: Service, path: str, clients: int = 1, requests: int = 1) -> None:
    load.ask(
        "send", ports=[service.port], path=path, photo="photo", clients=clients, requests=requests
    )


def _report(
    part: Part,
    seconds: dict[str, Spread],
    before: dict[str, Spread],
    after: dict[str, Spread],
) -> None:
    rows = [
        (
            name,
            str(spread),
            f"{spread.median / seconds[OURS].median:.1f}",
            str(before[name]),
            str(after.get(name, "")),
        )
        for name, spread in seconds.items()
    ]
    columns = ("", "s to ready", "times OpenVINO's", "MB before", "MB after a deep request")
    part.tables.append(Table(columns, rows))
    part.targets += [
        Target("OpenVINO: s from start to ready", seconds[OURS].median, 3.0),
        Target("OpenVINO: MB resident before a deep request", before[OURS].median, 600.0),
    ]
