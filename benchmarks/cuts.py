"""The engine's cuts beside each other: predict, explain, explain_deep."""

from collections.abc import Callable, Mapping

from app import bundle as bundles
from app import engines
from app.engines import Cut
from app.settings import Settings
from benchmarks.protocol import Worker
from benchmarks.results import Part, Table, Target
from benchmarks.timing import interleave, spread

__all__ = ["CALLS", "ROWS", "run"]

ROWS = (1, 8)

LIMITS = {Cut.EXPLAIN: 1.06, Cut.EXPLAIN_DEEP: 2.2}
"""The most that a cut may cost, as a multiple of `predict`."""

PROCESSES = 5

CALLS = 3
"""Calls of a cut in a row."""

LARGEST = 10
"""Number of kinds of operations in a profile."""


def run(rounds: int) -> Part:
    """Measure the engine of the settings, in several processes one after the other."""
    settings = Settings()
    bundle = bundles.load(settings.model_path)
    engine = engines.create(bundle, **settings.engine_options)
    info = engine.info
    engine.close()
    part = Part(
        "What explaining costs",
        "The engine alone: no HTTP, no decoding. `predict` gives probabilities; "
        "`explain` those and every method's map at the last layer; `explain_deep` those and every "
        f"method's map at {len(bundle.card.layers) - 1} layers before it. "
        "Where a process's memory happens to lie "
        f"moves a cut by some percent: of {PROCESSES} processes, each with the median of its own "
        "calls in turn, this is the median, and the quartiles.",
        note=f"{info.name} {info.version} in {info.precision}.",
    )
    lines: list[tuple[str, ...]] = []
    ratios: dict[int, dict[Cut, float]] = {}
    for rows in ROWS:
        ratios[rows] = {}
        runs = [_in_a_process(rounds, rows) for _ in range(PROCESSES)]
        for cut in Cut:
            milliseconds = spread([medians[cut] / rows for medians in runs])
            ratio = spread([medians[cut] / medians[Cut.PREDICT] for medians in runs])
            ratios[rows][cut] = ratio.median
            lines.append((str(rows), f"`{cut.value}`", str(milliseconds), str(ratio)))
            if cut in LIMITS:
                title = f"`{cut.value}` in times of `predict`, {rows} photo(s) in a call"
                part.targets.append(Target(title, ratio.median, LIMITS[cut]))
    part.tables.append(Table(("photos in a call", "cut", "ms a photo", "times `predict`"), lines))
    if info.name == "openvino":
        part.tables += [_profile(rows, ratios[rows]) for rows in ROWS]
    return part


def _in_a_process(rounds: int, rows: int) -> dict[Cut, float]:
    """Median milliseconds of each cut's calls, in turn."""
    with Worker("benchmarks.workers.engine") as worker:

        def call(cut: Cut) -> Callable[[], list[float]]:
            # The first call is dropped: it finds the caches cold after reading the question.
            return lambda: list(worker.ask("run", cut=cut.value, rows=rows, count=CALLS + 1))[1:]

        spreads = interleave({cut.value: call(cut) for cut in Cut}, rounds=rounds)
    return {cut: spreads[cut.value].median for cut in Cut}


def _profile(rows: int, ratios: Mapping[Cut, float]) -> Table:
    """Time by kind of operation, as OpenVINO counts it. Counting takes time of its own.

    Only shares are taken from it: the counts are wall-clock times, of few calls of one cut after
    the other.

    Args:
        rows: photos in a call.
        ratios: each cut's time in times of `predict`'s, measured without counting.
    """
    arguments = ("--engine", "openvino", "--count-operations")
    with Worker("benchmarks.workers.engine", *arguments) as worker:
        times = {cut: worker.ask("profile", cut=cut.value, rows=rows, count=10) for cut in Cut}
    return _shares(rows, times, ratios)


def _shares(
    rows: int, times: Mapping[Cut, Mapping[str, float]], ratios: Mapping[Cut, float]
) -> Table:
    """Each cut's time, in percent of `predict`'s, shared out by the times of its operations."""
    percent = {cut: 100 * ratios[cut] / sum(times[cut].values()) for cut in Cut}
    deep = times[Cut.EXPLAIN_DEEP]
    kinds = sorted(deep, key=lambda kind: -deep[kind])
    lines = [
        (kind, *(f"{percent[cut] * times[cut].get(kind, 0.0):.1f}" for cut in Cut))
        for kind in kinds[:LARGEST]
    ]
    return Table(
        ("operation", *(f"`{cut.value}`" for cut in Cut)),
        [("all", *(f"{100 * ratios[cut]:.1f}" for cut in Cut)), *lines],
        f"Where the time goes, {rows} photo(s) in a call: the times above in percent of "
        "`predict`'s, shared out by OpenVINO's own count of each kind of operation.",
    )
