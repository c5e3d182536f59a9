"""Over pictures whose boxes are known, with a model whose weights are random."""

from collections.abc import Iterator

import numpy as np
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Method
from app.engines import Engine
from tests.training.pictures import dataset
from training.data import Example
from training.errors import DataError
from training.evaluation import THRESHOLDS, calibrate, evaluate, layer_sets
from training.metrics import CONSTANT_BOX

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


def test_calibrated_threshold_has_the_best_mean_iou(small_bundle: Bundle, engine: Engine) -> None:
    thresholds = calibrate(small_bundle, engine, EXAMPLES)

    means = [np.mean(_gradcam_ious(small_bundle, engine, threshold)) for threshold in THRESHOLDS]
    chosen = means[THRESHOLDS.index(thresholds[Method.GRADCAM]["last"])]
    assert chosen == pytest.approx(max(means), abs=1e-9)
    assert min(means) < max(means)
    for method in Method:
        assert set(thresholds[method]) == set(layer_sets(small_bundle.card, method))


def test_layer_sets(small_bundle: Bundle) -> None:
    assert layer_sets(small_bundle.card, Method.CAM) == {"last": ["last_out"]}
    assert layer_sets(small_bundle.card, Method.LAYERCAM) == {
        "last": ["last_out"],
        "last6": ["early_out", "middle_out", "last_out"],
        "early_out": ["early_out"],
        "middle_out": ["middle_out"],
    }
    other = small_bundle.card.model_copy(update={"head": "other"})
    assert layer_sets(other, Method.CAM) == {}


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


def test_without_boxes_there_is_accuracy_but_nothing_to_calibrate_on(
    small_bundle: Bundle, engine: Engine
) -> None:
    plain = [Example(each.name, each.data, each.label, ()) for each in EXAMPLES[:2]]

    figures = evaluate(small_bundle, engine, plain)

    assert (figures["photos"], figures["photos_with_boxes"]) == (2, 0)
    assert figures["top5"] == 1.0
    assert figures["mean_iou"] == figures["mean_iou_baselines"] == {}

    with pytest.raises(DataError, match="box"):
        calibrate(small_bundle, engine, plain)


def test_empty_split_is_an_error(small_bundle: Bundle, engine: Engine) -> None:
    with pytest.raises(DataError, match="no photos"):
        evaluate(small_bundle, engine, [])
