"""Over pictures whose boxes are known, with a model whose weights are random."""

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app import engines, heatmaps, images
from app.bundle import Bundle, Method, ModelCard
from app.engines import Engine
from tests.training.pictures import dataset
from tests.training.pretend import Pretend
from training.data import Example
from training.errors import DataError
from training.evaluation import SHORT, evaluate
from training.metrics import CONSTANT_BOX

Array = npt.NDArray[Any]

EXAMPLES = dataset(train=11).train


@pytest.fixture(scope="module")
def engine(small_bundle: Bundle) -> Iterator[Engine]:
    engine = engines.create(small_bundle, engine="openvino", precision="float32")
    yield engine
    engine.close()


def _gradcam_ious(bundle: Bundle, engine: Engine, threshold: float) -> list[float]:
    """The same figure by the straight way: one photo, one box, no batch."""
    ious = []
    for example in EXAMPLES:
        photo = images.decode(example.read())
        rows = engine.run(
            engines.Cut.EXPLAIN,
            images.squash(photo.pixels, 32)[None],
            np.array([example.label], np.int32),
            np.array([-1], np.int32),
        )
        raw = rows["gradcam"][0]
        values = np.maximum(raw, 0) / raw.max() if raw.max() > 0 else raw
        found = heatmaps.locate(heatmaps.resize(values, 32, 32), threshold) if raw.any() else None
        true = [edge * 32 for edge in example.boxes[0]]  # squashed, as the photo was
        ious.append(heatmaps.iou(found, (true[0], true[1], true[2], true[3])) if found else 0.0)
    return ious


def test_evaluation_agrees_with_the_straight_way(small_bundle: Bundle, engine: Engine) -> None:
    figures = evaluate(small_bundle, engine, EXAMPLES)

    threshold = small_bundle.card.threshold(Method.GRADCAM, "last")
    expected = np.mean(_gradcam_ious(small_bundle, engine, threshold))
    assert figures["mean_iou"]["gradcam"]["last"] == pytest.approx(expected, abs=1e-4)
    boxes = [example.boxes[0] for example in EXAMPLES]
    constant = np.mean([heatmaps.iou(CONSTANT_BOX, box) for box in boxes])
    whole = np.mean([(box[2] - box[0]) * (box[3] - box[1]) for box in boxes])
    assert figures["mean_iou_baselines"]["constant_box"] == pytest.approx(constant, abs=1e-4)
    assert figures["mean_iou_baselines"]["full_frame"] == pytest.approx(whole, abs=1e-4)
    assert figures["photos"] == figures["photos_with_boxes"] == 11
    assert figures["top5"] == 1.0  # five classes


def test_every_figure_of_localization_by_the_straight_way(
    small_bundle: Bundle, engine: Engine
) -> None:
    figures = evaluate(small_bundle, engine, EXAMPLES)["localization"]

    threshold = small_bundle.card.threshold(Method.GRADCAM, "last")
    ious = np.array(_gradcam_ious(small_bundle, engine, threshold))
    told = figures["methods"]["gradcam"]["last"]
    assert told["gt_known_localization"]["value"] == pytest.approx(np.mean(ious >= 0.5), abs=1e-4)
    boxes = [example.boxes[0] for example in EXAMPLES]
    constant = np.array([heatmaps.iou(CONSTANT_BOX, box) for box in boxes])
    difference = told["mean_iou"]["difference"]
    assert difference == pytest.approx(np.mean(ious - constant), abs=2e-4)
    for one in told.values():
        assert one["interval"][0] <= one["value"] <= one["interval"][1]
        assert one["difference_interval"][0] <= one["difference"] <= one["difference_interval"][1]
    guess = figures["baselines"]["constant_box"]
    hits = [(constant >= level).mean() for level in (0.3, 0.5, 0.7)]
    assert guess["max_box_acc_v2"]["value"] == pytest.approx(np.mean(hits), abs=1e-4)
    assert guess["gt_known_localization"]["value"] == pytest.approx(hits[1], abs=1e-4)
    assert "difference" not in guess["mean_iou"]
    inside = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    frame = figures["baselines"]["full_frame"]
    assert frame["energy_in_box"]["value"] == pytest.approx(np.mean(inside), abs=1e-4)
    near = [  # the middle of 60 x 48 pixels, and 15 around
        max(0, x0 * 60 - 30, 30 - x1 * 60) ** 2 + max(0, y0 * 48 - 24, 24 - y1 * 48) ** 2 <= 225
        for x0, y0, x1, y1 in boxes
    ]
    assert frame["pointing_game"]["value"] == pytest.approx(np.mean(near), abs=1e-4)


