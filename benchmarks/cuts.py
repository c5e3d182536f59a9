"""The engine's cuts, interleaved on one machine: predict, explain, explain_deep."""

from collections.abc import Callable

import numpy as np

from app import bundle as bundles
from app import engines
from app.bundle import Bundle
from app.engines import Cut, Engine
from app.settings import Settings
from benchmarks import pictures
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave, timed

__all__ = ["measure", "run"]

ROWS = (1, 8)

LIMITS = {Cut.EXPLAIN: 1.08, Cut.EXPLAIN_DEEP: 2.2}
"""What a cut may cost, in times of `predict`."""


def measure(bundle: Bundle, engine: Engine, *, rounds: int, rows: int = 1) -> dict[Cut, Spread]:
    """The milliseconds of each cut.

    Args:
        bundle: the model version.
        engine: runs it.
        rounds: timed calls of each cut, in turn.
        rows: photos in a call.
    """
    size = bundle.card.input.size
    image = np.stack([pictures.pixels(size, size, seed) for seed in range(rows)])
    index = np.full(rows, -1, np.int32)

    def call(cut: Cut) -> Callable[[], list[float]]:
        return lambda: timed(lambda: engine.run(cut, image, index, index))

    spreads = interleave({cut.value: call(cut) for cut in Cut}, rounds=rounds)
    return {cut: spreads[cut.value] for cut in Cut}


def run(rounds: int) -> Part:
    """Measure the engine that the settings choose."""
    settings = Settings()
    bundle = bundles.load(settings.model_path)
    engine = engines.create(
        bundle,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
    )
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
        spreads = measure(bundle, engine, rounds=rounds, rows=rows)
        base = spreads[Cut.PREDICT].median
        for cut, found in spreads.items():
            ratio = found.median / base
            lines.append((str(rows), f"`{cut.value}`", str(found.scaled(1 / rows)), f"{ratio:.2f}"))
            if cut in LIMITS:
                what = f"`{cut.value}` in times of `predict`, {rows} photo(s) in a call"
                part.targets.append(Target(what, ratio, LIMITS[cut]))
    part.tables.append(Table(("photos in a call", "cut", "ms a photo", "times `predict`"), lines))
    engine.close()
    return part
