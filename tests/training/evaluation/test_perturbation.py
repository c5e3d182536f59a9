"""LIME, KernelSHAP and RISE on models whose evidence is known."""

import subprocess
import sys
from importlib import import_module
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from app.settings import PROJECT
from training.errors import TrainingError
from training.evaluation import perturbation
from training.evaluation.faithfulness import BLANK
from training.evaluation.perturbation import (
    BATCH,
    GRID,
    SHARE,
    Perturbation,
    kernelshap,
    lime,
    load_packages,
    perturbed,
    rise,
    superpixels,
)

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIDE = 12

SEGMENTS = np.kron(np.arange(9).reshape(3, 3), np.ones((4, 4), np.intp))
"""Nine squares of 4 x 4 pixels, `[12, 12]`."""

WEIGHTS = np.array([0.02, 0.3, -0.1, 0, 0.05, 0.11, 0.01, -0.03, 0.2])
"""What each square adds to the probability of class 1 while it is visible."""

IMAGE = np.random.default_rng(5).integers(130, 256, (SIDE, SIDE, 3), dtype=np.uint8)
"""Noise that has neither ImageNet's mean colour nor that of its square anywhere."""


def _linear(frames: Pixels) -> Floats:
    """Class 1: 0.3 and the weights of the squares that are as in the photo; class 0: the rest."""
    assert frames.dtype == np.uint8
    assert len(frames) <= BATCH
    same = (frames == IMAGE).all(axis=-1)  # [n, 12, 12]
    visible = np.stack([same[:, segment == SEGMENTS].all(axis=1) for segment in range(9)], axis=1)
    score = 0.3 + visible @ WEIGHTS
    return np.stack([1 - score, score], axis=1)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_kernelshap_of_a_linear_model_is_its_weights() -> None:
    other, values = kernelshap(_linear, IMAGE, SEGMENTS, 200, _rng())

    np.testing.assert_allclose(values, WEIGHTS, atol=1e-6)
    np.testing.assert_allclose(other, -WEIGHTS, atol=1e-6)


