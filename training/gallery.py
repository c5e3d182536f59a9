"""Photos to look at: drawn by lot, and those where the box fits best and worst."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import heatmaps, images, overlay
from app.bundle import Method, ModelCard
from app.engines import Cut, Engine
from app.evidence import MethodAtLayers
from training.explanations import Explained, explain
from training.scoring import Scored, default

__all__ = ["SIDE", "choose", "drawn"]

SIDE = 320
"""Pixels of a picture's longer side, at most."""

_QUALITY = 85


def drawn(
    card: ModelCard,
    engine: Engine,
    scored: Sequence[Scored],
    right: npt.NDArray[np.bool_],
    count: int,
    seed: int,
) -> dict[str, dict[int, dict[str, Any]]]:
    """Overlays of CAM, where the model has it, and Grad-CAM as the service draws them unasked.

    Each explains the photo's true class, and has the box found in green and the true ones in white.

    Args:
        card: the model's.
        engine: runs it.
        scored: photos with boxes.
        right: whether each one's class is the likeliest, `[N]`.
        count: photos of each kind, see `choose`.
        seed: draws them.

    Returns:
        By kind, by index into `scored`, by method: the box's IoU and rule, and the picture in
        base64.
    """
    sets = [default(card, method) for method in (Method.CAM, Method.GRADCAM)]
    sets = [layers for layers in sets if layers.method in card.methods]
    ious = np.array([one.by_default(sets[-1]).iou for one in scored])
    kinds = choose(ious, right, count, seed)
    wanted = sorted({index for chosen in kinds.values() for index in chosen})

    def overlays(row: Explained) -> dict[str, Any]:
        photo = images.decode(row.example.read(), side=SIDE)
        return {
            layers.method.value: _overlay(row, layers, images.fit(photo, SIDE)) for layers in sets
        }

    # The deep cut, for the very heatmaps that the figures are of.
    rows = explain(
        card,
        engine,
        [scored[index].example for index in wanted],
        Cut.EXPLAIN_DEEP,
        overlays,
        "gallery",
    )
    found = dict(zip(wanted, rows, strict=True))
    for index, pictures in found.items():
        for layers in sets:
            pictures[layers.method.value]["iou"] = round(scored[index].by_default(layers).iou, 4)
    return {kind: {index: found[index] for index in of} for kind, of in kinds.items()}


def choose(
    ious: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], count: int, seed: int
) -> dict[str, list[int]]:
    """`correct`: as many correctly classified photos, by lot; `best` and `worst` by their IoU."""
    rng = np.random.default_rng(seed)
    order = np.argsort(-ious, kind="stable")
    return {
        "correct": rng.permutation(np.flatnonzero(right))[:count].tolist(),
        "best": order[:count].tolist(),
        "worst": order[::-1][:count].tolist(),
    }


def _overlay(
    row: Explained, layers: MethodAtLayers, pixels: npt.NDArray[np.uint8]
) -> dict[str, str | int | float]:
    evidence = row.evidence(layers)
    height, width = pixels.shape[:2]
    values = evidence.values
    if values is not None:
        values = heatmaps.resize(values, width, height)
    picture = overlay.render(pixels, values, colormap="jet", alpha=0.5)
    overlay.draw_boxes(
        picture,
        own=evidence.box(width, height),
        reference=[images.scale_box(box, (1, 1), (width, height)) for box in row.example.boxes],
    )
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
    return {
        "rule": evidence.rule.value,
        "media_type": "image/jpeg",
        "width": width,
        "height": height,
        "data": base64.b64encode(file.getvalue()).decode(),
    }
