"""Photos, and outputs for a `FakeEngine`, whose figures can be worked out by hand."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import engines
from app.bundle import Bundle, Foreground, Fused, Method, ModelCard
from training.data.dataset import Example

Array = npt.NDArray[Any]


def white_box_photo(label: int, box: tuple[int, int, int, int]) -> Example:
    """A 32 x 32 photo, white in its box (xmin, ymin, xmax, ymax in pixels) and black around it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    xmin, ymin, xmax, ymax = (edge / 32 for edge in box)
    return Example(f"{box}", file.getvalue(), label, ((xmin, ymin, xmax, ymax),))


def with_card(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with these fields of its card replaced."""
    return replace(bundle, card=bundle.card.replace(**changes))


def known_outputs(
    card: ModelCard,
    photos: npt.NDArray[np.uint8],
    *,
    own: Array,
    foreground: Array | None = None,
    logits: Array | None = None,
) -> dict[str, Array]:
    """Outputs that are the same for each photo.

    Args:
        card: names the outputs.
        photos: `[N, S, S, 3]`; only their number counts.
        own: the raw map `[h, w]` of every method at every layer.
        foreground: the foreground's raw map `[h, w]`; default: `own`.
        logits: `[classes]`; default: class 1 wins.
    """
    count = len(photos)

    def repeated(values: Array) -> Array:
        return np.repeat(values.astype(np.float32)[None], count, axis=0)

    all_logits = repeated(logits if logits is not None else np.array([0, 1, 0, 0, 0]))
    outputs = {
        engines.layer_output(card, method, layer): repeated(own)
        for method in card.methods
        for layer in card.layer_names
    }
    for layer in card.layer_names:
        name = engines.layer_output(card, "foreground", layer)
        outputs[name] = repeated(own if foreground is None else foreground)
    weights = np.exp(all_logits)
    target = np.full(count, 1, np.int32)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return outputs | {"logits": all_logits, "probabilities": probabilities, "target_index": target}


def block_map(*boxes: tuple[float, int, int, int, int]) -> Array:
    """A 32 x 32 map of (value, xmin, ymin, xmax, ymax); later boxes overwrite earlier ones."""
    values = np.zeros((32, 32), np.float32)
    for value, xmin, ymin, xmax, ymax in boxes:
        values[ymin:ymax, xmin:xmax] = value
    return values


# The map of every method is 1 in the left half of the dog, and 0.2 everywhere else. The foreground
# is 1 in the dog, once normalised, and 0 around it. Their mean is 1 in the left half, 0.6 in the
# right half and 0.1 around the dog.
OWN = block_map((0.2, 0, 0, 32, 32), (1, 8, 8, 16, 24))
FOREGROUND = block_map((0.8, 8, 8, 24, 24))
DOG = (8, 8, 24, 24)


def with_fusion(bundle: Bundle) -> Bundle:
    """The bundle with Grad-CAM fused with the foreground.

    The thresholds fit the last layer; that of the last six is far too low.
    """
    return with_card(
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
