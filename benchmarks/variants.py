"""The engine with other options, to check its own by measurement."""

from collections.abc import Callable
from contextlib import ExitStack

from app.settings import Settings
from benchmarks.protocol import Worker, WorkerFailed
from benchmarks.results import Part, Table
from benchmarks.timing import Spread, interleave

__all__ = ["run"]

CUTS = ("predict", "explain", "explain_deep")

AS_IS = "as it is"

VARIANTS: dict[str, tuple[str, ...]] = {
    AS_IS: (),
    "OpenVINO, float32": ("--engine", "openvino", "--precision", "float32"),
    "TensorFlow": ("--engine", "tensorflow"),
    "TensorFlow, float32": ("--engine", "tensorflow", "--precision", "float32"),
    "OpenVINO, one stream": ("--engine", "openvino", "--streams", "1"),
    "OpenVINO, two streams": ("--engine", "openvino", "--streams", "2"),
}
"""By name: the command line of `benchmarks.workers.engine`."""


def run(rounds: int) -> Part:
    """Measure each variant in a process of its own, in turn."""
    part = Part(
        "The engine's options",
        "Milliseconds a photo, and times the engine as the settings have it "
        "(OpenVINO: one stream for few photos, a stream for each share of many).",
    )
    batch = Settings().max_batch
    with ExitStack() as stack:
        workers = {}
        for name, arguments in VARIANTS.items():
            try:
                worker = Worker("benchmarks.workers.engine", *arguments)
                workers[name] = stack.enter_context(worker)
            except WorkerFailed as error:
                part.missing.append(f"{name}: {error}")
        for rows in (1, batch):
            calls: dict[str, Callable[[], list[float]]] = {}
            for cut in CUTS:
                for name in VARIANTS:
                    if name in workers:
                        calls[f"{name}|{cut}"] = _alone(workers[name], cut, rows)
            spreads = interleave(calls, rounds=rounds)
            part.tables.append(_table(spreads, rows))
    return part


def _alone(worker: Worker, cut: str, rows: int) -> Callable[[], list[float]]:
    return lambda: list(worker.ask("run", cut=cut, rows=rows, count=3))


def _table(spreads: dict[str, Spread], rows: int) -> Table:
    lines = []
    for name in dict.fromkeys(key.partition("|")[0] for key in spreads):
        cells = [name]
        for cut in CUTS:
            spread, base = spreads[f"{name}|{cut}"], spreads[f"{AS_IS}|{cut}"].median
            cells.append(f"{spread.scaled(1 / rows)}: {spread.median / base:.2f}")
        lines.append(tuple(cells))
    titles = (f"{rows} photo(s) in a call", *(f"`{cut}`" for cut in CUTS))
    return Table(titles, lines)
