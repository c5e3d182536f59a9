"""A Ray cluster of two nodes on this machine, as a process of its own."""

import os
from collections.abc import Callable
from typing import Any

from benchmarks import ray_nodes
from benchmarks.protocol import serve


def make() -> dict[str, Callable[..., Any]]:
    """Handlers that say where the cluster is, and stop it."""
    cluster, directory = ray_nodes.start(2, cpus=1)

    def stop() -> None:
        cluster.shutdown()
        directory.cleanup()

    return {"address": lambda: cluster.address, "pid": os.getpid, "stop": stop}


if __name__ == "__main__":
    serve(make)
