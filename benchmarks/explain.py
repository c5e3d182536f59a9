"""Grad-CAM of one photo: ours beside other packages', with the same network."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from app import bundle as bundles
from app import heatmaps
from app.engines import cpu_has_bfloat16
from app.settings import Settings
from benchmarks import environments, weights
from benchmarks.machine import has_amx
from benchmarks.protocol import Worker, WorkerFailed
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave

__all__ = ["agreement", "run"]

PEERS = {
    "Xplique": ("xplique", 14.0, 5.0),
    "pytorch-grad-cam": ("pytorch_grad_cam", 25.0, 15.0),
    "tf-keras-vis": ("tf_keras_vis", 60.0, 35.0),
    "keras.io's recipe": ("keras_io", 60.0, 35.0),
}
"""By name: the module in `benchmarks.peers`, and how many times faster ours has to be on a CPU with
AMX, and on one without."""

OURS = "BreedCAM"

BURST = 8
"""Number of our heatmaps in a row. The others are slow enough to measure one at a time."""


def run(rounds: int) -> Part:
    """Measure the peers that can be installed and imported on this machine."""
    part = Part(
        "A heatmap, beside others'",
        "A Grad-CAM at the last layer, from a made picture of the input's size to a heatmap in "
        "NumPy, by the "
        "very same weights; one process each, asked in turn. Ours has the preprocessing in it; the "
        "others are given what the network takes, and all but pytorch-grad-cam and keras.io's "
        "recipe are told the class. Agreement is the correlation with our heatmap, at 224 x 224.",
    )
    file = environments.CACHE / "weights.npz"
    weights.write(bundles.load(Settings().model_path), file)
    with ExitStack() as stack:
        ours = stack.enter_context(Worker("benchmarks.workers.engine"))
        served = ours.ask("precision")
        part.note = f"Ours is as it is served here, in {served}; the others compute in float32."
        workers: dict[str, Worker] = {}
        if served == "int8":
            floats = "bfloat16" if cpu_has_bfloat16() else "float32"
            worker = Worker("benchmarks.workers.engine", "--precision", floats)
            workers[f"{OURS} in {floats}"] = stack.enter_context(worker)
        for name, (module, *_) in PEERS.items():
            try:
                workers[name] = stack.enter_context(_start(module, file))
            except WorkerFailed as error:
                part.missing.append(f"{name}: {error}")
        calls: dict[str, Callable[[], list[float]]] = {
            OURS: lambda: list(ours.ask("explain", count=BURST)),
            **{name: _asking(worker, "explain") for name, worker in workers.items()},
        }
        if "keras.io's recipe" in workers:
            recipe = workers["keras.io's recipe"]
            calls["the same, its model built once"] = _asking(recipe, "explain_built")
        spreads = interleave(calls, rounds=rounds)
        heatmap = ours.ask("heatmap")
        agreements = {
            name: agreement(heatmap, worker.ask("heatmap")) for name, worker in workers.items()
        }
    _report(part, spreads, agreements)
    return part


def agreement(first: Any, second: Any) -> float:
    """The correlation of two square heatmaps, -1 to 1, both resized to 224 x 224."""
    large = [
        heatmaps.resize(np.asarray(heatmap, np.float32), 224, 224) for heatmap in (first, second)
    ]
    return float(np.corrcoef(large[0].ravel(), large[1].ravel())[0, 1])


def _start(module: str, file: Path) -> Worker:
    pinned = (Path(__file__).parent / "peers" / f"{module}.txt").exists()
    python = environments.ensure(module) if pinned else Path(sys.executable)
    return Worker(f"benchmarks.peers.{module}", str(file), python=python)


def _asking(worker: Worker, verb: str) -> Callable[[], list[float]]:
    return lambda: list(worker.ask(verb))


def _report(part: Part, spreads: dict[str, Spread], agreements: dict[str, float]) -> None:
    base = spreads[OURS].median
    part.tables.append(
        Table(
            ("", "ms a heatmap", "times ours", "agreement"),
            [
                (
                    name,
                    str(spread),
                    f"{spread.median / base:.1f}",
                    f"{agreements[name]:.4f}" if name in agreements else "",
                )
                for name, spread in spreads.items()
            ],
        )
    )
    for name, (_, with_amx, without_amx) in PEERS.items():
        if name in spreads:
            limit = with_amx if has_amx() else without_amx
            title = f"a heatmap: times faster than {name}"
            part.targets.append(Target(title, spreads[name].median / base, limit, at_most=False))
