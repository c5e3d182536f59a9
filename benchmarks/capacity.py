"""How many requests a machine answers, measured and simulated, and what many machines cost.

    python -m benchmarks capacity

Measures the stages of a request on this machine with one client, simulates more clients
(`benchmarks.queueing`) and measures those too, each once a round. Then it simulates what was not
measured: rates up to the limit, more cores, many machines.
"""

import argparse
import base64
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from app.settings import Settings
from benchmarks import document, pictures, services
from benchmarks.protocol import Worker
from benchmarks.queueing import Costs, Machine, simulate
from benchmarks.results import Table

__all__ = ["Load", "main", "measure", "measured_costs"]

PATH, SIZE = "/gradcam", (500, 375)
"""What is asked for, and the pixels of the photo."""

CLIENTS = (1, 2, 4, 8, 16, 32)

SIMULATED_S = 60.0

TARGET_S = 0.5
"""Within which 99 of 100 answers shall come."""

REFUSAL = 0.2
"""Of an answered request's work on the event loop, that of a refusal."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop of clients measured.

    Attributes:
        rate: answers a second.
        latency_s: median, seconds.
        client_s: processor time of the clients for a request.
        loop_s: processor time of the service's main thread for a request.
        decode_s: processor time of its decoders for a request.
        stages: seconds of the stages that the service reports with its answer.
    """

    rate: float
    latency_s: float
    client_s: float
    loop_s: float
    decode_s: float
    stages: dict[str, float]


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        arguments: what follows `capacity` on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks capacity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--core-hour",
        type=float,
        default=0.04,
        metavar="PRICE",
        help="of a core, in the currency of your choice; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    with (
        Worker("benchmarks.workers.engine") as engine,
        Worker("benchmarks.workers.load") as generator,
        services.ours() as service,
    ):
        photo = base64.b64encode(pictures.jpeg(*SIZE)).decode()
        generator.ask("keep", name="photo", data=photo)
        loads: dict[int, list[Load]] = {clients: [] for clients in CLIENTS}
        calls: dict[int, list[float]] = {}
        for clients in CLIENTS:
            measure(generator, service, clients)  # fills the caches
        for _ in range(options.rounds):
            for rows in range(1, Settings().max_batch + 1):
                times = engine.ask("run", cut="explain", rows=rows, count=8)
                calls.setdefault(rows, []).append(median(times) / 1000)
            for clients in CLIENTS:
                loads[clients].append(measure(generator, service, clients))
        answer_bytes = len(json.dumps(generator.ask("last")))
    costs = measured_costs(loads[1], {rows: median(times) for rows, times in calls.items()})
    machine = Machine(cores=cores, decoders=Settings().decoders)
    for table in (
        _stages(costs),
        _clients(costs, machine, loads),
        _rates(costs, machine),
        _cores(costs, machine),
        _machines(costs, machine, options.core_hour, len(base64.b64decode(photo)), answer_bytes),
    ):
        print(table.caption, document.markdown(table), sep="\n\n")


