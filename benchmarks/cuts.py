"""The engine's cuts, interleaved on one machine: predict, explain, explain_deep."""

from collections.abc import Callable, Mapping

import numpy as np

from app import bundle as bundles
from app import engines
from app.bundle import Bundle
from app.engines import Cut, Engine
from app.settings import Settings
from benchmarks import pictures
from benchmarks.protocol import Worker
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave, timed

__all__ = ["ROWS", "compare", "run"]

ROWS = (1, 8)

LIMITS = {Cut.EXPLAIN: 1.08, Cut.EXPLAIN_DEEP: 2.2}
"""What a cut may cost, in times of `predict`."""

LARGEST = 10
"""Kinds of operations in a profile."""


def compare(
    bundle: Bundle,
    compared: Mapping[str, Engine],
    *,
    rounds: int,
    rows: int = 1,
) -> dict[str, dict[Cut, Spread]]:
    """The milliseconds of each cut, by engine.

    Args:
        bundle: the model version.
        compared: run it, by whatever name.
        rounds: timed calls of each cut, in turn.
        rows: photos in a call.
    """
    size = bundle.card.input.size
    image = np.stack([pictures.pixels(size, size, seed) for seed in range(rows)])
    index = np.full(rows, -1, np.int32)

    def call(engine: Engine, cut: Cut) -> Callable[[], list[float]]:
        return lambda: timed(lambda: engine.run(cut, image, index, index))

    calls = {f"{name} {cut}": call(engine, cut) for name, engine in compared.items() for cut in Cut}
    found = interleave(calls, rounds=rounds)
    return {name: {cut: found[f"{name} {cut}"] for cut in Cut} for name in compared}


def run(rounds: int) -> Part:
    """Measure the engine that the settings choose."""
    settings = Settings()
    bundle = bundles.load(settings.model_path)
    engine = engines.create(bundle, **settings.engine_options)
    info = engine.info
    part = Part(
        "What explaining costs",
        "The engine alone, in one process: no HTTP, no decoding. `predict` gives probabilities; "
        "`explain` those and every method's map at the last layer; `explain_deep` those and every "
        f"method's map at {len(bundle.card.layers) - 1} layers before it. "
        f"{info.name} {info.version} in {info.precision}.",
    )
    lines: list[tuple[str, ...]] = []
    for rows in ROWS:
        spreads = compare(bundle, {"": engine}, rounds=rounds, rows=rows)[""]
        base = spreads[Cut.PREDICT].median
        for cut, found in spreads.items():
            ratio = found.median / base
            lines.append((str(rows), f"`{cut.value}`", str(found.scaled(1 / rows)), f"{ratio:.2f}"))
            if cut in LIMITS:
                what = f"`{cut.value}` in times of `predict`, {rows} photo(s) in a call"
                part.targets.append(Target(what, ratio, LIMITS[cut]))
    part.tables.append(Table(("photos in a call", "cut", "ms a photo", "times `predict`"), lines))
    engine.close()
    if info.name == "openvino":
        part.tables += [_profile(rows) for rows in ROWS]
    return part


def _profile(rows: int) -> Table:
    """Where OpenVINO says that the time goes; counting costs time itself."""
    arguments = ("--engine", "openvino", "--count-operations")
    with Worker("benchmarks.workers.engine", *arguments) as worker:
        spent = {cut: worker.ask("profile", cut=cut.value, rows=rows, count=10) for cut in Cut}
    kinds = sorted(spent[Cut.EXPLAIN_DEEP], key=lambda kind: -spent[Cut.EXPLAIN_DEEP][kind])
    lines = [
        (kind, *(f"{100 * spent[cut].get(kind, 0.0) / _total(spent):.1f}" for cut in Cut))
        for kind in kinds[:LARGEST]
    ]
    sums = (f"{100 * sum(spent[cut].values()) / _total(spent):.1f}" for cut in Cut)
    return Table(
        ("operation", *(f"`{cut.value}`" for cut in Cut)),
        [("all", *sums), *lines],
        f"Where the time goes, {rows} photo(s) in a call: percent of `predict`'s, by OpenVINO's "
        "own count of each kind of operation.",
    )


def _total(spent: dict[Cut, dict[str, float]]) -> float:
    return sum(spent[Cut.PREDICT].values())
