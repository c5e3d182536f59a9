"""A Ray cluster on this machine, small, whose nodes are processes; the service runs on it.

The environment, with the settings in it, reaches every process of the cluster. The arguments are
the CPUs of a node, as Ray counts them, and the port of each node's proxy, the head's first.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ray_nodes
from benchmarks.protocol import PROJECT, serve

NAME = "breedcam"
"""Of the application."""

START_S = 120.0
"""For replicas to start; in seconds."""


def make() -> dict[str, Callable[..., Any]]:
    """Handlers that deploy replicas and name their processes."""
    cpus, head, *workers = map(int, sys.argv[1:])
    os.environ["PYTHONPATH"] = str(PROJECT)
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "app.ray_proxy:middlewares"
    if workers:  # one is enough for two nodes; Ray knows no port of each
        os.environ["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(workers[0])

    import ray  # it reads the environment
    from ray import serve as ray_serve
    from ray.serve._private.common import ReplicaState
    from ray.serve.schema import ServeDeploySchema

    cluster, directory = ray_nodes.start(1 + len(workers), cpus)
    ray.init(address=cluster.address, log_to_driver=False)
    ray_serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": head})
    client = ray_serve.context._get_global_client()

    def replicas() -> list[dict[str, Any]]:
        """Of each replica that runs, its process and its node."""
        application = client.get_serve_details()["applications"][NAME]
        return [
            {"pid": replica["pid"], "node": replica["node_id"]}
            for deployment in application["deployments"].values()
            for replica in deployment["replicas"]
            if replica["state"] == ReplicaState.RUNNING
        ]

    def deploy(**options: Any) -> None:
        """Deploy with these options; returns once all is as they say."""
        options = {"name": "BreedCAM", "ray_actor_options": {"num_cpus": 1}, **options}
        application = {
            "name": NAME,
            "import_path": "app.ray_serve:build",
            "deployments": [options],
        }
        client.deploy_apps(ServeDeploySchema(applications=[application]))
        until = time.monotonic() + START_S
        while True:
            status = ray_serve.status().applications[NAME]
            if status.status == "RUNNING" and len(replicas()) == options.get("num_replicas"):
                return
            if status.status == "DEPLOY_FAILED" or time.monotonic() > until:
                raise RuntimeError(f"{status.status}: {status.message}")
            time.sleep(0.1)

    def logs() -> str:
        """What the processes of proxies and replicas have written to standard error."""
        paths = Path(directory.name, "session_latest", "logs").glob("worker-*.err")
        return "".join(path.read_text(errors="replace") for path in sorted(paths))

    def stop() -> None:
        ray_serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        directory.cleanup()

    return {"deploy": deploy, "logs": logs, "replicas": replicas, "stop": stop}


if __name__ == "__main__":
    serve(make)