def _seen(card: ModelCard, photos: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """Maps are what is white; every photo is of class 2, the surer the brighter it is."""
    probabilities = np.zeros((len(photos), 5), np.float32)
    probabilities[:, 2] = photos.reshape(len(photos), -1).mean(axis=1) / 255
    maps = (photos[..., 0] > 240).astype(np.float32)
    outputs = {
        engines.layer_output(card, method, layer): maps
        for method in card.methods
        for layer in card.layer_names
    }
    target = np.full(len(photos), 2, np.int32)
    return {**outputs, "probabilities": probabilities, "target_index": target}


def _bright(label: int, box: tuple[int, int, int, int]) -> Example:
    """A 32 x 32 photo, as the model takes it, white in its box and black around it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    xmin, ymin, xmax, ymax = (edge / 32 for edge in box)
    return Example(f"{box}", file.getvalue(), label, ((xmin, ymin, xmax, ymax),))


def test_heatmaps_that_see_just_the_box(small_bundle: Bundle) -> None:
    examples = [_bright(label, (x, 8, x + 12, 24)) for label, x in enumerate((1, 5, 14, 19))]
    seeing = Pretend(partial(_seen, small_bundle.card))

    figures = evaluate(small_bundle, seeing, examples, sample=3)

    assert figures["top1"] == 0.25
    told = figures["localization"]["methods"]["layercam"]["last6"]
    values = {name: one["value"] for name, one in told.items()}
    assert values == {
        "mean_iou": 1,
        "gt_known_localization": 1,
        "top1_localization": 0.25,
        "max_box_acc_v2": 1,
        "pointing_game": 1,
        "energy_in_box": 1,
    }
    assert told["mean_iou"]["interval"] == [1, 1]
    assert figures["breeds"]["class 2"]["top1"] == 1
    assert figures["breeds"]["class 3"]["mean_iou"]["cam"] == {"last": 1}
    assert "class 4" not in figures["breeds"]
    faithfulness = figures["faithfulness"]
    assert faithfulness["photos"] == 3
    deletion = faithfulness["methods"]["gradcam"]["last"]["deletion"]
    # Their white goes first, to the mean's grey, then the black comes up to it.
    assert deletion["difference_interval"][1] < 0
    assert deletion["value"] < faithfulness["baselines"]["full_frame"]["deletion"]["value"]
    assert faithfulness["methods"]["gradcam"]["last"]["insertion"]["difference"] > 0


def test_same_seed_same_figures(small_bundle: Bundle, engine: Engine) -> None:
    first = evaluate(small_bundle, engine, EXAMPLES[:4], sample=2, seed=7)

    assert first == evaluate(small_bundle, engine, EXAMPLES[:4], sample=2, seed=7)
    assert set(SHORT) < set(first)
    assert set(first["faithfulness"]["methods"]["layercam"]) == {"last", "last6"}


def test_accuracy_counts_photos_without_boxes_too(small_bundle: Bundle, engine: Engine) -> None:
    plain = [Example(each.name, each.data, each.label, ()) for each in EXAMPLES[:4]]

    figures = evaluate(small_bundle, engine, [*plain, *EXAMPLES[4:]])

    assert (figures["photos"], figures["photos_with_boxes"]) == (11, 7)
    hits = 0
    for example in EXAMPLES:
        row = engine.run(
            engines.Cut.PREDICT,
            images.squash(images.decode(example.read()).pixels, 32)[None],
            np.array([-1], np.int32),
            np.array([-1], np.int32),
        )
        hits += int(np.argmax(row["logits"][0])) == example.label
    assert figures["top1"] == pytest.approx(hits / 11, abs=1e-4)


def test_without_boxes_there_is_accuracy_alone(small_bundle: Bundle, engine: Engine) -> None:
    plain = [Example(each.name, each.data, each.label, ()) for each in EXAMPLES[:2]]

    figures = evaluate(small_bundle, engine, plain)

    assert (figures["photos"], figures["photos_with_boxes"]) == (2, 0)
    assert figures["top5"] == 1.0
    assert figures["mean_iou"] == figures["mean_iou_intervals"] == {}
    assert figures["localization"] == figures["mean_iou_baselines"] == {}
    assert set(figures["breeds"]["class 0"]) == {"photos", "photos_with_boxes", "top1"}


def test_empty_split_is_an_error(small_bundle: Bundle, engine: Engine) -> None:
    with pytest.raises(DataError, match="no photos"):
        evaluate(small_bundle, engine, [])
