"""The devices that train together: one, all GPUs of this host, or those of several hosts."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from training.errors import RunError

__all__ = ["Devices", "all_devices"]


@dataclass(frozen=True)
class Devices:
    """A strategy, and the place of this process in it.

    Attributes:
        strategy: TensorFlow's, with one replica of the model on each device.
        worker: number of this host, from 0; host 0 is the chief, the only one to write.
        workers: number of hosts.
    """

    strategy: Any
    worker: int = 0
    workers: int = 1

    @property
    def replicas(self) -> int:
        """Number of devices of all hosts."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return self.worker == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over the hosts; returns once all hosts have called it."""
        if self.workers == 1:
            return list(values)
        # A host's values count once on each of its devices.
        sums = self._sum(tf.constant(values, tf.float32)) * self.workers / self.replicas
        return [float(value) for value in sums.numpy()]

    def wait(self) -> None:
        """Return once all hosts have called it."""
        self.total([0.0])

    @cached_property
    def _sum(self) -> Any:
        """The sum of float32 values `[N]` over all devices; traced once, whatever N is."""

        def reduce(values: tf.Tensor) -> tf.Tensor:
            copies = self.strategy.run(tf.identity, args=(values,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, copies, axis=None)

        return tf.function(reduce, input_signature=[tf.TensorSpec((None,), tf.float32)])


def all_devices() -> Devices:
    """The hosts of `TF_CONFIG` if it is set, else all GPUs of this host, else one device.

    With several hosts, call this before any operation of TensorFlow.

    Raises:
        RunError: `TF_CONFIG` is malformed, or names parameter servers.
    """
    worker = _worker(os.environ.get("TF_CONFIG", ""))
    if worker is not None:
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), *worker)
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return Devices(tf.distribute.MirroredStrategy())
    return Devices(tf.distribute.get_strategy())


def _worker(spec: str) -> tuple[int, int] | None:
    """The number of this worker and how many there are; None for a single host."""
    if not spec:
        return None
    try:
        config = json.loads(spec)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        if not set(cluster) <= {"chief", "worker"}:
            raise RunError(f"TF_CONFIG names {sorted(cluster)}: only chief and worker can train.")
        chiefs, workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
        if chiefs + workers < 2:
            return None
        number = int(task["index"]) + (chiefs if task["type"] == "worker" else 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"TF_CONFIG cannot be read: {error}.") from error
    if not 0 <= number < chiefs + workers:
        raise RunError(f"TF_CONFIG has no {task['type']} {task['index']}.")
    return number, chiefs + workers
