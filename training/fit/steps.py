"""One step of training on all devices together, and predictions between them."""

from typing import Any

import keras
import tensorflow as tf

from training.config import TrainConfig
from training.fit.devices import Devices
from training.fit.precision import Resolved
from training.networks import architectures

__all__ = ["Steps", "correct"]

_STATISTICS = ("moving_mean", "moving_variance")
"""Batch norm's variables that no gradient changes."""


class Steps:
    """The computations of a run, each a `tf.function` that is traced once per input shape."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        config: TrainConfig,
        devices: Devices,
        precision: Resolved,
    ) -> None:
        """Prepare the steps of a model.

        Args:
            model: from preprocessed photos to logits `[N, classes]`.
            optimizer: built for the model's trainable variables.
            config: of the run.
            devices: that hold replicas of the model.
            precision: what `config.precision` means here.
        """
        self._model = model
        self._optimizer = optimizer
        self._config = config
        self._devices = devices
        self._precision = precision
        self._preprocess = architectures.preprocessing(config.architecture).apply
        self._head = model.layers[-1].trainable_variables
        size = config.input_size
        photos = tf.TensorSpec((None, size, size, 3), tf.float32)  # the last batch is smaller
        self.predict = tf.function(self._predict, input_signature=[photos])
        """Logits `[N, classes]` of float32 RGB 0..255 `[N, input_size, input_size, 3]`."""
        self.train = tf.function(self._train, reduce_retracing=False)
        self.average_statistics = tf.function(self._average_statistics)

    def _predict(self, photos: tf.Tensor) -> tf.Tensor:
        return self._model(self._preprocess(photos), training=False)

    def _train(
        self,
        photos: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor,
        stop: tf.Tensor,
        frozen: bool,
    ) -> tf.Tensor:
        """Train on one global batch.

        Args:
            photos: float32 RGB 0..255 `[N, size, size, 3]`, N photos on each device.
            labels: int32 `[N]`.
            targets: float32 `[N, classes]`; rows sum to 1.
            stop: float32 scalar; 1 where this host is asked to stop.
            frozen: whether only the head is trained.

        Returns:
            float32 `[3]`: mean loss and accuracy of the batch, and how many hosts stop.
        """
        strategy = self._devices.strategy

        def replica(
            photos: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, stop: tf.Tensor
        ) -> tf.Tensor:
            return tf.stack([*self._train_replica(photos, labels, targets, frozen), stop])

        shares = strategy.run(replica, args=(photos, labels, targets, stop))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, shares, None)

    def _train_replica(
        self, photos: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, frozen: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One device's part of a step; returns its share of the mean loss and accuracy.

        With B photos in the global batch and R replicas, a replica minimises

            sum(cross entropy of its photos) / B + weight_decay * sum(|kernel|^2 / 2) / R

        so that the gradients' sum over replicas is that of the whole batch.
        """
        config, replicas = self._config, self._devices.replicas
        variables = self._head if frozen else self._model.trainable_variables
        with tf.GradientTape() as tape:
            # Not in training mode when frozen: batch norm keeps its statistics too.
            logits = self._model(self._preprocess(photos), training=not frozen)  # [N, classes]
            losses = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
            loss = tf.reduce_sum(losses) / config.batch_size
            kernels = [v.value for v in variables if v.path.endswith("/kernel")]
            decay = tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            objective = self._optimizer.scale_loss(loss + config.weight_decay * decay / replicas)
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        if self._precision == "float16" and replicas > 1:
            # Keras looks for overflow before it sums gradients over replicas, so one replica alone
            # could skip the step. Sum first; Keras's own sum of R equal shares changes nothing.
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients = [gradient / replicas for gradient in total]
        self._optimizer.apply(gradients, variables)  # sums over the replicas
        return loss, tf.reduce_sum(correct(labels, logits)) / config.batch_size

    def _average_statistics(self) -> None:
        """Average batch norm's statistics over the devices, which gather them separately."""
        variables = self._model.non_trainable_variables
        statistics = [v for v in variables if v.path.split("/")[-1] in _STATISTICS]

        def replica() -> None:
            context = tf.distribute.get_replica_context()
            values = [tf.identity(variable.value) for variable in statistics]
            means: Any = context.all_reduce(tf.distribute.ReduceOp.MEAN, values) if values else []
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(mean)

        self._devices.strategy.run(replica)


def correct(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 where the largest logit is the label's, else 0: float32 `[N]`.

    Args:
        labels: int32 `[N]`.
        logits: `[N, classes]`.
    """
    return tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), labels), tf.float32)