def test_kernelshap_shares_what_two_segments_add_together() -> None:
    """Shapley values of `0.4 a + 0.5 b c`: 0.4, and half of 0.5 each."""

    def together(frames: Pixels) -> Floats:
        visible = (frames == IMAGE).all(axis=-1)[:, ::4, ::4].reshape(-1, 9)
        score = 0.4 * visible[:, 0] + 0.5 * (visible[:, 1] & visible[:, 2])
        return np.stack([1 - score, score], axis=1)

    _, values = kernelshap(together, IMAGE, SEGMENTS, 600, _rng())  # of all 510 coalitions

    np.testing.assert_allclose(values, [0.4, 0.25, 0.25, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_lime_ranks_segments_by_their_weights() -> None:
    other, weights = lime(_linear, IMAGE, SEGMENTS, 400, _rng())

    assert np.argsort(weights).tolist() == np.argsort(WEIGHTS).tolist()
    # A ridge penalty of 1 beside the photos' weights shrinks them, and changes no sign.
    assert weights[1] == pytest.approx(WEIGHTS[1], rel=0.2)
    np.testing.assert_allclose(weights, -other, atol=1e-9)


def test_lime_hides_a_segment_under_its_own_mean_colour() -> None:
    seen = []

    def keep(frames: Pixels) -> Floats:
        seen.append(frames)
        return _linear(frames)

    lime(keep, IMAGE, SEGMENTS, 70, _rng())

    frames = np.concatenate(seen)
    assert len(frames) == 70
    np.testing.assert_array_equal(frames[0], IMAGE)
    mean = IMAGE[:4, :4].reshape(-1, 3).mean(axis=0).astype(np.uint8)
    hidden = [frame for frame in frames if (frame[:4, :4] == mean).all()]
    visible = [frame for frame in frames if (frame[:4, :4] == IMAGE[:4, :4]).all()]
    assert len(hidden) + len(visible) == 70
    assert min(len(hidden), len(visible)) > 20


def _at_one_pixel(frames: Pixels) -> Floats:
    """How visible the pixel in row 20, column 24 is: of black on ImageNet's mean colour."""
    score = 1 - frames[:, 20, 24, 0] / BLANK[0]
    return np.stack([1 - score, score], axis=1)


def _shares(position: int, cell: int) -> Floats:
    """How much each of the seven grid cells adds to a pixel of an enlarged axis; `[7]`."""
    # 7 cells lie on 8 * cell pixels, with their middles at half-integers; edges are repeated.
    middle = (position + 0.5) * GRID / ((GRID + 1) * cell) - 0.5
    shares = np.zeros(GRID)
    low = int(np.floor(middle))
    for index, share in ((low, 1 - (middle - low)), (low + 1, middle - low)):
        shares[min(max(index, 0), GRID - 1)] += share
    return shares


def test_rise_converges_to_the_masked_expectation() -> None:
    """`S(x) = E[M(c) M(x)] / p` for a model that sees the pixel c alone.

    Cells are independent, so with w the shares of cells in a pixel,
    `E[M(c) M(x)] = p^2 + p (1 - p) * (w_c . w_x)`, averaged over where masks are cropped.
    """
    size, cell = 35, 5
    image = np.zeros((size, size, 3), np.uint8)

    other, values = rise(_at_one_pixel, image, 20000, _rng())

    rows = np.array([[_shares(i + shift, cell) for i in range(size)] for shift in range(cell)])
    # [shifts, size, 7] . [shifts, 7]: how many cells each row or column has in common with c's.
    down = np.einsum("sic,sc->si", rows, rows[:, 20]).mean(axis=0)
    across = np.einsum("sic,sc->si", rows, rows[:, 24]).mean(axis=0)
    expected = SHARE + (1 - SHARE) * np.outer(down, across)
    # Hundred-odd steps of a byte and 20,000 masks leave errors of under a hundredth.
    np.testing.assert_allclose(values, expected, atol=0.02)
    assert np.unravel_index(values.argmax(), values.shape) in set(
        product((19, 20, 21), (23, 24, 25))
    )
    # The classes add up to 1 under each mask: to E[M] / p.
    np.testing.assert_allclose(values + other, 1, atol=0.02)


@pytest.mark.parametrize("method", list(Perturbation))
def test_a_seed_gives_the_same_map_again(method: Perturbation) -> None:
    noise = _rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    def score(frames: Pixels) -> Floats:
        means = frames[:, 8:16, 8:20].mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 255
        return np.concatenate([means, 1 - means, means**2], axis=1)

    before = str(np.random.get_state())  # noqa: NPY002
    first, again, other = (
        perturbed(method, score, noise, samples=90, rng=_rng(seed)) for seed in (3, 3, 4)
    )

    assert first.shape == (3, 32, 32)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert str(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("method", list(Perturbation))
def test_an_interrupt_passes_and_leaves_all_as_it_was(method: Perturbation) -> None:
    frames_seen = 0

    def score(frames: Pixels) -> Floats:
        nonlocal frames_seen
        frames_seen += len(frames)
        if frames_seen > BATCH:
            raise KeyboardInterrupt
        return np.full((len(frames), 2), 0.5)

    noise = _rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    before, stderr = str(np.random.get_state()), sys.stderr  # noqa: NPY002

    with pytest.raises(KeyboardInterrupt):
        perturbed(method, score, noise, samples=300, rng=_rng())

    assert str(np.random.get_state()) == before  # noqa: NPY002
    assert sys.stderr is stderr


@pytest.mark.parametrize("method", list(Perturbation))
def test_rounding_is_no_evidence(method: Perturbation) -> None:
    noise = _rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    def score(frames: Pixels) -> Floats:
        faint = frames[:, :16].mean(axis=(1, 2, 3), dtype=np.float64) / 1e6
        return np.stack([np.full(len(frames), 0.05, np.float32), faint], axis=1)

    none, faint = perturbed(method, score, noise, samples=150, rng=_rng())

    assert not none.any()
    assert faint.any()  # of a class with little probability, what varies with the photo is


def test_superpixels_are_numbered_from_zero_and_follow_edges() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255

    segments = superpixels(image)

    assert segments.shape == (64, 64)
    assert np.unique(segments).tolist() == list(range(segments.max() + 1))
    assert 25 <= segments.max() + 1 <= 75
    # Sigma 3 blurs the edge: at four pixels from it, no segment is on both sides.
    assert not set(segments[:, :28].ravel()) & set(segments[:, 36:].ravel())


def test_missing_packages_are_named_with_the_way_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_packages(list(Perturbation))

    def without_shap(name: str) -> None:
        if name == "shap":
            raise ImportError("libllvm is missing")
        import_module(name)

    monkeypatch.setattr(perturbation, "import_module", without_shap)

    load_packages([Perturbation.LIME, Perturbation.RISE])
    message = r"kernelshap needs .*\(libllvm is missing\).* requirements/perturbation\.txt"
    with pytest.raises(TrainingError, match=message):
        load_packages([Perturbation.RISE, Perturbation.KERNELSHAP])


def test_packages_are_not_imported_unless_they_run() -> None:
    modules = "app.service, training.cli, training.evaluation.evaluate, training.report.page"
    check = (
        f"import {modules}, sys; print({{'lime', 'shap', 'skimage', 'numba'}} & set(sys.modules))"
    )

    run = subprocess.run(
        [sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == "set()"
