"""A process that trains: one of several hosts, or one host with several devices.

    main RUN WEIGHTS REPLICAS BATCH_NORM PRECISION

Trains `tiny_net` on `pictures.dataset`, and writes the last epoch's weights to WEIGHTS (an .npz).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.bundle import Label
from tests.training.pictures import dataset
from tests.training.small_networks import tiny_net
from training.config import Stage, TrainConfig
from training.fit.devices import Devices, all_devices
from training.fit.run import Run

CONFIG = TrainConfig(
    weights="none",
    stages=(Stage(size=32, epochs=2),),
    input_size=32,
    batch_size=4,
    augment=False,
)


class _RunWithLastWeights(Run):
    """Keeps the last epoch's weights. `fit` ends by loading those of the best epoch."""

    last: dict[str, npt.NDArray[Any]]

    def _end_epoch(self, epoch: int) -> None:
        super()._end_epoch(epoch)
        self.last = {variable.path: np.asarray(variable) for variable in self.model.variables}


def main(run: str, weights: str, replicas: str, batch_norm: str, precision: str) -> None:
    """Run it with a command line's arguments."""
    train(
        Path(run),
        Path(weights),
        _devices(int(replicas)),
        batch_norm=batch_norm == "True",
        precision=precision,
    )


def train(
    run: Path,
    weights: Path,
    devices: Devices,
    *,
    batch_norm: bool = False,
    precision: str = "float32",
) -> None:
    """Train two epochs of two steps each."""
    config = TrainConfig.model_validate(CONFIG.model_dump() | {"precision": precision})

    def build(_config: TrainConfig, labels: Sequence[Label]) -> keras.Model:
        return tiny_net(len(labels), batch_norm=batch_norm)

    training = _RunWithLastWeights(
        run, config, dataset(train=8, held_out=5), devices=devices, build=build
    )
    training.fit()
    arrays: dict[str, Any] = training.last | {"replicas": np.array(training.devices.replicas)}
    np.savez(weights, **arrays)


def _devices(replicas: int) -> Devices:
    if replicas == 1:
        return all_devices()
    [cpu] = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, logical)
    return Devices(tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)]))
