"""Which devices train together: one, all of this host's GPUs, or those of several hosts."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from training.errors import RunError

__all__ = ["Devices", "all_devices"]


@dataclass(frozen=True)
class Devices:
    """A strategy and this process's place in it.

    Attributes:
        strategy: holds one replica of the model for each device.
        worker: this host, counted from 0; 0 is the chief, who alone writes.
        workers: hosts.
    """

    strategy: Any
    worker: int = 0
    workers: int = 1

    @property
    def replicas(self) -> int:
        """Devices of all hosts."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves."""
        return self.worker == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over the hosts; returns once all have asked."""
        if self.workers == 1:
            return list(values)
        reduced = self._reduce(tf.constant(values, tf.float32)) * self.workers / self.replicas
        return [float(value) for value in reduced.numpy()]

    def wait(self) -> None:
        """Return once every host has come here."""
        self.total([0.0])

    def _reduce(self, values: tf.Tensor) -> tf.Tensor:
        def reduce() -> tf.Tensor:
            each = self.strategy.run(tf.identity, args=(values,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

        return tf.function(reduce)()


def all_devices() -> Devices:
    """All there are: `TF_CONFIG`'s hosts when it is set, else this host's GPUs, else one device.

    With several hosts, call this before anything else of TensorFlow's.

    Raises:
        RunError: `TF_CONFIG` is malformed, or names parameter servers.
    """
    place = _place(os.environ.get("TF_CONFIG", ""))
    if place is not None:
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), *place)
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return Devices(tf.distribute.MirroredStrategy())
    return Devices(tf.distribute.get_strategy())


def _place(spec: str) -> tuple[int, int] | None:
    """This worker's number and how many there are; None when there is but one."""
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
