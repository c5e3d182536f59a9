"""Model versions on disk, `models/<name>/<version>`: written, replaced and numbered.

A version appears whole or not at all. While one is written or replaced, hidden directories lie
beside it:

    .<version>.draft    the new version, until it is complete
    .<version>.old      the old version, from the moment it makes room until the new one has its
                        place; put back by the next export if this one is killed in between
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from app.bundle import ModelCard, checksums
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.files import MODEL_NAME, is_model_name

__all__ = ["check_free", "next_version", "revision", "write"]


def write(
    explained: ExplainedNetwork, version_dir: Path, card: ModelCard, *, overwrite: bool = False
) -> ModelCard:
    """Save `explained` and its `model.json`; the directory appears whole or not at all.

    A version that a killed export had moved aside is put back first.

    Args:
        explained: the network.
        version_dir: `models/<name>/<version>`.
        card: without checksums, which are filled in here.
        overwrite: whether an existing version may be replaced.

    Returns:
        The card as written.

    Raises:
        ExportError: the version exists, or its directory does not match the card.
    """
    if (version_dir.parent.name, version_dir.name) != (card.name, str(card.version)):
        raise ExportError(
            f"{version_dir} is not the directory of {card.name} version {card.version}."
        )
    check_free(version_dir, overwrite=overwrite)
    draft = _new_draft(version_dir)
    tf.saved_model.save(
        explained,
        str(draft),
        signatures={"serving_default": explained.serve, "predict": explained.predict},
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    for empty in [path for path in draft.iterdir() if path.is_dir() and not any(path.iterdir())]:
        empty.rmdir()
    card = card.replace(checksums=checksums(draft))
    card.write(draft)
    _put_in_place(draft, version_dir)
    return card


def check_free(version_dir: Path, *, overwrite: bool) -> None:
    """Check, before any work is done, that a version may be written there.

    A version that a killed export had moved aside is put back first.

    Args:
        version_dir: `models/<name>/<version>`.
        overwrite: whether an existing version may be replaced.

    Raises:
        ExportError: the version exists and may not be replaced, the model cannot be called so, or
            there can be no such directory.
    """
    name = version_dir.parent.name
    if not is_model_name(name):
        raise ExportError(f"{name[:80]!r} is not a valid model name: {MODEL_NAME}.")
    nearest = next(path for path in version_dir.parents if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ExportError(f"{version_dir} cannot be written: {nearest} is no writable directory.")
    _recover(version_dir.parent)
    if version_dir.exists() and not overwrite:
        raise ExportError(f"{version_dir} already exists: pass another --version or --overwrite.")


def next_version(model_dir: Path) -> int:
    """One more than the greatest version in `models/<name>`; 1 if there is none."""
    if not model_dir.is_dir():
        return 1
    numbers = map(_number, model_dir.iterdir())
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


@contextmanager
def revision(version_dir: Path) -> Iterator[Path]:
    """A copy of a version to change, which takes its place at the end; after an exception it goes.

    Its files are the version's own (hard links) where the file system has them: replace files in
    it, and do not write to them.

    Raises:
        ExportError: there can be no such directory.
    """
    check_free(version_dir, overwrite=True)
    draft = _new_draft(version_dir)
    try:
        shutil.copytree(version_dir, draft, copy_function=_link)
        yield draft
        _put_in_place(draft, version_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _new_draft(version_dir: Path) -> Path:
    """Where a version is put together; what a killed export has left there is removed."""
    draft = version_dir.with_name(f".{version_dir.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    return draft


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _put_in_place(draft: Path, version_dir: Path) -> None:
    """Rename `draft` to `version_dir`; an existing version stays whole until then."""
    aside = version_dir.with_name(f".{version_dir.name}.old")
    if version_dir.exists():
        version_dir.rename(aside)
    try:
        draft.rename(version_dir)
    except OSError:
        if aside.exists():
            aside.rename(version_dir)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _recover(model_dir: Path) -> None:
    """Finish what a killed `_put_in_place` began.

    An old version goes back to its place, or is deleted if the new one has taken it.
    """
    for aside in list(model_dir.glob(".[0-9]*.old")):
        version_dir = aside.with_name(_number(aside))
        if version_dir.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(version_dir)


def _number(path: Path) -> str:
    """The number in the name of a version's directory, in its place or moved aside."""
    return path.name.removeprefix(".").removesuffix(".old")
