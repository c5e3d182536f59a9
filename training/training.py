"""The training loop: stages of growing input, a scheduled rate, checkpoints, resume."""

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
from training import architectures, history, precision, trainable
from training.checkpoints import Checkpoints, writing
from training.config import TrainConfig
from training.data import Dataset
from training.dataset import check_fingerprint, write_fingerprint
from training.errors import DataError, RunError
from training.feeding import inference_batches, train_batches
from training.progress import Progress
from training.schedule import learning_rate
from training.strategy import Devices, all_devices
from training.targets import mixed_targets, stored_answers

__all__ = ["Builder", "Interrupted", "Run"]

Builder: TypeAlias = Callable[[TrainConfig, Sequence[Label]], keras.Model]
"""Builds the network of a configuration for the classes of a data set."""

_COUNTS = ("step", "epochs", "waited")
_FIGURES = ("best", "loss", "accuracy", "seconds")
"""A run's state: all but the best accuracy are sums over the steps of the epoch under way."""

_MOVING = ("moving_mean", "moving_variance")
"""Batch norm's statistics."""


class Interrupted(Exception):
    """The run was asked to stop and has saved itself."""


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
            directory: of the run; made where it is not there.
            config: what to run.
            dataset: the photos.
            devices: what to run on; default: all there are.
            build: builds the network; default: the configured architecture.

        Raises:
            DataError: fewer training photos than one batch, none held out, or batches that do not
                divide among the devices.
            RunError: the newest checkpoint cannot be read, or nothing can be written.
            WeightsError: the first weights cannot be had.
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
        self._preprocess = architectures.preprocessing(config.architecture).apply
        with self.devices.strategy.scope():
            network = (build or trainable.build)(config, dataset.labels)
            self.model = precision.mixed(network, self.precision)
            trainable.freeze(self.model, config)
            self.optimizer = trainable.optimizer(config, self.precision)
            self.optimizer.build(self.model.trainable_variables)
        self._head = self.model.layers[-1].trainable_variables
        self._train_step = tf.function(self._take_step, reduce_retracing=False)
        self._state = {name: tf.Variable(0, dtype=tf.int64, trainable=False) for name in _COUNTS}
        self._state |= {name: tf.Variable(0.0, trainable=False) for name in _FIGURES}
        self._state["best"].assign(-1.0)
        self._checkpoints = Checkpoints(
            directory / "checkpoints",
            tf.train.Checkpoint(
                model=self.model,
                optimizer=self.optimizer,
                seeds=_seeds(self.model),
                **self._state,
            ),
        )
        self._begin()
        self._targets = self._mixed_targets()

    def _begin(self) -> None:
        """Restore what the directory holds, and store the configuration in it."""
        check_fingerprint(self.directory, self.dataset)
        self._checkpoints.restore()
        if self.devices.total([self.step]) != [self.step * self.devices.workers]:
            raise RunError(f"{self.directory} is not the same directory on all hosts.")
        if self.devices.is_chief:
            with writing(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                draft = self.directory / "config.tmp"
                draft.write_text(self.config.model_dump_json(indent=2), encoding="utf-8")
                draft.replace(self.directory / "config.json")
                write_fingerprint(self.directory, self.dataset)

    def _mixed_targets(self) -> npt.NDArray[np.float32]:
        """What is learnt of each training photo, `[len(train), classes]`."""
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
    def stopped_early(self) -> bool:
        """Whether validation has not improved for as long as the configuration waits."""
        patience = self.config.patience
        return patience is not None and int(self._state["waited"].numpy()) >= patience

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.stopped_early or self.epochs >= self.config.epochs

    def fit(self) -> None:
        """Train to the end, from wherever the run stands; the model then has its best weights.

        Raises:
            Interrupted: on SIGINT or SIGTERM, after a checkpoint.
            RunError: something cannot be written.
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
        done = self.step - epoch * self.steps_per_epoch
        begun = saved = time.monotonic()
        elapsed = float(state["seconds"].numpy())
        progress = Progress(
            config,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            shown=self.devices.is_chief,
        )
        with progress as bar:
            for batch in self._batches(epoch, skip=done):
                rate = learning_rate(config, self.step, self.total_steps)
                self.optimizer.learning_rate.assign(rate)
                asked = tf.constant(float(self._stop))
                stop = float(self._train_step(*batch, asked, frozen).numpy()) > 0
                state["step"].assign_add(1)
                done += 1
                now = time.monotonic()
                state["seconds"].assign(elapsed + now - begun)
                bar.advance(self.step, loss=float(state["loss"].numpy()) / done, rate=rate)
                if stop or (self.devices.workers == 1 and self._stop):
                    self._save()
                    raise Interrupted
                if now - saved > 60 * config.checkpoint_minutes:
                    self._save()
                    saved = now

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

    def _take_step(
        self,
        photos: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor,
        asked: tf.Tensor,
        frozen: bool,
    ) -> tf.Tensor:
        """Train on one global batch; returns how many hosts were `asked` to stop."""
        strategy = self.devices.strategy

        def replica(
            photos: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, asked: tf.Tensor
        ) -> tf.Tensor:
            return tf.stack([*self._train_replica(photos, labels, targets, frozen), asked])

        shares = strategy.run(replica, args=(photos, labels, targets, asked))
        sums = strategy.reduce(tf.distribute.ReduceOp.SUM, shares, None)
        self._state["loss"].assign_add(sums[0])
        self._state["accuracy"].assign_add(sums[1])
        return sums[2]

    def _train_replica(
        self, photos: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, frozen: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One device's share of a step; returns its share of the mean loss and accuracy."""
        config, replicas = self.config, self.devices.replicas
        variables = self._head if frozen else self.model.trainable_variables
        with tf.GradientTape() as tape:
            # A frozen backbone's batch norm keeps its statistics too.
            logits = self.model(self._preprocess(photos), training=not frozen)
            losses = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
            loss = tf.reduce_sum(losses) / config.batch_size
            kernels = [v.value for v in variables if v.path.endswith("/kernel")]
            decay = tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            objective = self.optimizer.scale_loss(loss + config.weight_decay * decay / replicas)
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        if self.precision == "float16" and replicas > 1:
            # Keras sums gradients after it has looked for overflow: let all replicas see the same.
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients = [gradient / replicas for gradient in total]
        self.optimizer.apply(gradients, variables)  # sums over the replicas
        return loss, tf.reduce_sum(_hits(labels, logits)) / config.batch_size

    def _end_epoch(self, epoch: int) -> None:
        self._agree_on_statistics()
        val_loss, val_accuracy = self.validate()
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
        for of_epoch in ("loss", "accuracy", "seconds"):
            state[of_epoch].assign(0.0)
        state["epochs"].assign_add(1)
        self._save()
        [asked] = self.devices.total([float(self._stop)])
        if asked and not self.finished:
            raise Interrupted

    def _write(self, row: dict[str, str], better: bool) -> None:
        path = self.directory / "history.csv"
        with writing(self.directory):
            history.append(path, row)
            tqdm.write("  ".join(f"{key} {value}" for key, value in row.items()))
            history.plot(path)
            if better:
                draft = self.directory / "draft.weights.h5"
                self.model.save_weights(draft)
                draft.replace(self.directory / "best.weights.h5")

    def _save(self) -> None:
        if self.devices.is_chief:
            self._checkpoints.save()

    def _agree_on_statistics(self) -> None:
        """Average batch norm's statistics, which each device has gathered by itself."""
        if self.devices.replicas == 1:
            return
        moving = [v for v in self.model.non_trainable_variables if v.path.split("/")[-1] in _MOVING]

        def replica() -> None:
            context = tf.distribute.get_replica_context()
            values = [tf.identity(variable.value) for variable in moving]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values) if values else []
            for variable, mean in zip(moving, means, strict=True):
                variable.assign(mean)

        tf.function(lambda: self.devices.strategy.run(replica))()

    def validate(self) -> tuple[float, float]:
        """Loss (without smoothing) and accuracy on the held-out photos, squashed as served."""
        predict = tf.function(self.predict)
        share = self.dataset.validation[self.devices.worker :: self.devices.workers]
        batches = inference_batches(
            share, size=self.config.input_size, batch_size=self.config.batch_size
        )
        loss = hits = 0.0
        for photos, labels in batches if share else ():
            logits = tf.cast(predict(photos), tf.float32)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss += float(tf.reduce_sum(losses).numpy())
            hits += float(tf.reduce_sum(_hits(labels, logits)).numpy())
        loss, hits = self.devices.total([loss, hits])
        return loss / len(self.dataset.validation), hits / len(self.dataset.validation)

    def predict(self, photos: tf.Tensor) -> tf.Tensor:
        """Logits `[N, classes]` of float32 RGB 0..255 `[N, h, w, 3]`."""
        return self.model(self._preprocess(photos), training=False)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop = True
            # The next one is the kernel's to handle: it ends even a step that hangs.
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)
            tqdm.write("Stopping after this step; saving a checkpoint. Once more ends it at once.")

        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _check(config: TrainConfig, dataset: Dataset, devices: Devices) -> None:
    if len(dataset.train) < config.batch_size or not dataset.validation:
        raise DataError(
            f"{len(dataset.train)} training and {len(dataset.validation)} validation photos "
            f"are too few for batches of {config.batch_size}."
        )
    if config.batch_size % devices.replicas:
        raise DataError(
            f"Batches of {config.batch_size} photos do not divide among {devices.replicas} "
            "devices: choose another --batch-size."
        )


def _seeds(model: keras.Model) -> list[tf.Variable]:
    """What dropout draws from next, which Keras does not show to TensorFlow's checkpoints."""
    weights = {id(variable) for variable in model.weights}
    return [variable.value for variable in model.variables if id(variable) not in weights]


def _hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), labels), tf.float32)
