"""The service under Ray Serve, beside itself without Ray.

    python -m benchmarks ray

All of it runs on this machine: with two replicas, they and the clients share its cores.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from benchmarks import document, services
from benchmarks.http import Loads
from benchmarks.protocol import Worker
from benchmarks.results import Table
from benchmarks.timing import Spread, spread

__all__ = ["main"]

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
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    print(document.markdown(_report(measure(options.rounds))))


def measure(rounds: int) -> dict[tuple[str, int], tuple[Spread, Spread]]:
    """Milliseconds of a request, and images per second, by case and number of clients.

    Not in turn: an idle cluster uses the processor too.
    """
    results: dict[tuple[str, int], tuple[Spread, Spread]] = {}
    with Worker("benchmarks.workers.load") as generator:
        loads = Loads(generator)
        loads.keep_photos()
        for name, start in _cases().items():
            with start() as ports:
                for clients in CLIENTS:
                    results[name, clients] = _send(loads, ports, clients, rounds)
    return results


def _cases() -> Mapping[str, Callable[[], AbstractContextManager[Sequence[int]]]]:
    """What starts each service, and gives its ports."""
    return {
        "`python -m app.main`, 2 threads": partial(_processes, 1, threads=2),
        "one replica under Ray, 2 threads": partial(_replicas, 1, cpus=2),
        "two processes of 1 thread": partial(_processes, 2, threads=1),
        "two replicas under Ray of 1 thread": partial(_replicas, 2, cpus=1),
        "`python -m app.main`, 1 thread": partial(_processes, 1, threads=1),
        "one replica under Ray, 1 thread": partial(_replicas, 1, cpus=1),
    }


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


def _report(results: Mapping[tuple[str, int], tuple[Spread, Spread]]) -> Table:
    rows = [
        (name, str(clients), str(times), str(rate))
        for (name, clients), (times, rate) in results.items()
    ]
    return Table((f"`{PATH}`", "clients", "ms", "images/s"), rows)
