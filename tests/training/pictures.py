"""Made photos of two "breeds" that differ by colour, each with a known box."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.bundle import Label
from training.data.dataset import Dataset, Example

LABELS = (
    Label(index=0, synset="n00000001", name="red dog"),
    Label(index=1, synset="n00000002", name="blue dog"),
)


def photo(label: int, seed: int, *, width: int = 60, height: int = 48) -> Example:
    """A coloured rectangle on noise, as a PNG, with its box."""
    rng = np.random.default_rng((label, seed))
    pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    x, y = int(rng.integers(0, width // 3)), int(rng.integers(0, height // 3))
    right, bottom = x + width // 2, y + height // 2
    pixels[y:bottom, x:right] = (230, 30, 30) if label == 0 else (30, 30, 230)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    box = (x / width, y / height, right / width, bottom / height)
    return Example(f"{label}-{seed}.png", file.getvalue(), label, (box,))


def dataset(train: int = 14, held_out: int = 4) -> Dataset:
    """A data set of photos with alternating labels; validation and test have `held_out` each."""

    def split(count: int, offset: int) -> tuple[Example, ...]:
        return tuple(photo(index % 2, offset + index) for index in range(count))

    return Dataset(
        "pictures", LABELS, split(train, 0), split(held_out, 1000), split(held_out, 2000)
    )


def one_hot(examples: Sequence[Example]) -> npt.NDArray[np.float32]:
    """Targets `[N, classes]`: 1 for the photo's label, 0 for the others."""
    labels = [example.label for example in examples]
    return np.eye(max(labels) + 1, dtype=np.float32)[labels]
