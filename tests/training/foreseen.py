"""Photos and maps whose every figure is known by hand, for an engine that pretends."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import engines
from app.bundle import Bundle, Foreground, Fused, Method, ModelCard
from training.data import Example

Array = npt.NDArray[Any]


def bright(label: int, box: tuple[int, int, int, int]) -> Example:
    """A 32 x 32 photo, as the model takes it, white in its box and black around it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    xmin, ymin, xmax, ymax = (edge / 32 for edge in box)
    return Example(f"{box}", file.getvalue(), label, ((xmin, ymin, xmax, ymax),))


def changed(bundle: Bundle, **changes: Any) -> Bundle:
    """With another card."""
    return replace(bundle, card=bundle.card.replace(**changes))


def foreseen(
    card: ModelCard,
    photos: npt.NDArray[np.uint8],
    *,
    own: Array,
    foreground: Array | None = None,
    logits: Array | None = None,
) -> dict[str, Array]:
    """The same `[h, w]` map of every photo for every method, and another for the foreground."""
    count = len(photos)

    def rows(values: Array) -> Array:
        return np.repeat(values.astype(np.float32)[None], count, axis=0)

    rows_of_logits = rows(logits if logits is not None else np.array([0, 1, 0, 0, 0]))
    outputs = {
        engines.layer_output(card, method, layer): rows(own)
        for method in card.methods
        for layer in card.layer_names
    }
    for layer in card.layer_names:
        name = engines.layer_output(card, "foreground", layer)
        outputs[name] = rows(own if foreground is None else foreground)
    weights = np.exp(rows_of_logits)
    target = np.full(count, 1, np.int32)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return outputs | {
        "logits": rows_of_logits,
        "probabilities": probabilities,
        "target_index": target,
    }


def blocks(*boxes: tuple[float, int, int, int, int]) -> Array:
    """A 32 x 32 map of values in boxes, the later ones over the earlier."""
    made = np.zeros((32, 32), np.float32)
    for value, xmin, ymin, xmax, ymax in boxes:
        made[ymin:ymax, xmin:xmax] = value
    return made


# Every method sees the left half of the dog and, fainter, everything else; the foreground sees
# the dog, where it is 1 once normalised. Their mean is 1 in the half, 0.6 in the rest of the dog
# and 0.1 around it.
OWN = blocks((0.2, 0, 0, 32, 32), (1, 8, 8, 16, 24))
FOREGROUND = blocks((0.8, 8, 8, 24, 24))
DOG = (8, 8, 24, 24)


def fusing(bundle: Bundle) -> Bundle:
    """With Grad-CAM's rule fused, at thresholds that are right for the last layer alone."""
    return changed(
        bundle,
        thresholds={method: {"last": 0.5, "last6": 0.5} for method in bundle.card.methods},
        fused={
            Method.GRADCAM: {
                "last": Fused(foreground=0.5, threshold=0.4),
                "last6": Fused(foreground=0.5, threshold=0.1),
            }
        },
        foreground=Foreground(rule="boxes", photos=9),
    )
