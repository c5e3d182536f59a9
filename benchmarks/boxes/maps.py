"""Raw maps for the trials: of photos, of their mirror images, and at larger input sizes."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.bundle import Bundle, Method
from app.engines import Batch, Cut, Engine, layer_output
from app.progress import bar
from benchmarks.boxes.crossfit import Directions, Half, find_directions
from benchmarks.boxes.forward import Forward
from training.data.dataset import Example
from training.evaluation.inference import squashed
from training.export.foreground import Projection, fused_layers

__all__ = ["MIRRORED", "Photos", "foreground_layers", "larger", "name", "raw_maps"]

BATCH = 32

MIRRORED = "mirrored"
"""Name of the view that averages a photo's map with its mirror image's, mirrored back."""

Raw = dict[str, npt.NDArray[np.float32]]
"""Raw maps `[N, h, w]`, by `name`."""

Activations = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Photos:
    """The photos that the rules are tried on.

    Attributes:
        bundle: the model version.
        examples: photos with a box.
        half: `[N]`.
        threads: for the inference; 0: one for each core.
        labels: the true classes, `[N]`.
    """

    bundle: Bundle
    examples: Sequence[Example]
    half: Half
    threads: int = 0
    labels: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        """Take the labels out."""
        labels = np.array([example.label for example in self.examples], np.int32)
        object.__setattr__(self, "labels", labels)

    def squashed(self, size: int) -> npt.NDArray[np.uint8]:
        """Model input, uint8 RGB `[N, size, size, 3]`, resized as the service does it."""
        card = self.bundle.card
        sized = card.replace(input=card.input.model_dump() | {"size": size})
        with ThreadPoolExecutor() as pool:
            return np.stack(
                list(pool.map(lambda example: squashed(sized, example)[1], self.examples))
            )


def name(kind: str, layer: str, view: str = "") -> str:
    """The key of a raw map: a method or a rule for directions, a layer and perhaps a view."""
    return f"{kind} {layer} {view}".rstrip()


def larger(bundle: Bundle) -> tuple[int, ...]:
    """The larger input sizes to try: 8/7 and 10/7 of the model's own (256 and 320 for 224)."""
    size = bundle.card.input.size
    return size * 8 // 7, size * 10 // 7


def foreground_layers(bundle: Bundle) -> tuple[str, ...]:
    """The last layer with a finer map, if there is one, and the last."""
    return fused_layers({layer.name: (layer.height, layer.width) for layer in bundle.card.layers})


def raw_maps(photos: Photos, engine: Engine) -> tuple[Raw, Raw]:
    """All maps that the trials need, with foreground maps by the directions of either half."""
    size = photos.bundle.card.input.size
    image = photos.squashed(size)
    shared = _class_maps(photos, engine, image, "photos")
    for key, back in _class_maps(photos, engine, image[:, :, ::-1], MIRRORED).items():
        shared[f"{key} {MIRRORED}"] = _mean(shared[key], back)
    plain = _forward(photos, engine, size)
    directions = _directions(photos, plain, image)
    _, foreground = _project(photos, plain, image, directions)
    _, mirrored = _project(photos, plain, image[:, :, ::-1], directions)
    for maps, back_maps in zip(foreground, mirrored, strict=True):
        maps |= {f"{key} {MIRRORED}": _mean(maps[key], back) for key, back in back_maps.items()}
    del image
    for side in larger(photos.bundle):
        image, enlarged = photos.squashed(side), _forward(photos, engine, side)
        cam, of_size = _project(photos, enlarged, image, _directions(photos, enlarged, image))
        shared[name(Method.CAM, photos.bundle.card.layer_names[-1], str(side))] = cam
        for maps, more in zip(foreground, of_size, strict=True):
            maps |= {f"{key} {side}": value for key, value in more.items()}
    first, second = foreground
    return shared | first, shared | second


def _mean(
    maps: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The mean of the maps `[N, h, w]` of photos and of their mirror images, mirrored back."""
    return (maps + mirrored[:, :, ::-1]) / np.float32(2)


def _batches(count: int, title: str) -> Iterator[slice]:
    steps = range(0, count, BATCH)
    for begin in bar(title, steps, unit="batch"):
        yield slice(begin, begin + BATCH)


def _class_maps(photos: Photos, engine: Engine, image: npt.NDArray[np.uint8], title: str) -> Raw:
    """The maps of every method, for the true class."""
    card = photos.bundle.card
    outputs_by_name = {
        name(method, layer): layer_output(card, method, layer)
        for method in card.methods
        for layer in (card.layer_names[-1:] if method is Method.CAM else card.layer_names[-6:])
    }
    batches_by_name: dict[str, list[npt.NDArray[np.float32]]] = {key: [] for key in outputs_by_name}
    for batch in _batches(len(image), f"maps, {title}"):
        inputs = Batch.of(np.ascontiguousarray(image[batch]), photos.labels[batch])
        outputs = engine.run(Cut.EXPLAIN_DEEP, inputs)
        for key, output in outputs_by_name.items():
            batches_by_name[key].append(outputs[output])
    return {key: np.concatenate(batches) for key, batches in batches_by_name.items()}


def _forward(photos: Photos, engine: Engine, size: int) -> Forward:
    layers = foreground_layers(photos.bundle)
    precision = engine.info.precision
    return Forward(photos.bundle, layers, size, precision=precision, threads=photos.threads)


def _activations(
    photos: Photos, forward: Forward, image: npt.NDArray[np.uint8], title: str
) -> Iterator[tuple[npt.NDArray[np.float32], Activations]]:
    """CAM and activations, batch by batch."""
    for batch in _batches(len(image), f"{title}, {image.shape[1]} px"):
        yield forward.run(np.ascontiguousarray(image[batch]), photos.labels[batch])


def _directions(
    photos: Photos, forward: Forward, image: npt.NDArray[np.uint8]
) -> tuple[Directions, Directions]:
    run = _activations(photos, forward, image, "directions")
    boxes = [example.boxes for example in photos.examples]
    return find_directions((maps for _, maps in run), photos.half, boxes)


def _project(
    photos: Photos,
    forward: Forward,
    image: npt.NDArray[np.uint8],
    directions: tuple[Directions, Directions],
) -> tuple[npt.NDArray[np.float32], tuple[Raw, Raw]]:
    """CAM, and the foreground's maps by the directions of each half."""
    cams: list[npt.NDArray[np.float32]] = []
    batches_by_name: tuple[dict[str, list[npt.NDArray[np.float32]]], ...] = ({}, {})
    for cam, activations in _activations(photos, forward, image, "foreground"):
        cams.append(cam)
        for maps, of_half in zip(batches_by_name, directions, strict=True):
            for (rule, layer), projection in of_half.items():
                projected = _projected(activations[layer], projection)
                maps.setdefault(name(rule, layer), []).append(projected)
    first, second = (
        {key: np.concatenate(batches) for key, batches in maps.items()} for maps in batches_by_name
    )
    return np.concatenate(cams), (first, second)


def _projected(
    activations: npt.NDArray[np.float32], projection: Projection
) -> npt.NDArray[np.float32]:
    """The foreground's raw maps `[n, h, w]` of activations `[n, h, w, C]`, as in the graph."""
    maps: npt.NDArray[np.float32] = activations @ projection.direction
    return maps - np.float32(projection.offset)
