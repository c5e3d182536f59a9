"""Progress of a training run: a bar on a terminal, a line every 30 s in a log."""

import time
from types import TracebackType

from tqdm import tqdm

from app.progress import bar
from training.config import TrainConfig

__all__ = ["Progress"]

_FORWARD = 1 / 3
"""Share of the forward pass in a step; the backward pass multiplies about twice as often."""

_FORMAT = (
    "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} photos, {rate_noinv_fmt}{postfix}"
)


class Progress:
    """The progress of a run, from the step where this epoch begins or goes on."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        step: int,
        steps_per_epoch: int,
        validation: int = 0,
        shown: bool = True,
    ) -> None:
        """Begin at a step.

        Args:
            config: of the run.
            step: steps of the whole run that are done.
            steps_per_epoch: training steps.
            validation: photos that are predicted after each epoch.
            shown: whether anything is written.
        """
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._validation = validation
        self._first: tuple[int, float] | None = None  # a step that is done, and the time then
        batch = config.batch_size
        self._bar = bar(
            total=config.epochs * steps_per_epoch * batch,
            initial=step * batch,
            bar_format=_FORMAT,
            disable=not shown,
        )

    def __enter__(self) -> "Progress":
        """The progress itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar where it is."""
        self._bar.close()

    def advance(self, step: int, *, loss: float, rate: float) -> None:
        """Show that `step` steps of the run are done.

        Args:
            step: counted over the whole run.
            loss: mean of the epoch so far.
            rate: the learning rate.
        """
        epoch = (step - 1) // self._steps_per_epoch
        size = self._config.size_at(epoch)
        self._bar.set_description_str(
            f"epoch {epoch + 1}/{self._config.epochs} at {size} px", refresh=False
        )
        seconds = self.seconds_left(step, time.monotonic())
        left = "?" if seconds is None else tqdm.format_interval(seconds)
        self._bar.set_postfix_str(f"{left} left, loss {loss:.3f}, rate {rate:.4f}", refresh=False)
        self._bar.update(self._config.batch_size)

    def seconds_left(self, step: int, now: float) -> float | None:
        """Time to the end of the run, at the speed of the steps since the first call.

        The first step is not counted: it waits until its function is traced and the first photos
        are decoded. Steps of earlier epochs, or before a resumption, have no part in it either.

        Args:
            step: steps of the whole run that are done.
            now: seconds, on the clock of the other calls.

        Returns:
            Seconds; None for the first call.
        """
        if self._first is None:
            self._first = step, now
        first, start = self._first
        if step <= first:
            return None
        done = self._cost(step)
        end = self._cost(self._config.epochs * self._steps_per_epoch) + self._validation_cost
        return (now - start) * (end - done) / (done - self._cost(first))

    @property
    def _validation_cost(self) -> float:
        return self._validation * self._config.input_size**2 * _FORWARD

    def _cost(self, step: int) -> float:
        """What the first `step` steps cost, and the validations between them.

        A photo costs its pixels, times 1 where the network goes forward and back, and times
        `_FORWARD` where it only goes forward: in validation, and in epochs that train the head on
        a frozen backbone. Layers that are frozen for the whole run make all steps cheaper alike,
        which leaves the ratios as they are.
        """
        config = self._config
        cost, epoch = 0.0, 0
        while step > 0:
            steps = min(step, self._steps_per_epoch)
            passes = _FORWARD if epoch < config.frozen_epochs else 1.0
            cost += steps * config.batch_size * config.size_at(epoch) ** 2 * passes
            step, epoch = step - steps, epoch + 1
            if step > 0:
                cost += self._validation_cost
        return cost
