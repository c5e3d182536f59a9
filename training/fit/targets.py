"""Training targets: smoothed labels, mixed with the predictions of other model versions.

Hinton et al., Distilling the knowledge in a neural network, 2015, at a temperature of 1. The cross
entropy is linear in its targets, so mixing targets equals mixing the two losses.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import engines
from app.bundle import Bundle, BundleError, Label
from app.confidence import probabilities
from app.engines import Batch, Cut, Engine, EngineUnavailable
from app.progress import bar
from training.data.classes import matching_index
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.inference import BATCH, squashed
from training.files import replacement
from training.fit.checkpoints import writing
from training.fit.devices import Devices

__all__ = ["answers", "check_teachers", "mixed_targets", "stored_answers"]

Floats = npt.NDArray[np.float32]

_ANSWERS = "answers.npy"
"""The file of a run's directory that keeps the teachers' answers."""


def mixed_targets(
    labels: Sequence[int],
    classes: int,
    *,
    smoothing: float = 0.0,
    answers: Floats | None = None,
    weight: float = 0.0,
) -> Floats:
    """The targets of the photos, as shares of the classes.

    `(1 - weight) * ((1 - smoothing) * one_hot + smoothing / classes) + weight * answers`

    Args:
        labels: of N photos.
        classes: number of classes.
        smoothing: of labels (Szegedy et al., 2016).
        answers: the teachers' probabilities, `[N, classes]`; without them, `weight` has no effect.
        weight: share of the answers.

    Returns:
        `[N, classes]`; rows sum to 1.
    """
    one_hot = np.eye(classes, dtype=np.float32)[np.asarray(labels, np.intp)]
    targets = (1 - smoothing) * one_hot + np.float32(smoothing / classes)
    if answers is not None:
        targets = (1 - weight) * targets + weight * answers
    return targets.astype(np.float32)


def check_teachers(run_dir: Path, teachers: Sequence[Path], labels: Sequence[Label]) -> None:
    """Load each teacher once and match its classes, before a run is configured to ask it.

    Answers that `stored_answers` has kept need no teacher.

    Raises:
        DataError: a teacher cannot be loaded, or lacks a class.
    """
    if (run_dir / _ANSWERS).exists():
        return
    for path in teachers:
        bundle, engine = _load(path)
        engine.close()
        _columns(bundle, labels)


def stored_answers(
    run_dir: Path,
    teachers: Sequence[Path],
    examples: Sequence[Example],
    labels: Sequence[Label],
    devices: Devices,
) -> Floats:
    """The teachers' answers, computed once and then read from the run's directory.

    Raises:
        DataError: see `answers`.
        RunError: they cannot be written.
    """
    path = run_dir / _ANSWERS
    if not path.exists() and devices.is_chief:
        with writing(run_dir), replacement(path) as draft:
            np.save(draft, answers(teachers, examples, labels).astype(np.float16))
    devices.wait()  # the chief writes them
    return np.load(path).astype(np.float32)  # type: ignore[no-any-return]


def answers(
    teachers: Sequence[Path], examples: Sequence[Example], labels: Sequence[Label]
) -> Floats:
    """The normalised product of the teachers' probabilities.

    `softmax(sum over teachers of (log p(photo) + log p(mirrored photo)) / 2)`

    Hinton, Products of experts, 1999: where the teachers agree, their product is more confident
    than any of them. Photos are decoded and squashed as in the teacher's service.

    Args:
        teachers: model versions, `models/<name>` or `models/<name>/<version>`.
        examples: N photos.
        labels: of the run; other classes of a teacher are left out.

    Returns:
        `[N, len(labels)]`; rows sum to 1.

    Raises:
        DataError: a teacher cannot be loaded, or lacks a class.
    """
    logs = np.zeros((len(examples), len(labels)), np.float32)
    for path in teachers:
        bundle, engine = _load(path)
        try:
            logs += _log_probabilities(bundle, engine, examples, _columns(bundle, labels))
        finally:
            engine.close()
    return probabilities(logs, 1.0)


def _load(path: Path) -> tuple[Bundle, Engine]:
    try:
        bundle = bundles.load(path)
        return bundle, engines.create(bundle, precision="float")
    except (BundleError, EngineUnavailable) as error:
        raise DataError(f"The teacher {path} cannot be loaded: {error}") from error


def _columns(bundle: Bundle, labels: Sequence[Label]) -> list[int]:
    """The teacher's class index for each label."""
    columns = [matching_index(label, bundle.card.labels) for label in labels]
    missing = [label.name for label, column in zip(labels, columns, strict=True) if column is None]
    if missing:
        names = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"The teacher {bundle.card.name} does not know {len(missing)}: {names}.")
    return [column for column in columns if column is not None]


def _log_probabilities(
    bundle: Bundle, engine: Engine, examples: Sequence[Example], columns: Sequence[int]
) -> Floats:
    """Log-probabilities of a teacher among the classes of `columns`: `[N, len(columns)]`."""
    rows = np.zeros((len(examples), len(columns)), np.float32)
    with bar("teacher", total=len(examples)) as progress:
        for begin in range(0, len(examples), BATCH):
            batch = examples[begin : begin + BATCH]
            images = np.stack([squashed(bundle.card, example)[1] for example in batch])
            for view in (images, np.ascontiguousarray(images[:, :, ::-1])):
                logits = engine.run(Cut.PREDICT, Batch.of(view))["logits"][:, columns]
                shares = np.maximum(probabilities(logits, 1.0), np.finfo(np.float32).tiny)
                rows[begin : begin + len(batch)] += np.log(shares) / 2
            progress.update(len(batch))
    return rows
