"""The training loop: stages of growing input, a one-cycle rate, checkpoints, resume."""

import csv
import math
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import keras
import tensorflow as tf
from tqdm import tqdm

from training import architectures
from training.config import TrainConfig
from training.data import Dataset
from training.errors import DataError
from training.feeding import inference_batches, train_batches

__all__ = ["HISTORY_COLUMNS", "Interrupted", "Run", "learning_rate"]

HISTORY_COLUMNS = (
    "epoch",
    "size",
    "steps",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
)


class Interrupted(Exception):
    """The run was asked to stop and has saved itself."""


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """One cycle: linear from a tenth of the peak up to it, then half a cosine down to zero.

    Smith & Topin, Super-Convergence, 2017.

    Args:
        config: gives the peak and the share of warm-up.
        step: counted from 0.
        total: steps of the whole run.
    """
    rising = config.warmup * total
    if step < rising:
        return config.learning_rate * (0.1 + 0.9 * step / rising)
    progress = (step - rising) / max(1.0, total - rising)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Run:
    """One training run and its directory.

    The directory holds `config.json`, `history.csv`, `curves.png`, `checkpoints/`
    and `best.weights.h5` (the epoch with the best validation accuracy). A run continues from the
    newest checkpoint in it: with the same data, a stopped run and an uninterrupted one take the
    same steps at the same rates on the same batches.
    """

    def __init__(self, directory: Path, config: TrainConfig, dataset: Dataset) -> None:
        """Build the model and, where the directory holds a checkpoint, restore it.

        Raises:
            DataError: fewer training photos than one batch, or none held out.
            WeightsError: the first weights cannot be had.
        """
        if len(dataset.train) < config.batch_size or not dataset.validation:
            raise DataError(
                f"{len(dataset.train)} training and {len(dataset.validation)} validation photos "
                f"are too few for batches of {config.batch_size}."
            )
        _set_precision(config.precision)
        keras.utils.set_random_seed(config.seed)
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.dataset = dataset
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self._stop = False

        self.model = architectures.resnet50(len(dataset.labels), config.weights)
        self.optimizer = keras.optimizers.SGD(
            config.learning_rate, momentum=config.momentum, nesterov=True
        )
        self.optimizer.build(self.model.trainable_variables)
        self._kernels = [v for v in self.model.trainable_variables if v.path.endswith("/kernel")]
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._best = tf.Variable(-1.0, trainable=False)
        # Of the epoch under way: sums over its steps of loss and accuracy, and seconds spent.
        self._loss = tf.Variable(0.0, trainable=False)
        self._accuracy = tf.Variable(0.0, trainable=False)
        self._seconds = tf.Variable(0.0, trainable=False)
        self._train_step = tf.function(self._take_step, reduce_retracing=False)
        self._checkpoints = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=self.model,
                optimizer=self.optimizer,
                step=self._step,
                best=self._best,
                seconds=self._seconds,
                loss=self._loss,
                accuracy=self._accuracy,
            ),
            str(directory / "checkpoints"),
            max_to_keep=2,
        )
        self._checkpoints.restore_or_initialize()
        (directory / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self._step.numpy())

    def fit(self) -> None:
        """Train to the end, from wherever the run stands.

        Raises:
            Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        """
        with self._signals():
            while self.step < self.total_steps:
                epoch = self.step // self.steps_per_epoch
                self._fit_epoch(epoch)
                self._end_epoch(epoch)

    def _fit_epoch(self, epoch: int) -> None:
        size = self.config.size_at(epoch)
        done = self.step - epoch * self.steps_per_epoch
        batches = train_batches(
            self.dataset.train,
            size=size,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            augment=self.config.augment,
            skip=done,
        )
        bar = tqdm(
            total=self.steps_per_epoch,
            initial=done,
            desc=f"epoch {epoch + 1}/{self.config.epochs} at {size} px",
            unit="step",
            mininterval=1.0,
        )
        begun = saved = time.monotonic()
        elapsed = float(self._seconds.numpy())
        with bar:
            for photos, labels in batches:
                rate = learning_rate(self.config, self.step, self.total_steps)
                self.optimizer.learning_rate.assign(rate)
                self._train_step(photos, labels)
                self._step.assign_add(1)
                now = time.monotonic()
                self._seconds.assign(elapsed + now - begun)
                bar.update()
                mean_loss = float(self._loss.numpy()) / (bar.n or 1)
                bar.set_postfix(loss=f"{mean_loss:.3f}", lr=f"{rate:.4f}", refresh=False)
                if self._stop:
                    self._checkpoints.save()
                    raise Interrupted
                if now - saved > 60 * self.config.checkpoint_minutes:
                    self._checkpoints.save()
                    saved = now

    def _take_step(self, photos: tf.Tensor, labels: tf.Tensor) -> None:
        targets = tf.one_hot(labels, len(self.dataset.labels))
        with tf.GradientTape() as tape:
            logits = self.model(_preprocess(photos), training=True)
            loss = tf.reduce_mean(
                keras.losses.categorical_crossentropy(
                    targets,
                    logits,
                    from_logits=True,
                    label_smoothing=self.config.label_smoothing,
                )
            )
            decay = tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in self._kernels])
            objective = loss + self.config.weight_decay * decay
        variables = self.model.trainable_variables
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        self._loss.assign_add(loss)
        self._accuracy.assign_add(tf.reduce_mean(_hits(labels, logits)))

    def _end_epoch(self, epoch: int) -> None:
        val_loss, val_accuracy = self.validate()
        self._append_history(
            {
                "epoch": epoch + 1,
                "size": self.config.size_at(epoch),
                "steps": self.step,
                "learning_rate": f"{float(self.optimizer.learning_rate.numpy()):.6g}",
                "loss": f"{float(self._loss.numpy()) / self.steps_per_epoch:.5f}",
                "accuracy": f"{float(self._accuracy.numpy()) / self.steps_per_epoch:.5f}",
                "val_loss": f"{val_loss:.5f}",
                "val_accuracy": f"{val_accuracy:.5f}",
                "seconds": f"{float(self._seconds.numpy()):.1f}",
            }
        )
        if val_accuracy > float(self._best.numpy()):
            self._best.assign(val_accuracy)
            draft = self.directory / "draft.weights.h5"
            self.model.save_weights(draft)
            draft.replace(self.directory / "best.weights.h5")
        for of_epoch in (self._loss, self._accuracy, self._seconds):
            of_epoch.assign(0.0)
        self._checkpoints.save()
        if self._stop:
            raise Interrupted

    def validate(self) -> tuple[float, float]:
        """Loss (without smoothing) and accuracy on the held-out photos, squashed as served."""
        loss, accuracy = keras.metrics.Mean(), keras.metrics.Mean()
        predict = tf.function(self.predict)
        batches = inference_batches(
            self.dataset.validation, size=self.config.input_size, batch_size=self.config.batch_size
        )
        for photos, labels in batches:
            logits = predict(photos)
            loss.update_state(
                keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            )
            accuracy.update_state(_hits(labels, logits))
        return float(loss.result()), float(accuracy.result())

    def predict(self, photos: tf.Tensor) -> tf.Tensor:
        """Logits `[N, classes]` of float32 RGB 0..255 `[N, h, w, 3]`."""
        return self.model(_preprocess(photos), training=False)

    def _append_history(self, row: dict[str, object]) -> None:
        """Add an epoch's row, in place of one that a killed run wrote before its checkpoint."""
        path = self.directory / "history.csv"
        rows: list[dict[str, object]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [dict(old) for old in csv.DictReader(file)]
        rows = [old for old in rows if int(str(old["epoch"])) < int(str(row["epoch"]))] + [row]
        draft = path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, HISTORY_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(path)
        tqdm.write("  ".join(f"{key} {value}" for key, value in row.items()))
        plot_history(path)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop = True
            tqdm.write("Stopping after this step; saving a checkpoint ...")

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def plot_history(path: Path) -> None:
    """Draw `curves.png` beside `history.csv`: loss and accuracy, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [float(row[name]) for row in rows], "o-", label="training")
        axis.plot(epochs, [float(row[f"val_{name}"]) for row in rows], "o-", label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path.with_name("curves.png"), dpi=120)
    pyplot.close(figure)


def _hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), labels), tf.float32)


def _preprocess(photos: tf.Tensor) -> tf.Tensor:
    return keras.applications.resnet50.preprocess_input(photos)


def _set_precision(precision: str) -> None:
    on_cpu = not tf.config.list_physical_devices("GPU")
    wanted = precision == "bfloat16" or (precision == "auto" and _cpu_has_bfloat16())
    tf.config.optimizer.set_experimental_options(
        {"auto_mixed_precision_onednn_bfloat16": on_cpu and wanted}
    )


def _cpu_has_bfloat16() -> bool:
    if platform.system() != "Linux" or not os.path.exists("/proc/cpuinfo"):
        return False
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
