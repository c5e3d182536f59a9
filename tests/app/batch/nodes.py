"""A Ray cluster of two nodes on this machine, as a process of its own."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.protocol import serve

STORE_BYTES = 100 << 20
"""Of each node's object store."""


def make() -> dict[str, Callable[..., Any]]:
    """Handlers that say where the cluster is, and stop it."""
    from ray.cluster_utils import Cluster

    directory = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")  # sockets' paths are short
    # Ray writes the cluster's address there, and makes the directory for its own sessions alone.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(
            num_cpus=1,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            temp_dir=directory.name,
        )

    def stop() -> None:
        cluster.shutdown()
        directory.cleanup()

    return {"address": lambda: cluster.address, "pid": os.getpid, "stop": stop}


if __name__ == "__main__":
    serve(make)
