"""Heatmaps from perturbed photos: LIME, KernelSHAP and RISE, which see a model from outside.

photo [S, S, 3]  --superpixels-->  segments [S, S]  --lime, kernelshap-->  [classes, segments]
photo [S, S, 3]  --rise-->  [classes, S, S]

LIME and KernelSHAP come from the packages `lime` and `shap`, which the extra `perturbation`
installs. They are imported when they run, and nowhere else in the project.
"""

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from enum import StrEnum
from importlib import import_module

import cv2
import numpy as np
import numpy.typing as npt

from app.engines import BATCH_SIZES
from training.errors import TrainingError
from training.evaluation.faithfulness import BLANK

__all__ = [
    "BATCH",
    "SAMPLES",
    "Perturbation",
    "kernelshap",
    "lime",
    "load_packages",
    "perturbed",
    "rise",
    "superpixels",
]

Pixels = npt.NDArray[np.uint8]
Segments = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Predict = Callable[[Pixels], npt.NDArray[np.floating]]
"""From uint8 RGB `[N, S, S, 3]`, N up to `BATCH`, to the probabilities of C classes, `[N, C]`."""

BATCH = max(BATCH_SIZES)
"""Perturbed photos that the model runs on at once."""

SAMPLES = 1000
"""Perturbed photos for each heatmap.

The default of LIME's image explainer, and what SHAP's own example for ImageNet photos takes. RISE's
authors draw 4,000 for VGG16 and 8,000 for ResNet50.
"""

SEGMENTS = 50
"""Superpixels that are asked for, as in SHAP's example; SLIC makes about as many."""

GRID = 7
"""Cells of RISE's random grids, in each direction, as in the paper."""

SHARE = 0.5
"""Probability that a cell of RISE's grids stays visible, as in the paper."""

_NOISE = 1e-6
"""Share of a class's greatest probability that is rounding in float32.

Below it, a segment's weight and the spread of RISE's probabilities are no evidence.
"""


class Perturbation(StrEnum):
    """A method that compares predictions for perturbed photos."""

    LIME = "lime"
    KERNELSHAP = "kernelshap"
    RISE = "rise"

    @property
    def modules(self) -> tuple[str, ...]:
        """Those of the extra `perturbation` that it imports."""
        own = {Perturbation.LIME: "lime.lime_image", Perturbation.KERNELSHAP: "shap"}
        return (own[self], "skimage.segmentation") if self in own else ()


def load_packages(methods: Sequence[Perturbation]) -> None:
    """Import what the methods need, which takes seconds.

    Raises:
        TrainingError: a package is missing or broken; the message says how to install it.
    """
    for method in methods:
        try:
            with _quiet():
                for module in method.modules:
                    import_module(module)
        except ImportError as error:
            raise TrainingError(
                f"--perturbation {method.value} needs the extra `perturbation`, which cannot be "
                f"imported ({error}): run `make .venv/.perturbation`, or pip install -r "
                "requirements/perturbation.txt."
            ) from error


def perturbed(
    method: Perturbation,
    predict: Predict,
    image: Pixels,
    *,
    samples: int,
    rng: np.random.Generator,
) -> Floats:
    """Raw maps of each class by one of the methods.

    Args:
        method: LIME, KernelSHAP or RISE.
        predict: the model.
        image: its input, uint8 RGB `[S, S, 3]`.
        samples: perturbed photos.
        rng: draws them.

    Returns:
        `[C, S, S]`, for the classes of `predict`; 0 for a class that does not depend on the photo.
    """
    least: Floats | float = np.inf  # of each class's probabilities, [C]
    greatest: Floats | float = 0.0

    def watched(frames: Pixels) -> npt.NDArray[np.floating]:
        nonlocal least, greatest
        scores = predict(frames)
        least = np.minimum(least, scores.min(axis=0))
        greatest = np.maximum(greatest, scores.max(axis=0))
        return scores

    if method is Perturbation.RISE:
        values = rise(watched, image, samples, rng)  # [C, S, S]
        # Equal weights leave the mean of the masks, which is even but for the draw.
        values[np.subtract(greatest, least) < _NOISE * np.asarray(greatest)] = 0
        return values
    segments = superpixels(image)
    explain = lime if method is Perturbation.LIME else kernelshap
    weights = explain(watched, image, segments, samples, rng)  # [C, M]
    # Of a class that does not depend on the photo, regressions leave rounding, not evidence.
    weights[np.abs(weights) < _NOISE * np.asarray(greatest)[:, None]] = 0
    return weights[:, segments]


def superpixels(image: Pixels) -> Segments:
    """The regions that LIME and KernelSHAP show and hide, numbered from 0.

    SLIC (Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, 2012),
    with the settings of SHAP's example for ImageNet photos: 50 segments, compactness 30, sigma 3.

    Args:
        image: uint8 RGB `[S, S, 3]`.

    Returns:
        The segment of each pixel, `[S, S]`.
    """
    from skimage.segmentation import slic

    labels = slic(image, n_segments=SEGMENTS, compactness=30, sigma=3)
    _, numbers = np.unique(labels, return_inverse=True)
    return np.asarray(numbers, np.intp).reshape(labels.shape)


