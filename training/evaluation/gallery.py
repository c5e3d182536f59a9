"""Photos to look at: drawn by lot, and those where the box fits best and worst."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import heatmaps, images, overlay
from app.bundle import Method, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import MethodAtLayers
from training.evaluation.inference import Explained, explain
from training.evaluation.schema import Gallery, GalleryPhoto, Overlay, PhotoResult
from training.evaluation.scoring import Scored, default

__all__ = ["SIDE", "choose", "draw_gallery"]

SIDE = 320
"""Pixels of a picture's longer side, at most."""

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class _Picture:
    """A photo under a heatmap.

    Attributes:
        rule: what the box is drawn by.
        width: pixels.
        height: pixels.
        jpeg: the file.
    """

    rule: Rule
    width: int
    height: int
    jpeg: bytes


def draw_gallery(
    card: ModelCard,
    engine: Engine,
    scored: Sequence[Scored],
    results: Sequence[PhotoResult],
    count: int,
    seed: int,
) -> Gallery:
    """Overlays of CAM, where the model has it, and Grad-CAM, by the service's defaults.

    The heatmap explains the photo's true class. Its box is green, the true ones are white.

    Args:
        card: the model's.
        engine: runs it.
        scored: B photos with boxes.
        results: of the same photos, in the same order.
        count: photos of each kind, see `choose`.
        seed: draws them.
    """
    sets = [default(card, method) for method in (Method.CAM, Method.GRADCAM)]
    sets = [layers for layers in sets if layers.method in card.methods]
    ious = np.array([photo.by_default(sets[-1]).iou for photo in scored])  # Grad-CAM's, [B]
    kinds = choose(ious, np.array([result.right for result in results]), count, seed)
    indices = sorted({index for chosen in kinds.values() for index in chosen})

    def draw(row: Explained) -> dict[MethodAtLayers, _Picture]:
        pixels = images.fit(images.decode(row.example.read(), side=SIDE), SIDE)
        return {layers: _picture(row, layers, pixels) for layers in sets}

    # The deep cut, for the very heatmaps that the figures are of.
    examples = [scored[index].example for index in indices]
    drawn = explain(card, engine, examples, Cut.EXPLAIN_DEEP, draw, "gallery")
    photos = {
        index: _gallery_photo(results[index], scored[index], pictures)
        for index, pictures in zip(indices, drawn, strict=True)
    }
    return Gallery(**{kind: [photos[index] for index in chosen] for kind, chosen in kinds.items()})


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


def _gallery_photo(
    result: PhotoResult, photo: Scored, pictures: dict[MethodAtLayers, _Picture]
) -> GalleryPhoto:
    return GalleryPhoto(
        **dict(result),
        overlays={
            layers.method: Overlay(
                iou=round(photo.by_default(layers).iou, 4),
                rule=picture.rule,
                media_type="image/jpeg",
                width=picture.width,
                height=picture.height,
                data=base64.b64encode(picture.jpeg),
            )
            for layers, picture in pictures.items()
        },
    )


def _picture(row: Explained, layers: MethodAtLayers, pixels: npt.NDArray[np.uint8]) -> _Picture:
    """The photo, uint8 RGB `[height, width, 3]`, under its heatmap, with the boxes."""
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
    return _Picture(evidence.rule, width, height, file.getvalue())
