"""A model version over a split, through the service's own decoder, engine and box code."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from app import engines, heatmaps, images
from app.bundle import Bundle, Method, ModelCard
from app.engines import Cut, Engine
from training.data import Example
from training.errors import DataError
from training.metrics import CONSTANT_BOX, FULL_FRAME, best_iou, top_k_accuracy

__all__ = ["calibrate", "evaluate", "layer_sets"]

BATCH = 8

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 31))
"""0.02 to 0.60: the grid that calibration searches."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A photo and its row of the model's outputs, explained for its true class."""

    example: Example
    width: int
    height: int
    outputs: dict[str, npt.NDArray[Any]]

    @property
    def boxes(self) -> list[images.Box]:
        """The true boxes in photo pixels."""
        size = (self.width, self.height)
        return [images.scale_box(box, (1, 1), size) for box in self.example.boxes]


def layer_sets(card: ModelCard, method: Method) -> dict[str, list[str]]:
    """The layer sets of a method that are calibrated, by name."""
    names = card.layer_names
    if method not in card.methods:
        return {}
    if method is Method.CAM:
        return {"last": names[-1:]}
    return {
        "last": names[-1:],
        "last6": names[-6:],
        **{name: [name] for name in names[:-1]},
    }


def calibrate(
    bundle: Bundle, engine: Engine, examples: Sequence[Example]
) -> dict[Method, dict[str, float]]:
    """The threshold with the best mean IoU for each method and layer set (GT-known).

    Args:
        bundle: the model version.
        engine: runs it.
        examples: of the training split; those without a box are left out.

    Raises:
        DataError: none has a box.
    """
    boxed = [example for example in examples if example.boxes]
    if not boxed:
        raise DataError("No photo of this split has a box.")
    sets = {method: layer_sets(bundle.card, method) for method in Method}
    totals = {
        (method, name): np.zeros(len(THRESHOLDS)) for method in Method for name in sets[method]
    }
    for row in _explain(bundle, engine, boxed, Cut.EXPLAIN_DEEP, "calibrate"):
        for method, name in totals:
            values = _values(bundle.card, row, method, sets[method][name])
            totals[method, name] += [
                best_iou(_locate(row, values, threshold), row.boxes) for threshold in THRESHOLDS
            ]
    return {
        method: {name: THRESHOLDS[int(np.argmax(totals[method, name]))] for name in sets[method]}
        for method in Method
        if sets[method]
    }


def evaluate(bundle: Bundle, engine: Engine, examples: Sequence[Example]) -> dict[str, Any]:
    """Accuracy over all photos; mean IoU (GT-known, calibrated thresholds) over those with boxes.

    Returns:
        JSON-ready figures, the mean IoU of the constant box and the full frame beside the methods'.

        Without a box in the split, there is no IoU.

    Raises:
        DataError: the split is empty.
    """
    if not examples:
        raise DataError("There are no photos in this split.")
    boxed = [example for example in examples if example.boxes]
    probabilities = [
        row.outputs["probabilities"]
        for row in _explain(bundle, engine, examples, Cut.PREDICT, "accuracy")
    ]
    labels = np.array([example.label for example in examples])
    ious: dict[tuple[Method, str], list[float]] = {}
    baselines: dict[str, list[float]] = {"constant_box": [], "full_frame": []}
    for row in _explain(bundle, engine, boxed, Cut.EXPLAIN_DEEP, "localisation"):
        for method in Method:
            for name, layers in layer_sets(bundle.card, method).items():
                values = _values(bundle.card, row, method, layers)
                found = _locate(row, values, bundle.card.threshold(method, name))
                ious.setdefault((method, name), []).append(best_iou(found, row.boxes))
        for name, share in (("constant_box", CONSTANT_BOX), ("full_frame", FULL_FRAME)):
            guess = images.scale_box(share, (1, 1), (row.width, row.height))
            baselines[name].append(best_iou(guess, row.boxes))
    mean_iou: dict[str, dict[str, float]] = {}
    for (method, name), scores in ious.items():
        mean_iou.setdefault(method.value, {})[name] = round(float(np.mean(scores)), 4)
    return {
        "photos": len(examples),
        "photos_with_boxes": len(boxed),
        "top1": round(top_k_accuracy(np.array(probabilities), labels, 1), 4),
        "top5": round(top_k_accuracy(np.array(probabilities), labels, 5), 4),
        "mean_iou": mean_iou,
        "mean_iou_baselines": {
            name: round(float(np.mean(scores)), 4) for name, scores in baselines.items() if scores
        },
        "engine": f"{engine.info.name} {engine.info.precision}",
    }


def _explain(
    bundle: Bundle, engine: Engine, examples: Sequence[Example], cut: Cut, title: str
) -> Iterator[Explained]:
    """Run the photos, each for its true class, with a progress bar."""
    with tqdm(total=len(examples), desc=title, unit="photo", mininterval=1.0) as bar:
        for begin in range(0, len(examples), BATCH):
            batch = examples[begin : begin + BATCH]
            photos = [images.decode(example.read()) for example in batch]
            model_input = bundle.card.input
            arrays = engine.run(
                cut,
                np.stack(
                    [
                        images.squash(photo.pixels, model_input.size, model_input.resize)
                        for photo in photos
                    ]
                ),
                np.array([example.label for example in batch], np.int32),
                np.full(len(batch), -1, np.int32),
            )
            for row, (example, photo) in enumerate(zip(batch, photos, strict=True)):
                outputs = {name: array[row] for name, array in arrays.items()}
                yield Explained(example, photo.width, photo.height, outputs)
            bar.update(len(batch))


def _values(
    card: ModelCard, row: Explained, method: Method, layers: Sequence[str]
) -> npt.NDArray[np.float32] | None:
    """The heatmap at the model's input size; None without evidence."""
    maps = [row.outputs[engines.layer_output(card, method, layer)] for layer in layers]
    heatmap = heatmaps.from_maps(maps, signed=method.signed)
    if heatmap.status != "ok":
        return None
    return heatmaps.resize(heatmap.values, card.input.size, card.input.size)


def _locate(
    row: Explained, values: npt.NDArray[np.float32] | None, threshold: float
) -> images.Box | None:
    """The heatmap's box in photo pixels."""
    box = heatmaps.locate(values, threshold) if values is not None else None
    if box is None or values is None:
        return None
    height, width = values.shape
    return images.scale_box(box, (width, height), (row.width, row.height))
