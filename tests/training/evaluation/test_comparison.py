"""The methods that perturb photos beside the CAM family, with a model whose evidence is known."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app import heatmaps
from app.bundle import Bundle, Method, ModelCard
from app.evidence import CURVE_THRESHOLDS
from tests.training.fake_engine import FakeEngine
from tests.training.known_maps import DOG, OWN, known_outputs
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.comparison import comparison, middle, others_threshold
from training.evaluation.inference import squashed
from training.evaluation.perturbation import Perturbation, superpixels
from training.evaluation.sampled import drawn_to_compare
from training.evaluation.schema import Compared, Comparison

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

SAMPLES = 300

BOXES: Sequence[Box] = (DOG, (4, 4, 14, 30), (12, 2, 32, 16))


def _pixels(box: Box) -> Pixels:
    """Black, and in the box a chequered pattern of white and of a grey that is not counted."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 100
    pixels[box[1] : box[3] : 2, box[0] : box[2] : 2] = 255
    pixels[box[1] + 1 : box[3] : 2, box[0] + 1 : box[2] : 2] = 255
    return pixels


def _example(box: Box) -> Example:
    file = io.BytesIO()
    Image.fromarray(_pixels(box)).save(file, "PNG")
    xmin, ymin, xmax, ymax = (edge / 32 for edge in box)
    return Example(f"{box}", file.getvalue(), 1, ((xmin, ymin, xmax, ymax),))


EXAMPLES = [_example(box) for box in BOXES]


def _seeing(card: ModelCard, share: float = 1.0) -> FakeEngine:
    """The probability of class 1 rises with the number of white pixels.

    A segment under its mean colour has none, nor has a blurred one, nor ImageNet's mean colour.
    """

    def outputs(photos: Pixels) -> dict[str, npt.NDArray[Any]]:
        white = (photos == 255).all(axis=-1).mean(axis=(1, 2), dtype=np.float64)
        probabilities = np.full((len(photos), 5), 0.05, np.float32)
        probabilities[:, 1] = 0.05 + share * 1.6 * white
        return known_outputs(card, photos, own=OWN) | {"probabilities": probabilities}

    return FakeEngine(outputs)


@pytest.fixture(scope="module")
def compared(small_bundle: Bundle) -> Comparison:
    card = small_bundle.card
    return comparison(card, _seeing(card), EXAMPLES, list(Perturbation), samples=SAMPLES, seed=0)


def _shapley_map(image: Pixels) -> npt.NDArray[np.float32]:
    """Each segment's white pixels: their part of the probability, whatever else is hidden."""
    segments = superpixels(image)
    white = (image[..., 0] == 255).ravel()
    values = np.asarray(np.bincount(segments.ravel(), weights=white))[segments]
    return np.asarray(values / values.max(), np.float32)


def test_kernelshap_by_the_straight_way(compared: Comparison) -> None:
    curves = []
    for box in BOXES:
        values = _shapley_map(_pixels(box))
        true = tuple(map(float, box))
        found = [heatmaps.locate(values, threshold) for threshold in CURVE_THRESHOLDS]
        curves.append([heatmaps.iou(each, true) if each else 0.0 for each in found])  # type: ignore[arg-type]
    table = np.array(curves)
    chosen = [
        table[photo, np.delete(table, photo, axis=0).mean(axis=0).argmax()] for photo in range(3)
    ]

    figures = compared.perturbation[Perturbation.KERNELSHAP]

    assert figures.mean_iou is not None
    assert figures.gt_known_localization is not None
    assert figures.mean_iou.value == pytest.approx(np.mean(chosen), abs=1e-4)
    assert figures.mean_iou.value > 0.6
    at_half = np.mean([iou >= 0.5 for iou in chosen])
    assert figures.gt_known_localization.value == pytest.approx(at_half, abs=1e-4)
    assert figures.threshold == CURVE_THRESHOLDS[table.mean(axis=0).argmax()]


CORNER = (125, 0, 200, 45)
"""Three eighths of a photo's width and of its height, in pixels of 200 x 120."""


