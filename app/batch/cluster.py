"""The same work on a Ray cluster: the parts' numbers are a dataset, and actors map it to rows.

Each actor holds a service with the model, and has to see the input and the model at the same paths.
Rows and overlays come back through Ray's object store, and the process that runs the command writes
them: no other machine has to see the output. An actor that dies is started anew, a few times, and
its parts are done again.
"""

import asyncio
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app import heap, logs
from app.batch.errors import BatchError
from app.batch.inputs import Source
from app.batch.output import Manifest, Output, model_id, overlay_name
from app.batch.rows import Row
from app.batch.work import Work
from app.errors import BreedCAMError
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
Columns = dict[str, npt.NDArray[Any]]

_STORE_BYTES = 500_000_000
"""Of the object store of a cluster that is started here: a few parts with their overlays."""

_CONNECT_S = 10.0
"""For a cluster's address to answer."""

_PARTS_AT_ONCE = 2
"""Of an actor: while one ends, the model has photos of the next."""

_MAX_RESTARTS = 5
"""Of an actor, and of the work at a part: what kills them is not gone after so many."""


def run(
    source: Source,
    output: Output,
    settings: Settings,
    parts: Sequence[int],
    address: str | None,
    workers: int | None,
    advance: Callable[[int], object],
) -> None:
    """Do parts on a cluster, and write them here.

    Args:
        source: the photos.
        output: takes the parts.
        settings: of each actor's service.
        parts: numbers of the parts to do.
        address: of the cluster; None starts one, of this machine.
        workers: number of actors; default: one for each GPU, else one for each machine.
        advance: called with the number of photos that are done.

    Raises:
        BatchError: there is no such cluster, or the work failed.
    """
    with _connected(address):
        try:
            records = _mapped(source, output.manifest, settings, parts, workers).iter_rows()
            _write(records, output, advance)
        except ray.exceptions.RayError as error:
            raise BatchError(f"The work on the cluster failed: {error}") from error


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be the driver of a job while the block runs."""
    _check_answers(address)
    # Ray's own handler would end the process with status 15, as if nothing had to be said.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ours: dict[str, Any] = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        try:
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.WARNING,
                **({} if address else ours),
            )
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
    except SystemExit:
        signal.raise_signal(signal.SIGTERM)
        raise
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BatchError(f"Ray at {address or 'this machine'} does not answer: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Refuse at once an address of host and port where nobody is: Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise BatchError(f"Ray at {address} does not answer: {error}") from error


def _mapped(
    source: Source,
    manifest: Manifest,
    settings: Settings,
    parts: Sequence[int],
    workers: int | None,
) -> Any:
    """The dataset of the parts, mapped to their rows."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that its bar is off
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.scheduling_strategy = "SPREAD"
    gpus = 0 if settings.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    machines = sum(node["Alive"] for node in ray.nodes())
    numbers = [{"part": part} for part in parts]
    pool = ray.data.ActorPoolStrategy(
        size=min(workers or gpus or machines, len(parts)),
        max_concurrent_calls_per_actor=_PARTS_AT_ONCE,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # Ray 2.60 deprecates the last two for named ones that it does not have.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        return ray.data.from_items(numbers, override_num_blocks=len(parts)).map_batches(
            _Worker,
            fn_constructor_args=(ray.put(source), manifest, settings),
            batch_size=1,
            compute=pool,
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
        )


def _write(
    records: Iterator[dict[str, Any]], output: Output, advance: Callable[[int], object]
) -> None:
    """Write parts as their last rows come.

    A part may come in pieces, and after an actor's death some of its rows twice.

    Raises:
        BatchError: a worker met an error that a user can fix.
    """
    parts: dict[int, dict[int, Row]] = {}
    written: set[int] = set()
    for record in records:
        if record["error"]:
            raise BatchError(record["error"])
        number = record["part"]
        if number in written:
            continue
        rows = parts.setdefault(number, {})
        row = Row.model_validate_json(record["row"])
        if row.overlay is not None and record["place"] not in rows:
            output.write_overlay(row.id, record["overlay"])
        rows[record["place"]] = row
        start, stop = output.manifest.bounds(number)
        if len(rows) == stop - start:
            output.write_part(number, [rows[place] for place in sorted(rows)])
            written.add(number)
            del parts[number]
            advance(stop - start)


class _Parcel:
    """Keeps a part until it is sent."""

    def __init__(self) -> None:
        self._overlays: dict[str, bytes] = {}
        self.columns: Columns = {}

    def write_overlay(self, photo_id: str, picture: bytes) -> str:
        name = overlay_name(photo_id)
        self._overlays[name] = picture
        return name

    def write_part(self, number: int, rows: Sequence[Row]) -> None:
        overlays = [self._overlays[row.overlay.file] if row.overlay else b"" for row in rows]
        self.columns = _columns(number, [row.model_dump_json() for row in rows], overlays)


def _columns(part: int, rows: Sequence[str], overlays: Sequence[bytes], error: str = "") -> Columns:
    """Records of a part, one for each row, in columns as Ray Data takes them.

    Columns of objects: NumPy's own type of bytes would drop zeros at the end.
    """
    return {
        "part": np.full(len(rows), part),
        "place": np.arange(len(rows)),
        "row": np.array(rows, object),
        "overlay": np.array(overlays, object),
        "error": np.full(len(rows), error, object),
    }


class _Worker:
    """An actor: a service in a thread of its own, whose event loop runs between calls too."""

    def __init__(self, source: Any, manifest: Manifest, settings: Settings) -> None:
        logs.configure(settings.log_format, "warning")
        heap.bound()
        self._manifest = manifest
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._unusable: Exception | None = None
        try:
            opened: Source = ray.get(source)
            explainer: Explainer = self._await(self._start(settings))
            self._work = Work(explainer, opened, manifest)
        except (BatchError, BreedCAMError, ray.exceptions.RayError) as error:
            self._unusable = error  # Ray would wrap what is raised here in pages of its own

    async def _start(self, settings: Settings) -> Explainer:
        service = Service.open(settings)
        if model_id(service.model.card) != self._manifest.model:
            raise BatchError(f"The model in {settings.model_path} is another.")
        self._running = service.running(end_process)  # until the process ends
        return await self._running.__aenter__()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __call__(self, batch: Columns) -> Columns:
        """The records of a part: its rows, or an error that a user can fix."""
        [part] = batch["part"].tolist()
        parcel = _Parcel()
        try:
            if self._unusable is not None:
                raise self._unusable
            self._await(self._work.run([part], parcel))
        except (BatchError, BreedCAMError, OSError) as error:
            return _columns(part, [""], [b""], f"{socket.gethostname()}: {error}")
        return parcel.columns
