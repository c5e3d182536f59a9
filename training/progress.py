"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

import io
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from training.config import TrainConfig

__all__ = ["INTERVAL", "Progress", "bar"]

INTERVAL = 30.0
"""Seconds between two lines of a stage, where standard error is no terminal."""

_FROZEN_COST = 1 / 3
"""Of a step that goes forward alone, beside one that goes back as well."""

_FORMAT = (
    "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} photos, {rate_noinv_fmt}{postfix}"
)


class _Lines(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar whose every refresh is a line of its own, with none before there is progress."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # tqdm's own carriage returns go nowhere; `miniters` keeps its monitor from refreshing.
        timing = {"delay": 1e-9, "mininterval": INTERVAL, "miniters": 1}
        super().__init__(*args, **{**options, **timing}, file=io.StringIO())

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line; tqdm calls this, at most every `INTERVAL` seconds and at the end."""
        print(str(self).strip(), file=sys.stderr, flush=True)
        return True


def bar(
    title: str | None = None,
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    unit: str = "photo",
    **options: Any,
) -> "tqdm[Any]":
    """The progress of one stage, on standard error.

    On a terminal it is a bar. Elsewhere, as in a log, it is a line at most every `INTERVAL`
    seconds, and one at the end.

    Args:
        title: of the stage.
        iterable: what to go through; None where `update` is called instead.
        total: steps in all; default: the length of `iterable`, if it has one.
        unit: of the steps.
        options: further ones of tqdm.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(iterable, desc=title, total=total, unit=unit, mininterval=1.0, **options)


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
        self._bar = bar(
            total=config.epochs * steps_per_epoch * batch,
            initial=step * batch,
            bar_format=_FORMAT,
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