def _wide(*true: Box) -> list[Example]:
    """Photos of 200 x 120, white in `CORNER`, each with another true box."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return [
        Example(f"{box}", file.getvalue(), 1, ((x0 / 200, y0 / 120, x1 / 200, y1 / 120),))
        for box in true
        for x0, y0, x1, y1 in [box]
    ]


@pytest.mark.parametrize("method", [Perturbation.KERNELSHAP, Perturbation.RISE])
def test_pointing_and_iou_are_in_pixels_of_the_photo(
    small_bundle: Bundle, method: Perturbation
) -> None:
    """Two photos have their true box around the evidence, the others at the other side.

    The tolerance of 15 pixels does not reach from the white corner to those.
    """
    card = small_bundle.card
    photos = _wide(CORNER, CORNER, (0, 75, 75, 120), (0, 0, 80, 45))

    figures = comparison(card, _seeing(card), photos, [method], samples=SAMPLES, seed=0)

    compared = figures.perturbation[method]
    assert compared.pointing_game is not None
    assert compared.pointing_game.value == 0.5
    if method is Perturbation.KERNELSHAP:
        values = _shapley_map(squashed(card, photos[0])[1])
        found = [heatmaps.locate(values, threshold) for threshold in CURVE_THRESHOLDS]
        best = max(heatmaps.iou(box, (20, 0, 32, 12)) for box in found if box)
        assert compared.mean_iou is not None
        assert best > 0.5
        assert compared.mean_iou.value == pytest.approx(best / 2, abs=1e-4)


@pytest.mark.parametrize("method", list(Perturbation))
def test_evidence_is_found_and_beats_a_box_that_sees_nothing(
    compared: Comparison, method: Perturbation
) -> None:
    figures = compared.perturbation[method]
    frame = compared.baselines.full_frame

    assert figures.blank == 0
    # The white pixels are those that count: they make the probability soonest, and take it away.
    assert figures.insertion.value > frame.insertion.value + 0.01
    assert figures.deletion.value < frame.deletion.value - 0.01
    assert figures.insertion.difference is not None
    assert figures.rank_correlation is not None
    assert -1 < figures.rank_correlation.value < 1


def test_costs_are_model_calls_and_seconds(compared: Comparison) -> None:
    within = [figures for sets in compared.methods.values() for figures in sets.values()]
    calls = {name: figures.model_calls for name, figures in compared.perturbation.items()}

    assert {figures.model_calls for figures in within} == {1}
    assert calls[Perturbation.LIME] == calls[Perturbation.RISE] == SAMPLES
    # A photo and a blank frame besides.
    assert SAMPLES < calls[Perturbation.KERNELSHAP] <= SAMPLES + 3
    assert all(figures.seconds > 0 for figures in (*within, *compared.perturbation.values()))
    assert (compared.photos, compared.samples) == (3, SAMPLES)


def test_cam_family_by_the_same_measures(compared: Comparison, small_bundle: Bundle) -> None:
    """Its boxes are the whole frame up to a threshold of 0.2, and the left half of DOG from there.

    Each photo gets that of the two which fits the others better.
    """
    gradcam = compared.methods[Method.GRADCAM]["last"]
    layercam = compared.methods[Method.LAYERCAM]["last"]

    half = np.array([heatmaps.iou((8, 8, 16, 24), box) for box in BOXES])
    frame = np.array([heatmaps.iou((0, 0, 32, 32), box) for box in BOXES])
    expected = np.where(frame.sum() - frame >= half.sum() - half, frame, half)
    assert set(expected) & set(half)
    assert set(expected) & set(frame)
    assert gradcam.mean_iou is not None
    assert gradcam.mean_iou.value == pytest.approx(expected.mean(), abs=1e-4)
    assert gradcam.threshold in (0.02, 0.22)
    assert (gradcam.rank_correlation, gradcam.similarity_blank) == (None, None)  # with itself
    assert layercam.similarity_blank == 0
    assert layercam.rank_correlation is not None
    assert layercam.structural_similarity is not None
    assert layercam.rank_correlation.value == layercam.structural_similarity.value == 1
    assert layercam.insertion == gradcam.insertion
    assert set(compared.methods) == set(small_bundle.card.methods)


def test_a_seed_gives_the_same_figures_again(small_bundle: Bundle, compared: Comparison) -> None:
    def figures(seed: int) -> dict[str, Any]:
        card = small_bundle.card
        again = comparison(
            card, _seeing(card), EXAMPLES, list(Perturbation), samples=SAMPLES, seed=seed
        )
        return _without_seconds(again)

    assert figures(0) == _without_seconds(compared)
    assert figures(1) != figures(0)


def _without_seconds(figures: Comparison) -> dict[str, Any]:
    exclude = {"__all__": {"seconds"}}
    return figures.model_dump(exclude={"perturbation": exclude, "methods": {"__all__": exclude}})


def test_a_model_that_ignores_photos_leaves_maps_blank(small_bundle: Bundle) -> None:
    card = small_bundle.card

    figures = comparison(card, _seeing(card, 0), EXAMPLES, list(Perturbation), samples=120, seed=0)

    assert len(figures.perturbation) == 3
    for blank in figures.perturbation.values():
        assert blank.blank == blank.similarity_blank == 3
        assert blank.mean_iou is not None
        assert blank.pointing_game is not None
        assert blank.mean_iou.value == blank.pointing_game.value == 0
        assert blank.rank_correlation is None  # counted apart, not as 0


def test_photos_without_boxes_have_the_other_figures(small_bundle: Bundle) -> None:
    card = small_bundle.card
    plain = [Example(photo.name, photo.data, photo.label, ()) for photo in EXAMPLES]

    figures = comparison(card, _seeing(card), plain, [Perturbation.RISE], samples=40, seed=0)

    assert list(figures.perturbation) == [Perturbation.RISE]
    rise = figures.perturbation[Perturbation.RISE]
    assert (rise.mean_iou, rise.pointing_game, rise.threshold) == (None, None, None)
    assert figures.baselines.constant_box.mean_iou is None
    assert rise.insertion.value > 0


def test_photos_with_boxes_are_compared_where_there_are_any() -> None:
    plain = [Example(f"plain {n}", EXAMPLES[0].data, 1, ()) for n in range(9)]

    two = drawn_to_compare([*plain, *EXAMPLES], 2, seed=0)

    assert len(two) == 2
    assert all(photo in EXAMPLES for photo in two)
    assert drawn_to_compare([*plain, *EXAMPLES], 50, seed=0) == EXAMPLES
    assert drawn_to_compare(plain, 50, seed=0) == plain
    # The threshold of a lone photo would come from no photo at all.
    with pytest.raises(DataError, match="two photos or more with boxes, and this split has 1"):
        drawn_to_compare([*plain, EXAMPLES[0]], 50, seed=0)
    with pytest.raises(DataError, match="two photos or more, and this split has 1"):
        drawn_to_compare(plain[:1], 50, seed=0)


def test_threshold_of_a_photo_is_the_best_for_the_others() -> None:
    curves = np.array([[0.9, 0.0, 0.2], [0.0, 0.8, 0.3], [0.1, 0.7, 0.3]])

    # Sums of the others: .1 1.5 .6; 1.0 .7 .5; .9 .8 .5.
    assert others_threshold(curves).tolist() == [1, 0, 0]
    # 0.1 + 0.2 and 0.3 are equal but for rounding: the lowest threshold counts.
    equal = np.array([[0.3, 0.1], [0.0, 0.2], [0.5, 0.5]])
    assert others_threshold(equal).tolist()[2] == 0


def test_middle_of_a_plateau() -> None:
    values = np.zeros((5, 6), np.float32)
    values[1:4, 2:5] = 1
    assert middle(values) == (3.5, 2.5)
    values[2, 3] = 0.5  # a hole in the middle: a pixel beside it
    assert middle(values) in {(3.5, 1.5), (2.5, 2.5), (4.5, 2.5), (3.5, 3.5)}
    values[4, 0] = 2
    assert middle(values) == heatmaps.peak(values) == (0.5, 4.5)


def test_figures_survive_json(compared: Comparison) -> None:
    text = compared.model_dump_json(exclude_none=True)

    assert Comparison.model_validate_json(text) == compared
    assert '"lime":' in text
    older = Comparison.model_validate_json(text.replace('"similarity_blank":0,', ""))
    assert older.perturbation[Perturbation.LIME].similarity_blank is None
    assert isinstance(compared.perturbation[Perturbation.LIME], Compared)
