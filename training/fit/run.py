"""A training run: its loop over epochs, its directory, checkpoints and resumption."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from app.bundle import Label
from training.config import TrainConfig
from training.data.batches import inference_batches, train_batches
from training.data.dataset import Dataset, check_fingerprint, write_fingerprint
from training.errors import DataError, RunError
from training.files import atomic_write, replacement
from training.fit import history, precision, trainable
from training.fit.checkpoints import Checkpoints, writing
from training.fit.devices import Devices, all_devices
from training.fit.schedule import learning_rate
from training.fit.steps import Steps, correct
from training.fit.targets import check_teachers, mixed_targets, stored_answers
from training.progress import Progress

__all__ = ["Builder", "Interrupted", "Run"]

Builder: TypeAlias = Callable[[TrainConfig, Sequence[Label]], keras.Model]
"""Builds the network of a configuration for the classes of a data set."""

_COUNTS = ("step", "epochs", "waited")
_OF_EPOCH = ("loss", "accuracy", "seconds")
"""Sums over the steps of the current epoch."""


class Interrupted(Exception):
    """The run has stopped at a signal, after a checkpoint."""


class Run:
    """One training run and its directory.

    The directory holds `config.json`, `history.csv`, `curves.png`, `checkpoints/`
    and `best.weights.h5` (the epoch with the best validation accuracy). A run continues from the
    newest checkpoint in it: with the same data, a stopped run and an uninterrupted one take the
    same steps at the same rates on the same batches, with the same dropout. Several hosts share
    the directory; the chief alone writes to it.
    """

    def __init__(
        self,
        directory: Path,
        config: TrainConfig,
        dataset: Dataset,
        *,
        devices: Devices | None = None,
        build: Builder | None = None,
    ) -> None:
        """Build the model and, where the directory holds a checkpoint, restore it.

        Args:
            directory: of the run; created if missing.
            config: of the run.
            dataset: the photos.
            devices: to train on; default: all of this machine, or `TF_CONFIG`'s.
            build: builds the network; default: the configured architecture.

        Raises:
            DataError: fewer training photos than one batch, no validation photos, a batch size
                that is no multiple of the number of devices, or a teacher that cannot answer.
            RunError: the newest checkpoint cannot be read, or nothing can be written.
            WeightsError: the initial weights cannot be loaded.
        """
        self.devices = devices or all_devices()
        _check(config, dataset, self.devices)
        self.directory = directory
        self.config = config
        self.dataset = dataset
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self._stop = False

        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.precision = precision.choose(config.precision)
        keras.utils.set_random_seed(config.seed)
        with self.devices.strategy.scope():
            network = (build or trainable.build)(config, dataset.labels)
            self.model = precision.mixed(network, self.precision)
            trainable.freeze(self.model, config)
            self.optimizer = trainable.optimizer(config, self.precision)
            self.optimizer.build(self.model.trainable_variables)
        self._steps = Steps(self.model, self.optimizer, config, self.devices, self.precision)
        self._state = {name: tf.Variable(0, dtype=tf.int64, trainable=False) for name in _COUNTS}
        self._state |= {name: tf.Variable(0.0, trainable=False) for name in _OF_EPOCH}
        self._state["best"] = tf.Variable(-1.0, trainable=False)  # validation accuracy so far
        self._checkpoints = Checkpoints(
            directory / "checkpoints",
            tf.train.Checkpoint(
                model=self.model,
                optimizer=self.optimizer,
                seeds=_seeds(self.model),
                **self._state,
            ),
        )
        self._check_teachers()
        self._begin()
        self._targets = self._mixed_targets()

    def _check_teachers(self) -> None:
        """See `check_teachers`; the chief asks them, and all hosts end if it cannot."""
        failure = None
        if self.devices.is_chief:
            try:
                check_teachers(self.directory, self.config.teachers, self.dataset.labels)
            except DataError as error:
                failure = error
        [failures] = self.devices.total([float(failure is not None)])
        if failures:
            raise failure or DataError("A teacher cannot answer: the first host says why.")

    def _begin(self) -> None:
        """Restore what the directory holds, and store the configuration in it."""
        check_fingerprint(self.directory, self.dataset)
        self._saved = self._checkpoints.restore()
        if self.devices.total([self.step]) != [self.step * self.devices.workers]:
            raise RunError(f"{self.directory} is not the same directory on all hosts.")
        if self.devices.is_chief:
            with writing(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                config = self.config.model_dump_json(indent=2)
                atomic_write(self.directory / "config.json", config)
                write_fingerprint(self.directory, self.dataset)

    def _mixed_targets(self) -> npt.NDArray[np.float32]:
        """The targets of the training photos, float32 `[len(train), classes]`."""
        config, dataset = self.config, self.dataset
        answers = None
        if config.teachers and not self.finished:
            answers = stored_answers(
                self.directory, config.teachers, dataset.train, dataset.labels, self.devices
            )
        return mixed_targets(
            [example.label for example in dataset.train],
            len(dataset.labels),
            smoothing=config.label_smoothing,
            answers=answers,
            weight=config.teacher_weight,
        )

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self._state["step"].numpy())

    @property
    def epochs(self) -> int:
        """Epochs trained and validated so far."""
        return int(self._state["epochs"].numpy())

    @property
    def position(self) -> str:
        """Where the run was continued, and when that was saved, in words."""
        if self._saved is None:
            return "the beginning: it has no checkpoint yet"
        epoch = min(self.epochs + 1, self.config.epochs)
        return (
            f"epoch {epoch} of {self.config.epochs}, step {self.step} of {self.total_steps}, "
            f"saved on {self._saved:%Y-%m-%d at %H:%M:%S}"
        )

    @property
    def stopped_early(self) -> bool:
        """Whether validation has not improved for as long as the configuration waits."""
        patience = self.config.patience
        return patience is not None and int(self._state["waited"].numpy()) >= patience

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.stopped_early or self.epochs >= self.config.epochs

    def fit(self) -> None:
        """Train from the current step to the end, then load the best epoch's weights.

        Raises:
            Interrupted: on SIGINT or SIGTERM, after a checkpoint.
            RunError: something cannot be written, or the loss is no longer a number.
        """
        with self._signals():
            while not self.finished:
                if self.step < (self.epochs + 1) * self.steps_per_epoch:
                    self._fit_epoch(self.epochs)
                self._end_epoch(self.epochs)
        self.devices.wait()
        self.model.load_weights(self.directory / "best.weights.h5")

    def _fit_epoch(self, epoch: int) -> None:
        config, state = self.config, self._state
        frozen = epoch < config.frozen_epochs
        steps = self.step - epoch * self.steps_per_epoch  # taken in this epoch
        start = last_save = time.monotonic()
        before = float(state["seconds"].numpy())  # spent on this epoch before a resumption
        progress = Progress(
            config,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            validation=len(self.dataset.validation),
            shown=self.devices.is_chief,
        )
        with progress:
            for batch in self._batches(epoch, skip=steps):
                rate = learning_rate(config, self.step, self.total_steps)
                self.optimizer.learning_rate.assign(rate)
                loss, accuracy, stops = self._steps.train(
                    *batch, tf.constant(float(self._stop)), frozen
                ).numpy()
                # In float16, a step whose loss is not finite is skipped: see `precision.scaled`.
                if self.precision != "float16":
                    self._check_loss(float(loss), self.step + 1)
                stop = stops > 0
                state["loss"].assign_add(loss)
                state["accuracy"].assign_add(accuracy)
                state["step"].assign_add(1)
                steps += 1
                now = time.monotonic()
                state["seconds"].assign(before + now - start)
                progress.advance(self.step, loss=float(state["loss"].numpy()) / steps, rate=rate)
                if stop or (self.devices.workers == 1 and self._stop):
                    self._save()
                    raise Interrupted
                if now - last_save > 60 * config.checkpoint_minutes:
                    self._save()
                    last_save = now

    def _check_loss(self, loss: float, step: int) -> None:
        """End a run that diverged: its weights would stay NaN, whatever follows."""
        if not math.isfinite(loss):
            rate = float(self.optimizer.learning_rate.numpy())
            raise RunError(
                f"The loss is {loss} at step {step} of {self.total_steps}, at a learning rate of "
                f"{rate:.2g}: the training diverged. Start another run with a lower "
                "--learning-rate."
            )

    def _batches(self, epoch: int, *, skip: int) -> Any:
        def of_host(_context: tf.distribute.InputContext) -> tf.data.Dataset:
            return train_batches(
                self.dataset.train,
                size=self.config.size_at(epoch),
                batch_size=self.config.batch_size,
                seed=self.config.seed,
                epoch=epoch,
                augment=self.config.augment,
                targets=self._targets,
                crop_area=self.config.crop_area,
                skip=skip,
                worker=self.devices.worker,
                workers=self.devices.workers,
                replicas=self.devices.replicas,
            )

        return self.devices.strategy.distribute_datasets_from_function(of_host)

    def _end_epoch(self, epoch: int) -> None:
        if self.devices.replicas > 1:
            self._steps.average_statistics()
        val_loss, val_accuracy = self.validate()
        self._check_loss(val_loss, self.step)
        state = self._state
        row = {
            "epoch": f"{epoch + 1}",
            "size": f"{self.config.size_at(epoch)}",
            "steps": f"{self.step}",
            "learning_rate": f"{float(self.optimizer.learning_rate.numpy()):.6g}",
            "loss": f"{float(state['loss'].numpy()) / self.steps_per_epoch:.5f}",
            "accuracy": f"{float(state['accuracy'].numpy()) / self.steps_per_epoch:.5f}",
            "val_loss": f"{val_loss:.5f}",
            "val_accuracy": f"{val_accuracy:.5f}",
            "seconds": f"{float(state['seconds'].numpy()):.1f}",
        }
        # As stored: the nearest float32 may lie below, and a tie would count as better.
        better = bool(np.float32(val_accuracy) > state["best"].numpy())
        if self.devices.is_chief:
            self._write(row, better)
        if better:
            state["best"].assign(val_accuracy)
        if better or epoch < self.config.frozen_epochs:
            state["waited"].assign(0)
        else:
            state["waited"].assign_add(1)
        for name in _OF_EPOCH:
            state[name].assign(0.0)
        state["epochs"].assign_add(1)
        self._save()
        [stops] = self.devices.total([float(self._stop)])
        if stops and not self.finished:
            raise Interrupted

    def _write(self, row: dict[str, str], better: bool) -> None:
        path = self.directory / "history.csv"
        with writing(self.directory):
            history.append(path, row)
            tqdm.write("  ".join(f"{key} {value}" for key, value in row.items()))
            history.plot(path)
            if better:
                with replacement(self.directory / "best.weights.h5") as draft:
                    self.model.save_weights(draft)

    def _save(self) -> None:
        if self.devices.is_chief:
            self._checkpoints.save()

    def validate(self) -> tuple[float, float]:
        """Loss (without smoothing) and accuracy on the validation photos, squashed as served."""
        share = self.dataset.validation[self.devices.worker :: self.devices.workers]
        batches = inference_batches(
            share, size=self.config.input_size, batch_size=self.config.batch_size
        )
        loss = hits = 0.0  # sums over the photos
        for photos, labels in batches if share else ():
            logits = tf.cast(self.predict(photos), tf.float32)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss += float(tf.reduce_sum(losses).numpy())
            hits += float(tf.reduce_sum(correct(labels, logits)).numpy())
        loss, hits = self.devices.total([loss, hits])
        return loss / len(self.dataset.validation), hits / len(self.dataset.validation)

    def predict(self, photos: tf.Tensor) -> tf.Tensor:
        """Logits `[N, classes]` of float32 RGB 0..255 `[N, input_size, input_size, 3]`."""
        return self._steps.predict(photos)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop = True
            # The kernel handles the next signal: it ends even a step that hangs.
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)
            tqdm.write(
                "Stopping after this step, with a checkpoint. Interrupt again to end at once."
            )

        handlers = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _check(config: TrainConfig, dataset: Dataset, devices: Devices) -> None:
    if len(dataset.train) < config.batch_size or not dataset.validation:
        raise DataError(
            f"{len(dataset.train)} training and {len(dataset.validation)} validation photos "
            f"are too few for batches of {config.batch_size}."
        )
    if config.batch_size % devices.replicas:
        raise DataError(
            f"Batches of {config.batch_size} photos cannot be shared equally by "
            f"{devices.replicas} devices: choose another --batch-size."
        )


def _seeds(model: keras.Model) -> list[tf.Variable]:
    """Dropout's random states, which Keras hides from TensorFlow's checkpoints."""
    weights = {id(variable) for variable in model.weights}
    return [variable.value for variable in model.variables if id(variable) not in weights]
