"""Parts on a Ray cluster: the list of parts is a dataset, and actors map it.

Each actor holds a service with the model, and writes the parts that it is handed. Between the
machines travel only parts' numbers: all of them have to see the input, the output and the model at
the same paths. An actor that dies is started anew by Ray, and its parts are done again.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app import heap, logs
from app.batch.errors import BatchError
from app.batch.inputs import Source
from app.batch.output import Output
from app.batch.work import Work
from app.explainer import Explainer
from app.service import Service
from app.settings import Settings
from app.watchdog import end_process

try:
    import ray
    import ray.data
except ImportError:
    raise BatchError("--ray needs the package ray: pip install 'ray[data]'") from None

__all__ = ["run"]

T = TypeVar("T")
Batch = dict[str, npt.NDArray[Any]]

_STORE_BYTES = 200_000_000
"""Of the object store of a cluster that is started here: it holds numbers and paths."""

_MOST_PARTS = 4
"""That an actor is handed at a time: between two calls, its model has nothing to do."""


def run(
    source: Source,
    output: Output,
    settings: Settings,
    parts: list[int],
    address: str,
    workers: int | None,
    advance: Callable[[int], object],
) -> None:
    """Write parts on a cluster.

    Args:
        source: the photos.
        output: takes the parts.
        settings: of each actor's service.
        parts: numbers of the parts to write.
        address: of the cluster; `local` starts one, of this machine.
        workers: number of actors; default: one for each GPU, else one for each machine.
        advance: called with the number of photos that are done.

    Raises:
        BatchError: there is no such cluster, or the work failed.
    """
    ours = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **(ours if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BatchError(f"Ray at {address!r} does not answer: {error}") from error
    try:
        for row in _mapped(source, output, settings, parts, workers).iter_rows():
            advance(int(row["photos"]))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise BatchError(f"The work on the cluster failed: {cause}") from error
    finally:
        ray.shutdown()


def _mapped(
    source: Source, output: Output, settings: Settings, parts: list[int], workers: int | None
) -> Any:
    """The dataset of the parts, mapped to how many photos each has."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    gpus = 0 if settings.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    machines = sum(node["Alive"] for node in ray.nodes())
    count = min(workers or gpus or machines, len(parts))
    size = max(1, min(_MOST_PARTS, len(parts) // (4 * count)))
    return ray.data.from_items(
        [{"part": part} for part in parts], override_num_blocks=-(-len(parts) // size)
    ).map_batches(
        _Worker,
        fn_constructor_args=(ray.put(source), output, settings),
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
        scheduling_strategy="SPREAD",
    )


class _Worker:
    """An actor: a service in a thread of its own, whose event loop runs between calls too."""

    def __init__(self, source: Any, output: Output, settings: Settings) -> None:
        logs.configure(settings.log_format, "warning")
        heap.bound()
        self._source: Source = ray.get(source)
        self._output = output
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._explainer: Explainer = self._await(self._start(Service.open(settings)))

    async def _start(self, service: Service) -> Explainer:
        self._running = service.running(end_process)  # until the process ends
        return await self._running.__aenter__()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __call__(self, batch: Batch) -> Batch:
        """Write the parts of a batch; returns them with how many photos each has."""
        numbers: list[int] = batch["part"].tolist()
        # Those that an actor had written before it died are not done again.
        missing = [number for number in numbers if not self._output.part(number).exists()]
        self._await(self._write(missing))
        bounds = map(self._output.manifest.bounds, numbers)
        return {
            "part": batch["part"],
            "photos": np.array([stop - start for start, stop in bounds]),
        }

    async def _write(self, parts: list[int]) -> None:
        await Work(self._explainer, self._source, self._output).run(parts)