def measure(generator: Worker, service: services.Service, clients: int) -> Load:
    """Let a closed loop of clients send some hundred requests."""
    requests = 32 * max(4, clients // 2)
    loop, decoders = _processor_s(service)
    result = generator.ask(
        "send", ports=[service.port], path=PATH, photo="photo", clients=clients, requests=requests
    )
    loop_after, decoders_after = _processor_s(service)
    return Load(
        rate=requests / result["wall_s"],
        latency_s=median(result["times_ms"]) / 1000,
        client_s=result["cpu_s"] / requests,
        loop_s=(loop_after - loop) / requests,
        decode_s=(decoders_after - decoders) / requests,
        stages={name: value / 1000 for name, value in result["timings_ms"].items()},
    )


def measured_costs(loads: Sequence[Load], calls: Mapping[int, float]) -> Costs:
    """The costs of a request, from runs with one client: medians.

    Args:
        loads: the runs.
        calls: seconds of a call of the model alone, for 1, 2, 3 ... photos.
    """

    def middle(value: Callable[[Load], float]) -> float:
        return median(value(load) for load in loads)

    # In the service the model's first call after a pause is slower than in a row of calls.
    slower = middle(lambda load: load.stages["inference"]) / calls[1]
    inference = tuple(calls[rows] * slower for rows in sorted(calls))
    loop, decode = middle(lambda load: load.loop_s), middle(lambda load: load.decode_s)
    render, client = middle(lambda load: load.stages["render"]), middle(lambda load: load.client_s)
    work = loop + decode + inference[0] + render + client
    return Costs(
        loop=loop,
        decode=decode,
        inference=inference,
        render=render,
        client=client,
        delay=max(0.0, middle(lambda load: load.latency_s) - work),
        refusal=loop * REFUSAL,
    )


def _processor_s(service: services.Service) -> tuple[float, float]:
    """Processor time so far of the service's main thread, and of its child processes, seconds."""
    children = Path(f"/proc/{service.process_id}/task/{service.process_id}/children")
    return _thread_s(service.process_id, service.process_id), sum(
        _thread_s(int(child), int(thread.name))
        for child in children.read_text(encoding="utf-8").split()
        for thread in Path(f"/proc/{child}/task").iterdir()
    )


def _thread_s(process: int, thread: int) -> float:
    """Processor time of a thread, seconds; 0 where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        schedule = Path(f"/proc/{process}/task/{thread}/schedstat").read_text(encoding="utf-8")
        return int(schedule.split()[0]) / 1e9
    return 0.0


def _stages(costs: Costs) -> Table:
    rows = [
        ("event loop: HTTP, header, figures", f"{costs.loop * 1000:.2f}"),
        ("decoder process", f"{costs.decode * 1000:.2f}"),
        *(
            (f"model, {rows} photo(s) in a call", f"{seconds * 1000:.2f}")
            for rows, seconds in enumerate(costs.inference, 1)
        ),
        ("image thread: heatmap, box, PNG", f"{costs.render * 1000:.2f}"),
        ("hand-overs, on no core", f"{costs.delay * 1000:.2f}"),
        ("the client, on the same cores", f"{costs.client * 1000:.2f}"),
    ]
    caption = f"A request of `{PATH}` with a photo of {SIZE[0]} x {SIZE[1]} pixels, one client:"
    return Table(("stage", "ms"), rows, caption)


def _clients(costs: Costs, machine: Machine, loads: Mapping[int, Sequence[Load]]) -> Table:
    rows = []
    for clients, runs in loads.items():
        outcome = simulate(costs, machine, seconds=SIMULATED_S, clients=clients)
        rate = median(load.rate for load in runs)
        latency = median(load.latency_s for load in runs)
        rows.append(
            (
                str(clients),
                f"{rate:.1f}",
                f"{outcome.rate:.1f}",
                f"{outcome.rate / rate:.2f}",
                f"{latency * 1000:.0f}",
                f"{outcome.quantile(0.5) * 1000:.0f}",
                f"{outcome.batch:.1f}",
            )
        )
    columns = (
        *("clients", "measured, 1/s", "simulated, 1/s", "ratio"),
        *("median measured, ms", "simulated, ms", "photos in a call"),
    )
    return Table(columns, rows, f"Closed loops of clients on the same {machine.cores} cores:")


def _rates(costs: Costs, machine: Machine) -> Table:
    elsewhere = replace(costs, client=0.0)
    peak = _peak(elsewhere, machine)
    rows = []
    for share in (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 2.0, 10.0):
        outcome = simulate(elsewhere, machine, seconds=SIMULATED_S, rate=share * peak)
        rows.append(
            (
                f"{share:g} x {peak:.0f}/s",
                f"{outcome.rate:.1f}",
                f"{outcome.refused:.1%}",
                f"{outcome.quantile(0.5) * 1000:.0f}",
                f"{outcome.quantile(0.99) * 1000:.0f}",
                f"{outcome.cores:.0%}",
                f"{outcome.busy['loop']:.0%}",
            )
        )
    columns = (
        *("offered", "answered, 1/s", "answered 429", "median, ms", "99 of 100, ms"),
        *("cores busy", "event loop busy"),
    )
    caption = (
        f"One process on {machine.cores} cores, clients elsewhere, at random times (simulated):"
    )
    return Table(columns, rows, caption)


def _cores(costs: Costs, machine: Machine) -> Table:
    rows = []
    for factor in (1, 2, 4, 8):
        more = replace(
            machine,
            cores=machine.cores * factor,
            decoders=machine.decoders * factor,
            renderers=machine.renderers * factor,
            max_pending=machine.max_pending * factor,
        )
        faster = replace(
            costs, client=0.0, inference=tuple(call / factor for call in costs.inference)
        )
        outcome = simulate(faster, more, seconds=SIMULATED_S, clients=more.max_pending)
        busiest = max(outcome.busy, key=lambda stage: outcome.busy[stage])
        rows.append(
            (
                str(more.cores),
                f"{outcome.rate:.0f}",
                f"{factor * _peak(replace(costs, client=0.0), machine):.0f}",
                f"{outcome.cores:.0%}",
                f"{busiest}, {outcome.busy[busiest]:.0%}",
            )
        )
    columns = (
        *("cores", "one process, 1/s", f"a process for {machine.cores} cores, 1/s"),
        *("cores busy with one", "its busiest stage"),
    )
    caption = (
        "More cores, with one process or several (simulated, as if the model's speed grew with "
        "the cores):"
    )
    return Table(columns, rows, caption)


def _machines(
    costs: Costs, machine: Machine, core_hour: float, photo_bytes: int, answer_bytes: int
) -> Table:
    elsewhere = replace(costs, client=0.0)
    rate = _rate_within(elsewhere, machine, TARGET_S)
    a_million = 1e6 / rate / 3600 * machine.cores
    rows = []
    for total in (10, 100, 1_000, 10_000):
        processes = math.ceil(total / rate)
        gigabits = total * (photo_bytes + answer_bytes) * 8 / 1e9
        rows.append(
            (
                f"{total:,}",
                f"{processes:,}",
                f"{processes * machine.cores:,}",
                f"{gigabits:.2g}",
                f"{processes * machine.cores * core_hour:,.2f}",
                f"{processes * machine.cores * core_hour / total / 3600 * 1e6:.2f}",
            )
        )
    columns = (
        *("requests a second", f"processes of {machine.cores} cores", "cores"),
        *("network, Gbit/s", "an hour", "a million requests"),
    )
    caption = (
        f"Many machines: {rate:.1f} requests a second for each process, so that 99 of 100 are "
        f"answered within {TARGET_S:g} s and fewer than 1 in 1,000 is answered 429; "
        f"{a_million:.1f} core-hours a million; {core_hour:g} for a core-hour (simulated):"
    )
    return Table(columns, rows, caption)


def _peak(costs: Costs, machine: Machine) -> float:
    """Requests a second, where as many as are admitted are always in work."""
    return simulate(costs, machine, seconds=SIMULATED_S, clients=machine.max_pending).rate


def _rate_within(costs: Costs, machine: Machine, seconds: float) -> float:
    """The most requests a second that are answered in time, to 1 %."""
    low, high = 0.0, _peak(costs, machine)
    while high - low > 0.01 * high:
        rate = (low + high) / 2
        outcome = simulate(costs, machine, seconds=SIMULATED_S, rate=rate)
        kept = outcome.quantile(0.99) <= seconds and outcome.refused < 0.001
        low, high = (rate, high) if kept else (low, rate)
    return low
