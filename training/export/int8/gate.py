"""Whether a graph in 8-bit integers predicts and explains well enough to be kept."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app import engines
from app.bundle import Bundle, Int8, Int8Figures, Rule
from training.data.dataset import Example
from training.evaluation.evaluate import evaluate

__all__ = ["ECE", "MAY_LOSE", "Loss", "losses", "measure"]

MAY_LOSE = 0.005
"""The most that top-1 accuracy and each mean IoU may fall, and that the calibration error may rise.

Half a point is twice what bfloat16 and float32 differ by.
"""

ECE = "expected calibration error"


class Loss(NamedTuple):
    """One figure in both precisions; `lost` is negative where integers are better."""

    name: str
    before: float
    after: float
    lost: float


def measure(bundle: Bundle, examples: Sequence[Example], *, calibration_photos: int) -> Int8:
    """Evaluate a version's graph in 8-bit integers beside its SavedModel.

    Args:
        bundle: the version with both graphs.
        examples: photos that neither training nor quantisation has used.
        calibration_photos: training photos that the graph was quantised on.

    Raises:
        DataError: there are no photos.
        EngineUnavailable: the CPU is not fast at 8-bit integers.
    """
    precision, before = _figures(bundle, examples, "float")
    _, after = _figures(bundle, examples, "int8")
    return Int8.model_validate(
        {
            "calibration_photos": calibration_photos,
            "photos": len(examples),
            "precision": precision,
            "before": before,
            "after": after,
        }
    )


def _figures(
    bundle: Bundle, examples: Sequence[Example], precision: str
) -> tuple[str, Int8Figures]:
    engine = engines.create(bundle, engine="openvino", device="cpu", precision=precision)
    try:
        summary = evaluate(bundle, engine, examples, split="validation").summary()
        used = {name: summary[name] for name in Int8Figures.model_fields if name in summary}
        return engine.info.precision, Int8Figures.model_validate(used)
    finally:
        engine.close()


def losses(int8: Int8) -> list[Loss]:
    """Every figure that the gate holds; see `MAY_LOSE`."""
    after = dict(_figures_of(int8.after))
    return [
        Loss(name, value, after[name], (after[name] - value) * (1 if name == ECE else -1))
        for name, value in _figures_of(int8.before)
    ]


def _figures_of(figures: Int8Figures) -> Iterator[tuple[str, float]]:
    yield "top-1 accuracy", figures.top1
    if figures.ece is not None:
        yield ECE, figures.ece
    tables = {Rule.HEATMAP: figures.mean_iou, Rule.FUSED: figures.mean_iou_fused}
    for rule, methods in tables.items():
        for method, layer_sets in methods.items():
            for layers, iou in layer_sets.items():
                yield f"mean IoU, {method} {layers}, rule {rule}", iou
