"""The service under Ray Serve, beside itself without Ray.

    python -m benchmarks ray

All of it runs on this machine: with two replicas, they and the clients share its cores.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks import document, services
from benchmarks.http import Loads
from benchmarks.protocol import Worker
from benchmarks.results import Table
from benchmarks.timing import Spread, spread

__all__ = ["main"]

CASES = {
    "alone": "`python -m app.main`, 2 threads",
    "ray": "Ray, one replica of 2 threads",
    "alone-1": "`python -m app.main`, 1 thread",
    "ray-1": "Ray, one replica of 1 thread",
    "two": "two processes of 1 thread",
    "ray-two": "Ray, two replicas of 1 thread",
}

CLIENTS = (1, 8, 16)

PATH = "/gradcam"

PHOTO = "224 px"

CORES = 2
"""The node's CPUs, as Ray counts them."""


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        arguments: what follows `ray` on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks ray", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    for name in options.cases or CASES:
        results = measure(name, options.rounds)
        print(document.markdown(_report(CASES[name], results)), flush=True)


def measure(case: str, rounds: int) -> dict[int, tuple[Spread, Spread]]:
    """Milliseconds of a request, and images per second, by number of clients.

    One case after the other, not in turn: an idle cluster uses the processor too.
    """
    start = {
        "alone": partial(_processes, 1, threads=2),
        "ray": partial(_replicas, 1, cpus=2),
        "alone-1": partial(_processes, 1, threads=1),
        "ray-1": partial(_replicas, 1, cpus=1),
        "two": partial(_processes, 2, threads=1),
        "ray-two": partial(_replicas, 2, cpus=1),
    }[case]
    with Worker("benchmarks.workers.load") as generator, start() as ports:
        loads = Loads(generator)
        loads.keep_photos()
        return {clients: _send(loads, ports, clients, rounds) for clients in CLIENTS}


@contextmanager
def _processes(count: int, threads: int) -> Iterator[Sequence[int]]:
    with ExitStack() as stack:
        running = [stack.enter_context(services.ours(threads=threads)) for _ in range(count)]
        yield [service.port for service in running]


@contextmanager
def _replicas(count: int, cpus: int) -> Iterator[Sequence[int]]:
    port = services.free_port()
    with Worker("benchmarks.workers.cluster", str(CORES), str(port)) as cluster:
        try:
            options = {"num_replicas": count, "ray_actor_options": {"num_cpus": cpus}}
            cluster.ask("deploy", **options)
            yield [port]
        finally:
            cluster.ask("stop")


def _send(loads: Loads, ports: Sequence[int], clients: int, rounds: int) -> tuple[Spread, Spread]:
    times: list[float] = []
    rates: list[float] = []
    for number in range(rounds + 1):
        load = {"clients": clients, "requests": max(64, 6 * clients)}
        milliseconds, rate = loads.send(PATH, ports, PATH, PHOTO, **load)
        if number:  # the first fills caches
            times += milliseconds
            rates.append(rate)
    return spread(times), spread(rates)


def _report(case: str, results: Mapping[int, tuple[Spread, Spread]]) -> Table:
    rows = [(str(clients), str(times), str(rate)) for clients, (times, rate) in results.items()]
    return Table((f"{case}: clients", "ms", "images/s"), rows)
