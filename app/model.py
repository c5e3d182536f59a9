"""A model version that runs: loaded and compiled, fed batches by a thread of its own, watched.

    load       bundle -> engine, compiled                  before it takes photos
    start      the inference thread
    run        a photo, for a class or several -> its outputs, batched with others
    stop       what waits is finished
    close      the engine is freed

It is started and stopped by itself, so that two versions can run at a time. `worker` is what the
`Watchdog` looks after. What the service has besides is in `app.service`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import engines
from app.batching import Batcher, Outcome
from app.bundle import Bundle
from app.engines import Batch, Cut, Engine
from app.errors import EngineDown, EngineFailed
from app.evidence import Outputs
from app.schemas import MAX_TARGETS
from app.settings import Settings
from app.watchdog import Worker

__all__ = ["NO_CLASS", "Classes", "Model", "Row"]

NO_CLASS = -1
"""In a `Batch`: as `class_index`, the row's own top-1; as `versus_index`, none."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes to explain, by index; `NO_CLASS` where none is named."""

    target: int = NO_CLASS
    versus: int = NO_CLASS


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a `Batch`: the model's input, uint8 RGB `[S, S, 3]`, and the classes."""

    image: npt.NDArray[np.uint8]
    classes: Classes


class Model:
    """A model version, and what runs it.

    Attributes:
        card: what it is.
        path: where it is on disk.
        engine: with the version loaded.
        observers: called on the inference thread with the number of rows of every batch.
    """

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings) -> None:
        """Put an engine behind a batcher; `start` starts its thread.

        Args:
            bundle: the model version.
            engine: with the version loaded.
            settings: how photos are batched.
        """
        self.card = bundle.card
        self.path = bundle.path
        self.engine = engine
        self.observers: list[Callable[[int], None]] = []
        self._batcher: Batcher[Cut, Row, Outputs] = Batcher(
            self._run_batch,
            max_batch=settings.max_batch,
            # Rows: each of the `max_pending` requests in work has one for every target.
            max_pending=settings.max_pending * MAX_TARGETS,
            wait_s=settings.batch_wait_s(on_gpu=engine.on_gpu),
        )

    @classmethod
    def load(cls, settings: Settings, path: Path | None = None) -> Self:
        """Verify a version, load it and compile it.

        Args:
            settings: how it is run.
            path: of the version; default: the one that the settings name.

        Raises:
            StartupError: it cannot be served; the message says what to fix.
        """
        bundle = bundles.load(path or settings.model_path)
        engine = engines.create(bundle, **settings.engine_options)
        engine.warm_up(settings.max_batch)
        return cls(bundle, engine, settings)

    def __str__(self) -> str:
        """For a log."""
        card, info = self.card, self.engine.info
        return (
            f"{card.name} version {card.version} with {info.name} {info.version} "
            f"in {info.precision} on {info.device}"
        )

    @property
    def worker(self) -> Worker:
        """What a `Watchdog` looks after, from before the start until it has stopped."""
        return self._batcher

    def start(self) -> None:
        """Start taking photos."""
        self._batcher.start()

    def stop(self, patience_s: float) -> bool:
        """Take no more photos, and finish those that wait; blocks until it has.

        Args:
            patience_s: how long to wait for it.

        Returns:
            Whether its thread has ended. If not, it still runs, though nobody waits for its answer
            any more.
        """
        return self._batcher.stop(patience_s)

    def close(self) -> None:
        """Free the model, when it has stopped."""
        self.engine.close()

    @property
    def ready(self) -> bool:
        """Whether it takes photos."""
        return self._batcher.alive

    @property
    def queued(self) -> int:
        """Photos that wait for a call."""
        return self._batcher.depth

    def check_alive(self) -> None:
        """Check that it can go on.

        Raises:
            EngineDown: the process has to be restarted: a call hangs, or the thread has died.
        """
        if self._batcher.down is not None:
            raise EngineDown(self._batcher.down)

    async def run(self, cut: Cut, rows: Sequence[Row]) -> list[Outcome[Outputs]]:
        """One request's outputs, from a batch with other requests' photos.

        Args:
            cut: how much of the model is run.
            rows: the photo with each of the classes to explain.

        Raises:
            QueueFull: too many wait.
            NotReady: it is not started, or stopping.
            EngineDown: it hangs, or its thread has died.
            EngineFailed: it fails on this photo, or its answer is not finite.
        """
        return await self._batcher.submit(cut, rows)

    def _run_batch(self, cut: Cut, rows: Sequence[Row]) -> list[Outputs | Exception]:
        """Run a batch on the inference thread and cut the result into rows.

        A row without finite logits and probabilities is no answer. A map that is not finite is one
        (its `status` says so).
        """
        batch = Batch(
            np.stack([row.image for row in rows]),
            np.array([row.classes.target for row in rows], np.int32),
            np.array([row.classes.versus for row in rows], np.int32),
        )
        for observe in self.observers:
            observe(len(rows))
        arrays = self.engine.run(cut, batch)
        scores = np.concatenate([arrays["logits"], arrays["probabilities"]], axis=1)
        finite: list[bool] = np.isfinite(scores).all(axis=1).tolist()  # by row
        return [
            {name: array[row] for name, array in arrays.items()}
            if sound
            else EngineFailed("The model's answer for this image is not finite.")
            for row, sound in enumerate(finite)
        ]