def lime(
    predict: Predict, image: Pixels, segments: Segments, samples: int, rng: np.random.Generator
) -> Floats:
    """LIME's weights of segments (Ribeiro et al., "Why should I trust you?", 2016).

    Each segment is hidden with a probability of one half. A ridge regression, in which photos
    count the more the fewer of their segments are hidden, explains the probability by the visible
    segments. All is as the package does it by default, but for the segments: a hidden segment has
    its own mean colour, and the kernel is `exp(-d^2 / (2 * 0.25^2))` for a cosine distance d.

    Args:
        predict: the model.
        image: its input, uint8 RGB `[S, S, 3]`.
        segments: the segment of each pixel, `[S, S]`; M of them, from 0.
        samples: perturbed photos, the photo itself among them.
        rng: draws them.

    Returns:
        `[C, M]`.
    """
    with _quiet():
        from lime import lime_image

        explainer = lime_image.LimeImageExplainer(random_state=_seed(rng), verbose=False)
        explanation = explainer.explain_instance(
            image,
            predict,
            top_labels=sys.maxsize,  # every class
            num_samples=samples,
            batch_size=BATCH,
            segmentation_fn=lambda _: segments,
            random_seed=0,  # of the package's own segmentation, which is not used
        )
    weights = np.zeros((len(explanation.local_exp), segments.max() + 1))
    for label, pairs in explanation.local_exp.items():
        for segment, weight in pairs:
            weights[label, segment] = weight
    return weights


def kernelshap(
    predict: Predict, image: Pixels, segments: Segments, samples: int, rng: np.random.Generator
) -> Floats:
    """Shapley values of segments by KernelSHAP (Lundberg and Lee, A unified approach, 2017).

    They add up to the photo's probability less that of a blank frame. A hidden segment has
    ImageNet's mean colour. The regression is over all segments: the package's default would keep
    ten and set the others to 0.

    Args:
        predict: the model.
        image: its input, uint8 RGB `[S, S, 3]`.
        segments: the segment of each pixel, `[S, S]`; M of them, from 0.
        samples: perturbed photos; for few segments there are `2^M - 2` at most.
        rng: draws them.

    Returns:
        `[C, M]`.
    """
    count = int(segments.max()) + 1

    def of_visible(visible: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """From 1 for a visible segment and 0 for a hidden one, `[N, M]`, to `[N, C]`."""
        parts = np.split(visible > 0, range(BATCH, len(visible), BATCH))
        blank = np.array(BLANK, np.uint8)
        # [n, M] at [S, S] -> [n, S, S, 1], against the image [S, S, 3].
        return np.concatenate(
            [predict(np.where(part[:, segments][..., None], image, blank)) for part in parts]
        )

    with _quiet():
        import shap

        with _global_seed(rng):
            explainer = shap.KernelExplainer(of_visible, np.zeros((1, count)))
            values = explainer.shap_values(
                np.ones((1, count)), nsamples=samples, l1_reg=False, silent=True
            )
    by_segment: Floats = np.asarray(values, np.float64)[0]  # [1, M, C] -> [M, C]
    return by_segment.T


def rise(predict: Predict, image: Pixels, samples: int, rng: np.random.Generator) -> Floats:
    """RISE's importance of pixels (Petsiuk et al., RISE, 2018).

    With f the probability, M a random mask and p the share that it leaves visible:

        S(pixel) = 1 / (p N) * sum over N masks of f(M * image) M(pixel)

    A mask is a grid of 7 x 7 cells, each visible with p = 0.5, enlarged bilinearly to 8 x 8 cells
    and cropped to S x S at random. What is hidden fades to ImageNet's mean colour, which is zero
    once an input is normalised as theirs is.

    Args:
        predict: the model.
        image: its input, uint8 RGB `[S, S, 3]`.
        samples: masks, N.
        rng: draws them.

    Returns:
        `[C, S, S]`.
    """
    blank = np.array(BLANK, np.float32)
    offset = image - blank  # float32 [S, S, 3]
    total: Floats | float = 0.0
    for begin in range(0, samples, BATCH):
        masks = _masks(min(BATCH, samples - begin), len(image), rng)
        frames = np.rint(blank + masks[..., None] * offset).astype(np.uint8)
        scores = np.asarray(predict(frames), np.float64)
        total = total + np.tensordot(scores.T, masks, 1)  # [C, n] x [n, S, S] -> [C, S, S]
    return np.asarray(total, np.float64) / (samples * SHARE)


def _masks(count: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """RISE's random masks, 0..1, `[count, size, size]`."""
    cell = -(-size // GRID)  # rounded up
    side = (GRID + 1) * cell
    visible = (rng.random((count, GRID, GRID)) < SHARE).astype(np.float32)
    masks = np.empty((count, size, size), np.float32)
    for mask, grid, (y, x) in zip(masks, visible, rng.integers(0, cell, (count, 2)), strict=True):
        mask[:] = cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR)[
            y : y + size, x : x + size
        ]
    return masks


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


@contextmanager
def _global_seed(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global generator, which is all that SHAP draws from; restore it afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(_seed(rng))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the packages' progress bars and deprecation warnings to themselves."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
