"""A Ray cluster of several nodes on this machine."""

import tempfile
from typing import Any

__all__ = ["start"]

STORE_BYTES = 100 << 20
"""Of each node's object store: photos and answers pass through it."""


def start(nodes: int, cpus: int) -> tuple[Any, tempfile.TemporaryDirectory[str]]:
    """Start a cluster of nodes that count as machines of `cpus` cores each.

    Returns:
        The `Cluster`, and the directory of its sessions, to be removed when it is shut down.
    """
    from ray._common.utils import get_default_ray_temp_dir, try_to_create_directory
    from ray.cluster_utils import Cluster  # reads the environment

    directory = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")  # sockets' paths are short
    # Ray writes the cluster's address there, and makes the directory for its own sessions alone.
    try_to_create_directory(get_default_ray_temp_dir())
    cluster = Cluster()
    for _ in range(nodes):
        cluster.add_node(
            num_cpus=cpus,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            temp_dir=directory.name,
        )
    return cluster, directory
