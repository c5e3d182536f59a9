"""Another version of the model is put into service while the process runs.

The newest version in the model's folder is the one to serve, as in TensorFlow Serving: one that is
added replaces the one in service, and where that is removed, the newest that remains does. A folder
that is one version itself never has another, which is how settings pin a version.

    look      which version is the newest, and have its files stopped changing
    replace   it is loaded and warmed beside the one in service, and serves; or it is refused
    retire    the one before ends its last requests

Versions are immutable: files that change under the one in service change nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.bundle import find_version
from app.errors import BreedCAMError
from app.service import Service

__all__ = ["Versions"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """A version as it lies on disk.

    Attributes:
        path: its directory.
        files: each one's path in it, its size in bytes, and when it was changed last, in
            nanoseconds.
    """

    path: Path
    files: frozenset[tuple[str, int, int]]

    @classmethod
    def newest(cls, path: Path) -> Self:
        """The newest version in a model's folder.

        Raises:
            BundleError: there is none.
            OSError: its files cannot be read, or come and go.
        """
        version = find_version(path)
        stats = [
            (file.relative_to(version).as_posix(), file.stat())
            for file in version.rglob("*")
            if file.is_file()
        ]
        return cls(version, frozenset((name, s.st_size, s.st_mtime_ns) for name, s in stats))


class Versions:
    """Looks for another version of a service's model; for use on one event loop."""

    def __init__(self, service: Service) -> None:
        """Set it up; `watching` looks again and again."""
        self._service = service
        self._asked = asyncio.Event()
        self._seen: _Found | None = None
        self._refused: _Found | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look every `Settings.model_poll_s` seconds while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            # A load cannot be interrupted, only waited for, and that for so long.
            await asyncio.wait({task}, timeout=self._service.begin_stop())

    def look_now(self) -> None:
        """Have it look at once, as an operator does: see `look`."""
        self._asked.set()

    async def _watch(self) -> None:
        poll_s = self._service.settings.model_poll_s or None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self.look(asked=asked)
            except Exception:  # whatever it is, the next look may succeed
                log.exception("looking for another version of the model failed")

    async def look(self, *, asked: bool = False) -> None:
        """Serve the newest version in place of another; returns when that has ended.

        By itself it takes a version whose files have not changed since the look before, as it may
        be one that is still being copied, and none a second time that was refused.

        Args:
            asked: an operator has asked: the version is taken to be complete, and tried again.
        """
        served = self._service.model.path
        try:
            found = await asyncio.to_thread(_Found.newest, self._service.settings.model_path)
        except (BreedCAMError, OSError) as error:
            log.log(logging.WARNING if asked else logging.DEBUG, "no version found: %s", error)
            return
        before, self._seen = self._seen, found
        if found.path == served:
            if asked:
                log.info("there is no newer version than %s, which is served", served)
        elif asked or (found == before and found != self._refused):
            await self._try(found)

    async def _try(self, found: _Found) -> None:
        """Serve a version, or refuse it until its files change."""
        service, served = self._service, self._service.model.path
        log.info("loading %s beside %s, which serves meanwhile", found.path, served)
        try:
            before = await service.replace(found.path)
        except Exception as error:
            self._refused = found
            service.metrics.model_load("refused")
            expected = isinstance(error, BreedCAMError | OSError)
            log.error(
                "%s is refused, and %s serves on: %s",
                found.path,
                served,
                error if expected else repr(error),
                exc_info=not expected,
            )
            return
        self._refused = None
        service.metrics.model_load("served")
        log.info("serving %s", service.model)
        if await service.retire(before):
            log.info("%s has answered its last request and is freed", served)
