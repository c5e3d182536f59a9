"""The engine's cuts, interleaved on one machine: predict, explain, explain_deep."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from app.bundle import Bundle
from app.engines import Cut, Engine

__all__ = ["measure", "medians_ms"]


def measure(bundle: Bundle, engine: Engine, *, rounds: int, rows: int = 1) -> dict[str, float]:
    """Median milliseconds of each cut, and each one's ratio to `predict`.

    Args:
        bundle: the model version.
        engine: runs it.
        rounds: timed calls of each cut, in turn.
        rows: photos in a call.
    """
    size = bundle.card.input.size
    image = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
    index = np.full(rows, -1, np.int32)

    def call(cut: Cut) -> Callable[[], object]:
        return lambda: engine.run(cut, image, index, index)

    medians = medians_ms({cut.value: call(cut) for cut in Cut}, rounds=rounds)
    ratios = {f"{name}/predict": medians[name] / medians["predict"] for name in medians}
    return medians | ratios


def medians_ms(calls: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; each round runs every one, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles, and fills the caches
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begun) * 1000)
    return {name: statistics.median(spent) for name, spent in times.items()}
