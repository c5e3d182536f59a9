"""Another version of the model is put into service while the process runs.

The newest version in the model's folder is the one to serve, as in TensorFlow Serving: one that is
added replaces the one in service, and where that is removed, the newest that remains does. A folder
that is one version itself never has another, which is how settings pin a version.

    look      which version is the newest, and have its files stopped changing
    replace   it is loaded and warmed beside the one in service, and serves
    retire    the one before ends its last requests

A version that is itself at fault is refused until it is changed or taken away. One that fails for
another reason, such as a decoder that was killed or a file that could not be read, is tried again,
after waits that double. So is one that fails with an unexpected error, but only twice: an engine
may be unable to run it.

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
from app.errors import BreedCAMError, EngineFailed, StartupError
from app.service import Service

__all__ = ["Versions"]

log = logging.getLogger(__name__)

_MOST_WAIT_S = 300.0
"""Until a version is tried again that has failed for a reason that may pass."""

_MOST_UNEXPECTED = 3
"""Tries that end with an unexpected error before the version is refused."""


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


@dataclass(slots=True)
class _Failed:
    """A version that could not be served when it was tried last.

    Attributes:
        version: as it was then.
        tries: how many have failed in a row.
        unexpected: how many of these with an error that says nothing of its cause.
        wait: from that try to the next, in looks; None: it is refused.
        looks: how many of these are left.
    """

    version: _Found
    tries: int = 1
    unexpected: int = 0
    wait: int | None = None
    looks: int = 0


class Versions:
    """Looks for another version of a service's model; for use on one event loop."""

    def __init__(self, service: Service) -> None:
        """Set it up; `watching` looks again and again."""
        self._service = service
        self._asked = asyncio.Event()
        self._seen: _Found | None = None
        self._failed: _Failed | None = None
        self._problem: str | None = None

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
        be one that is still being copied, and none again that was refused.

        Args:
            asked: an operator has asked: the version is taken to be complete, and tried again.
        """
        path, served = self._service.settings.model_path, self._service.model
        number = served.card.version
        try:
            found = await asyncio.to_thread(_Found.newest, path)
            gone = not await asyncio.to_thread(served.path.is_dir)
        except (BreedCAMError, OSError) as error:
            self._report(f"no version found, and version {number} serves on: {error}", asked=asked)
            return
        before, self._seen = self._seen, found
        if self._failed and self._failed.version != found:
            self._failed = None
        if found.path == served.path:
            self._report(None, asked=asked)
            if asked and found.path == path:
                log.info("BREEDCAM_MODEL names version %d, which is served", number)
            elif asked:
                log.info("there is no newer version than %d, which is served", number)
        elif asked or (found == before and self._is_due(found)):
            await self._try(found)
        elif gone and self._failed:
            self._report(
                f"version {number} serves on although its folder is gone, because {found.path}, "
                "now the newest, cannot be served. To roll back further, remove that too.",
                asked=asked,
            )
        else:
            self._report(None, asked=asked)

    def _report(self, problem: str | None, *, asked: bool) -> None:
        """Warn of a problem when it begins, and each time that an operator asks."""
        if problem and (asked or problem != self._problem):
            log.warning("%s", problem)
        elif self._problem and not problem:
            log.info("no longer: %s", self._problem)
        self._problem = problem

    def _is_due(self, found: _Found) -> bool:
        """Whether a look tries a version, now that its files are at rest."""
        failed = self._failed
        if failed is None:
            return True
        if failed.wait is None:
            return False
        failed.looks -= 1
        return failed.looks <= 0

    async def _try(self, found: _Found) -> None:
        """Serve a version, refuse it until its files change, or put it off."""
        service, number = self._service, self._service.model.card.version
        log.info("loading %s beside version %d, which serves meanwhile", found.path, number)
        try:
            before = await service.replace(found.path)
        except Exception as error:
            # The batcher's cause is what the model raised; an answer that is not finite has none.
            cause = error.__cause__ if isinstance(error, EngineFailed) else None
            self._fail(found, cause if isinstance(cause, Exception) else error)
            return
        self._failed = None
        service.metrics.model_load("served")
        log.info("serving %s", service.model)
        if await service.retire(before):
            log.info("version %d has answered its last request and is freed", number)
        else:
            log.error("version %d was replaced and hangs; its memory is not freed", number)

    def _fail(self, found: _Found, error: Exception) -> None:
        """Refuse a version that is at fault, put another off."""
        before = self._failed
        if before is None or before.wait is None:
            before = _Failed(found, tries=0)
        tries, unexpected = before.tries + 1, before.unexpected
        if not isinstance(error, BreedCAMError | OSError | MemoryError):
            unexpected += 1
        at_fault = isinstance(error, StartupError | EngineFailed)
        if at_fault or unexpected >= _MOST_UNEXPECTED:
            self._failed = _Failed(found, tries, unexpected)
            self._service.metrics.model_load("refused")
            self._log_failure(logging.ERROR, f"{found.path} is refused", "", error)
            return
        # Twice as many looks later as the time before.
        poll_s = self._service.settings.model_poll_s
        most = max(1, int(_MOST_WAIT_S / poll_s)) if poll_s else 1
        wait = min(2 * before.wait, most) if before.wait else 1
        self._failed = _Failed(found, tries, unexpected, wait, wait)
        self._service.metrics.model_load("failed")
        again = f"in {wait * poll_s:g} s" if poll_s else "on SIGHUP"
        self._log_failure(
            logging.WARNING,
            f"{found.path} could not be loaded",
            f"; try {tries}, the next {again}",
            error,
        )

    def _log_failure(self, level: int, what: str, then: str, error: Exception) -> None:
        """One line, with the traceback of an error that nobody has written for a reader."""
        is_clear = isinstance(error, BreedCAMError | OSError)
        log.log(
            level if is_clear else logging.ERROR,
            "%s, and version %d serves on%s: %s",
            what,
            self._service.model.card.version,
            then,
            error if is_clear else repr(error),
            exc_info=None if is_clear else error,
        )
