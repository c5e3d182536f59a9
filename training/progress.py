"""The progress bar of a run: photos, photos a second, and when the whole run will be done."""

import time
from types import TracebackType

from tqdm import tqdm

from training.config import TrainConfig

__all__ = ["Progress"]

_FROZEN_COST = 1 / 3
"""Of a step that goes forward alone, beside one that goes back as well."""

_FORMAT = (
    "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} photos, {rate_noinv_fmt}{postfix}"
)


class Progress:
    """One bar over a run's photos, from wherever it stands."""

    def __init__(
        self, config: TrainConfig, *, step: int, steps_per_epoch: int, shown: bool = True
    ) -> None:
        """Begin at `step`, counted from 0 over the whole run."""
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._begun = time.monotonic()
        self._at_begin = self._work(step)
        batch = config.batch_size
        self._bar = tqdm(
            total=config.epochs * steps_per_epoch * batch,
            initial=step * batch,
            unit="photo",
            bar_format=_FORMAT,
            mininterval=1.0,
            disable=not shown,
        )

    def __enter__(self) -> "Progress":
        """The bar itself."""
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
        """Show that `step` steps of the run are done."""
        epoch = (step - 1) // self._steps_per_epoch
        size = self._config.size_at(epoch)
        self._bar.set_description_str(
            f"epoch {epoch + 1}/{self._config.epochs} at {size} px", refresh=False
        )
        left = tqdm.format_interval(self.seconds_left(step, time.monotonic() - self._begun))
        self._bar.set_postfix_str(f"{left} left, loss {loss:.3f}, rate {rate:.4f}", refresh=False)
        self._bar.update(self._config.batch_size)

    def seconds_left(self, step: int, elapsed: float) -> float:
        """Time to the end of the run when this process has spent `elapsed` seconds up to `step`.

        A step's cost goes with its pixels, so that a run whose photos grow is not promised to end
        too soon.
        """
        done = self._work(step)
        whole = self._work(self._config.epochs * self._steps_per_epoch)
        return elapsed * (whole - done) / max(done - self._at_begin, 1e-9)

    def _work(self, step: int) -> float:
        """What `step` steps from the beginning cost; a step of one trained pixel costs 1."""
        cost, epoch = 0.0, 0
        while step > 0:
            taken = min(step, self._steps_per_epoch)
            each = float(self._config.size_at(epoch)) ** 2
            cost += taken * each * (_FROZEN_COST if epoch < self._config.frozen_epochs else 1.0)
            step, epoch = step - taken, epoch + 1
        return cost
