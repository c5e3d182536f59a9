"""The service over HTTP, beside the engine alone and beside a plain FastAPI service."""

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from app import bundle as bundles
from app.engines import BATCH_SIZES
from app.settings import Settings
from benchmarks import pictures, services, weights
from benchmarks.environments import CACHE
from benchmarks.protocol import Worker
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave, spread

__all__ = ["Loads", "run"]

PHOTOS = {"224 px": (224, 224), "12 MP": (4032, 3024)}

SHARES = {8: 0.8, 16: 0.85}
"""Least share of the engine's best rate that `/predict` shall have, by clients."""

BURST = 8
"""Requests, or calls of the engine, in a row: enough to find the caches warm."""

FEW = 2
"""The same for slow requests."""

CLIENTS = (1, 2, 4, 8, 16, 32)

LEAST_REQUESTS, REQUESTS_EACH = 400, 48
"""In all, and per client: enough that ramp-up and ramp-down hardly count."""

SLOW_REQUESTS_EACH = 4
"""The same of requests that take many times as long."""

PREDICT, FIGURES, PICTURE = "/predict", "/gradcam?overlay=false", "/gradcam"


@dataclass(slots=True)
class Loads:
    """Sends requests through the load generator, and records what it reports.

    Attributes:
        generator: a `benchmarks.workers.load`.
        stages: `timings_ms` of the responses, by case.
        cpu_ms: processor time of the load generator per request, for each call of `send`.
    """

    generator: Worker
    stages: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    cpu_ms: list[float] = field(default_factory=list)

    def keep_photos(self) -> None:
        """Send the generator its photos."""
        for name, size in PHOTOS.items():
            data = base64.b64encode(pictures.jpeg(*size)).decode()
            self.generator.ask("keep", name=name, data=data)

    def send(
        self,
        case: str,
        service: services.Service | Sequence[int],
        path: str,
        photo: str,
        **options: Any,
    ) -> tuple[list[float], float]:
        """Send `requests` from `clients`; returns milliseconds of each, and images per second.

        Clients take the ports in turn, where there are several.
        """
        ports = [service.port] if isinstance(service, services.Service) else list(service)
        load = {"clients": 1, "requests": BURST if photo == "224 px" else FEW} | options
        result = self.generator.ask("send", ports=ports, path=path, photo=photo, **load)
        self.stages.setdefault(case, []).append(result["timings_ms"])
        self.cpu_ms.append(result["cpu_s"] * 1000 / load["requests"])
        return result["times_ms"], load["requests"] / result["wall_s"]


