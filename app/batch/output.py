"""The output folder: every file in it is whole, or not there. One process writes to it.

    .lock                is held by the process that writes
    run.json             what the run is of: another input, model or option is refused
    part-00000.jsonl     the rows of the first part's photos, or .parquet
    overlays/<id>.png    a photo's overlay
    summary.json         how many photos, and what was wrong with how many; the run is finished
    coco_results.json    the boxes, where that was requested

Until a file is whole, it is a draft in `.drafts`.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from app.batch.errors import BatchError
from app.batch.rows import Row, arrow_schema
from app.bundle import ModelCard

__all__ = ["Manifest", "Output", "model_id", "overlay_name"]

_LAYOUT = 1
"""Changes with the files' layout, and with what a row has."""

_SAFE = " !#$&'()+,-.;=@[]^_`{}~"
"""Characters besides letters and digits that an overlay's name takes over from the photo's id."""

_MAX_NAME = 200
"""Bytes of a part of a path; file systems take 255."""


class Manifest(BaseModel):
    """What a run is of.

    Attributes:
        photos: how many.
        input: digest of the input.
        model: name, version and digest of its `model.json`.
        endpoint: whose answers the rows are.
        query: its parameters.
        settings: what else an answer depends on.
        part_photos: photos of a part.
        rows: the format of the parts.
        overlays: whether there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: int = _LAYOUT
    photos: int
    input: str
    model: dict[str, str | int]
    endpoint: Literal["predict", "cam", "gradcam"]
    query: dict[str, Any]
    settings: dict[str, Any]
    part_photos: int
    rows: Literal["jsonl", "parquet"]
    overlays: bool

    @property
    def parts(self) -> range:
        """The parts' numbers."""
        return range(-(-self.photos // self.part_photos))

    def bounds(self, part: int) -> tuple[int, int]:
        """A part's first photo, and the one after its last."""
        start = part * self.part_photos
        return start, min(start + self.part_photos, self.photos)


def model_id(card: ModelCard) -> dict[str, str | int]:
    """Name, version and digest of a model."""
    digest = hashlib.sha256(card.model_dump_json().encode()).hexdigest()
    return {"name": card.name, "version": card.version, "sha256": digest}


@dataclass(frozen=True)
class Output:
    """The output folder of a run; threads may write to it at once."""

    folder: Path
    manifest: Manifest

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begin the run, or resume it, and let no other have the folder while the block runs.

        Raises:
            BatchError: the folder holds something else, or is in use.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_free()
        with (self.folder / ".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BatchError(f"Another process is writing to {self.folder}.") from None
            self._begin()
            try:
                yield
            finally:
                shutil.rmtree(self._drafts, ignore_errors=True)

    def _check_free(self) -> None:
        """Leave a folder alone that holds something else."""
        own = {self.folder / name for name in ("run.json", ".lock", ".drafts")}
        entries = {*self.folder.iterdir()}
        if entries - own and self.folder / "run.json" not in entries:
            raise BatchError(f"{self.folder} is not empty and holds no run: choose another folder.")

    def _begin(self) -> None:
        path = self.folder / "run.json"
        if path.exists():
            self._compare(path)
        shutil.rmtree(self._drafts, ignore_errors=True)  # what a killed process has left
        self._drafts.mkdir()
        if not path.exists():
            with self.written(path.name) as file:
                file.write(self.manifest.model_dump_json(indent=2).encode() + b"\n")

    def _compare(self, path: Path) -> None:
        """Refuse a run that is of something else."""
        ours = json.loads(self.manifest.model_dump_json())
        try:
            theirs = json.loads(path.read_bytes())
            changed = [name for name in ours if ours[name] != theirs.get(name)]
        except (ValueError, AttributeError):
            raise BatchError(f"{path} does not describe a run: choose another folder.") from None
        if changed:
            raise BatchError(
                f"{self.folder} holds a run that differs in {', '.join(changed)} (see run.json): "
                "choose another folder, or repeat its input, model, settings and options."
            )

    # -- files

    @property
    def _drafts(self) -> Path:
        return self.folder / ".drafts"

    @contextmanager
    def written(self, name: str, *, synced: bool = True) -> Iterator[BinaryIO]:
        """A file to write to, which takes the place of `name` at the end of the block.

        After an exception, `name` stays as it was.

        Args:
            name: of the file, in the output folder.
            synced: whether it withstands a power cut from then on, which takes milliseconds.
        """
        path, draft = self.folder / name, self._drafts / secrets.token_hex(8)
        try:
            with draft.open("wb") as file:
                yield file
                if synced:  # before the name points to it: it could be empty otherwise
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        if synced:
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    # -- parts

    def part(self, number: int) -> Path:
        """A part's file."""
        return self.folder / f"part-{number:05}.{self.manifest.rows}"

    def missing(self) -> list[int]:
        """The parts that are not written."""
        written = {entry.name for entry in os.scandir(self.folder)}
        return [part for part in self.manifest.parts if self.part(part).name not in written]

    def write_part(self, number: int, rows: Sequence[Row]) -> None:
        """Write a part, whose overlays are written; blocks until all of it is on disk."""
        if self.manifest.overlays:
            os.sync()  # once for all: a call of fsync for each would take longer than the model
        with self.written(self.part(number).name) as file:
            if self.manifest.rows == "jsonl":
                file.writelines(row.model_dump_json().encode() + b"\n" for row in rows)
            else:
                import pyarrow as pa
                from pyarrow import parquet

                dumped = [row.model_dump(mode="json") for row in rows]
                parquet.write_table(pa.Table.from_pylist(dumped, arrow_schema()), file)

    def rows(self) -> Iterator[Row]:
        """The rows of all parts that are written, in the order of the input."""
        for part in self.manifest.parts:
            path = self.part(part)
            if path.exists():
                yield from self._read_part(path)

    def _read_part(self, path: Path) -> Iterable[Row]:
        if self.manifest.rows == "jsonl":
            with path.open("rb") as file:
                yield from map(Row.model_validate_json, file)
        else:
            from pyarrow import parquet

            for row in parquet.read_table(path).to_pylist():
                yield Row.model_validate(row)

    # -- overlays

    def write_overlay(self, photo_id: str, picture: bytes) -> str:
        """Write a photo's overlay; returns its path within the folder."""
        name = overlay_name(photo_id)
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        with self.written(name, synced=False) as file:
            file.write(picture)
        return name

    # -- end

    @property
    def summary_path(self) -> Path:
        """Of `summary.json`."""
        return self.folder / "summary.json"

    def summarise(self) -> dict[str, Any]:
        """Count all rows, and write how many there are: the run is finished.

        Returns:
            `photos`, `answered`, and `problems`: how many of each type.
        """
        with suppress(FileNotFoundError):
            summary: dict[str, Any] = json.loads(self.summary_path.read_bytes())
            return summary
        problems = Counter(row.problem and row.problem.type for row in self.rows())
        answered = problems.pop(None, 0)
        summary = {
            "photos": answered + problems.total(),
            "answered": answered,
            "problems": dict(problems.most_common()),
        }
        with self.written(self.summary_path.name) as file:
            file.write(json.dumps(summary, indent=2).encode() + b"\n")
        return summary


def overlay_name(photo_id: str) -> str:
    """The path of a photo's overlay within the output folder, which it cannot leave.

    Folders of the id are folders there. Characters that file systems or shells may not take are
    quoted by `%`, and so are `.` and `..` and the slashes around nothing; what is too long is cut,
    and ends in a digest.
    """
    return "/".join(["overlays", *map(_safe_name, photo_id.split("/"))]) + ".png"


def _safe_name(name: str) -> str:
    quoted = "".join(
        character if character.isalnum() or character in _SAFE else quote(character, safe="")
        for character in name
    )
    if not quoted.strip("."):  # empty, `.` or `..`
        quoted = "%2E" * len(quoted) or "%"
    encoded = quoted.encode()
    if len(encoded) > _MAX_NAME:
        digest = hashlib.sha256(encoded).hexdigest()[:32]
        quoted = f"{encoded[: _MAX_NAME - 33].decode(errors='ignore')}%{digest}"
    return quoted