def run(rounds: int) -> Part:
    """Measure our service, a plain one and the engine, each in a process of its own."""
    part = Part(
        "Over HTTP",
        "Closed loops of clients on the same cores, each asking again as soon as it is answered, "
        "over connections kept alive; the photo is a multipart field unless it says *raw*. The "
        "*usual way* is a FastAPI handler that calls the same network as a Keras model, and "
        f"explains by `tf.GradientTape`. One client: {BURST} requests in a row, then the next "
        "line's turn, and so on in each round. Milliseconds are medians with quartiles.",
    )
    path = CACHE / "weights.npz"
    weights.write(bundles.load(Settings().model_path), path)
    with ExitStack() as stack:
        engine = stack.enter_context(Worker("benchmarks.workers.engine"))
        loads = Loads(stack.enter_context(Worker("benchmarks.workers.load")))
        loads.keep_photos()
        ours = stack.enter_context(services.ours())
        plain = stack.enter_context(services.plain(path))
        spreads = _one_client(part, loads, engine, ours, plain, rounds)
        _many_clients(part, loads, engine, ours, plain, max(1, rounds // 4))
    part.tables.append(_stages(loads.stages, spreads))
    part.figures = {"load_generator_cpu_ms_a_request": spread(loads.cpu_ms).median}
    return part


def _one_client(
    part: Part,
    loads: Loads,
    engine: Worker,
    ours: services.Service,
    plain: services.Service,
    rounds: int,
) -> dict[str, Spread]:
    def timed_case(
        case: str, service: services.Service, path: str, photo: str, **options: Any
    ) -> tuple[str, Callable[[], list[float]]]:
        return case, lambda: loads.send(case, service, path, photo, **options)[0]

    calls = {
        "engine, `predict`": lambda: list(engine.ask("run", cut="predict", count=BURST)),
        "engine, `explain`": lambda: list(engine.ask("run", cut="explain", count=BURST)),
        **dict(
            timed_case(f"`{path}`, {photo}", ours, path, photo)
            for photo in PHOTOS
            for path in (PREDICT, FIGURES, PICTURE)
        ),
        **dict(
            timed_case(f"`{PREDICT}`, {photo}, raw", ours, PREDICT, photo, raw=True)
            for photo in PHOTOS
        ),
        **dict(
            timed_case(f"usual way, `{path}`, {photo}", plain, path, photo, requests=FEW)
            for photo in PHOTOS
            for path in (PREDICT, FIGURES, PICTURE)
        ),
    }
    spreads = interleave(calls, rounds=rounds)
    part.tables.append(_one_client_table(spreads, base="engine, `predict`"))
    small = {path: spreads[f"`{path}`, 224 px"].median for path in (PREDICT, FIGURES, PICTURE)}
    base = spreads["engine, `predict`"].median
    extra = spreads[f"`{PREDICT}`, 12 MP"].median - small[PREDICT]
    part.targets += [
        Target("one client, 224 px: `/predict` in times of the engine", small[PREDICT] / base, 2.0),
        Target("`/gradcam` with its PNG in times of the engine", small[PICTURE] / base, 3.5),
        Target(
            "`/gradcam` with its PNG in times of `/predict`", small[PICTURE] / small[PREDICT], 1.8
        ),
        Target("ms that a 12-megapixel JPEG costs more than one of 224 px", extra, 20.0),
    ]
    return spreads


def _one_client_table(spreads: dict[str, Spread], base: str) -> Table:
    rows = []
    for name, times in spreads.items():
        usual = spreads.get(f"usual way, {name.removesuffix(', raw')}")
        faster = f"{usual.median / times.median:.1f}" if usual else ""
        rows.append((name, str(times), f"{times.median / spreads[base].median:.2f}", faster))
    columns = ("one client", "ms", "times the engine's `predict`", "times faster than usual")
    return Table(columns, rows)


def _many_clients(
    part: Part,
    loads: Loads,
    engine: Worker,
    ours: services.Service,
    plain: services.Service,
    rounds: int,
) -> None:
    """Images per second: the median over rounds, each of which gives one figure."""
    sizes = [rows for rows in BATCH_SIZES if rows <= Settings().max_batch]
    rates: dict[str, list[float]] = {}
    sent = len(loads.cpu_ms)

    def note(case: str, rate: float) -> None:
        rates.setdefault(case, []).append(rate)

    for _ in range(rounds):
        for cut in ("predict", "explain"):
            for rows in sizes:
                times = engine.ask("run", cut=cut, rows=rows, count=max(8, 64 // rows))
                note(_engine_case(cut, rows), 1000 * rows * len(times) / sum(times))
        for clients in CLIENTS:
            for path in (PREDICT, FIGURES, PICTURE):
                requests = max(LEAST_REQUESTS, REQUESTS_EACH * clients)
                options = {"clients": clients, "requests": requests}
                case = _clients_case(path, clients)
                note(case, loads.send(case, ours, path, "224 px", **options)[1])
        for clients in (8, 16, 32):
            case = f"`{PREDICT}`, 12 MP, {clients} client(s)"
            options = {"clients": clients, "requests": SLOW_REQUESTS_EACH * clients}
            note(case, loads.send(case, ours, PREDICT, "12 MP", **options)[1])
        for path in (PREDICT, FIGURES):
            case = f"usual way, `{path}`, 224 px, 8 client(s)"
            options = {"clients": 8, "requests": SLOW_REQUESTS_EACH * 8}
            note(case, loads.send(case, plain, path, "224 px", **options)[1])
    spreads = {case: spread(values) for case, values in rates.items()}
    best = {
        cut: max(spreads[_engine_case(cut, rows)].median for rows in sizes)
        for cut in ("predict", "explain")
    }
    part.tables.append(
        Table(
            ("many clients", "images/s", *(f"share of the engine's best `{cut}`" for cut in best)),
            [
                (case, str(rate), *(f"{rate.median / base:.2f}" for base in best.values()))
                for case, rate in spreads.items()
            ],
            "Each line once in every round. `/predict` runs `explain`, too. Clients and service "
            f"share the cores: a request takes {spread(loads.cpu_ms[sent:]).median:.2f} ms of a "
            "core for the client.",
        )
    )
    part.targets += _many_clients_targets(
        {clients: spreads[_clients_case(PREDICT, clients)].median for clients in CLIENTS},
        best["predict"],
    )


def _engine_case(cut: str, rows: int) -> str:
    return f"engine, `{cut}`, {rows} photo(s) in a call"


def _clients_case(path: str, clients: int) -> str:
    return f"`{path}`, 224 px, {clients} client(s)"


def _many_clients_targets(rates: Mapping[int, float], base: float) -> list[Target]:
    """Of `/predict`.

    Args:
        rates: images per second, by the number of clients in ascending order.
        base: images per second of the engine's `predict` with its best batch.
    """
    targets = [
        Target(
            f"{clients} clients, 224 px: `{PREDICT}` as a share of the engine's rate at its best "
            "batch",
            rates[clients] / base,
            share,
            at_most=False,
        )
        for clients, share in SHARES.items()
    ]
    growth = min(more / fewer for fewer, more in pairwise(rates.values()))
    title = f"`{PREDICT}`, 224 px, twice the clients, up to {max(rates)}: times the rate, at worst"
    return [*targets, Target(title, growth, 0.95, at_most=False)]


def _stages(
    timings: Mapping[str, list[Mapping[str, float]]], spreads: Mapping[str, Spread]
) -> Table:
    """Time by stage for one client, as the service reports it."""
    names = ("decode", "queue", "inference", "render")
    rows = []
    for case, answers in timings.items():
        if case not in spreads or not answers[0]:
            continue
        stage_ms = {
            name: spread([answer.get(name, 0.0) for answer in answers]).median for name in names
        }
        rest = spreads[case].median - sum(stage_ms.values())
        rows.append((case, *(f"{stage_ms[name]:.2f}" for name in names), f"{rest:.2f}"))
    return Table(
        ("one client", *names, "the rest"),
        rows,
        "Where the time goes, ms: medians of `timings_ms` in the answers. The rest is HTTP, JSON, "
        "and the load generator.",
    )
