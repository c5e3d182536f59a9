"""Over pictures whose boxes are known, against the loop that the definition says."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Method, ModelCard
from app.engines import Engine
from tests.training.pictures import dataset
from tests.training.pretend import Pretend
from training.calibration import THRESHOLDS, calibrate
from training.data import Example
from training.errors import DataError
from training.explanations import LayerSet, layer_sets
from training.metrics import best_iou

Array = npt.NDArray[Any]

EXAMPLES = dataset(train=11).train


@pytest.fixture(scope="module")
def engine(small_bundle: Bundle) -> Iterator[Engine]:
    engine = engines.create(small_bundle, engine="openvino", precision="float32")
    yield engine
    engine.close()


def _noise(card: ModelCard, photos: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """Maps that depend on the photo alone, whatever the batch."""
    seeds = [int(photo.sum(dtype=np.int64)) for photo in photos]
    return {
        engines.layer_output(card, method, layer.name): np.stack(
            [
                np.random.default_rng((seed, index, order))
                .normal(0.3, 1, (layer.height, layer.width))
                .astype(np.float32)
                for seed in seeds
            ]
        )
        for index, method in enumerate(card.methods)
        for order, layer in enumerate(card.layers)
    }


def test_thresholds_are_those_of_the_straight_loop(small_bundle: Bundle) -> None:
    card = small_bundle.card
    sums: dict[LayerSet, Array] = {}
    for example in EXAMPLES:
        photo = images.decode(example.read())
        size = (photo.width, photo.height)
        rows = _noise(card, images.squash(photo.pixels, 32)[None])
        true = [images.scale_box(box, (1, 1), size) for box in example.boxes]
        for layers in layer_sets(card):
            maps = [rows[engines.layer_output(card, layers.method, x)][0] for x in layers.layers]
            heatmap = heatmaps.from_maps(maps, signed=layers.method.signed)
            assert heatmap.status == "ok"
            values = heatmaps.resize(heatmap.values, 32, 32)
            row = []
            for threshold in THRESHOLDS:
                found = heatmaps.locate(values, threshold)
                assert found is not None
                row.append(best_iou(images.scale_box(found, (32, 32), size), true))
            sums[layers] = sums.get(layers, np.zeros(len(THRESHOLDS))) + np.array(row)

    expected: dict[Method, dict[str, float]] = {}
    for layers, total in sums.items():
        assert total.min() < total.max()
        expected.setdefault(layers.method, {})[layers.name] = THRESHOLDS[int(total.argmax())]
    engine = Pretend(partial(_noise, card))
    assert calibrate(small_bundle, engine, EXAMPLES) == expected
    assert len({value for found in expected.values() for value in found.values()}) > 3


def test_every_layer_set_has_a_threshold(small_bundle: Bundle, engine: Engine) -> None:
    thresholds = calibrate(small_bundle, engine, EXAMPLES[:2])

    assert {(method, name) for method in thresholds for name in thresholds[method]} == {
        (layers.method, layers.name) for layers in layer_sets(small_bundle.card)
    }


def test_without_boxes_there_is_nothing_to_calibrate_on(
    small_bundle: Bundle, engine: Engine
) -> None:
    plain = [Example(each.name, each.data, each.label, ()) for each in EXAMPLES[:2]]

    with pytest.raises(DataError, match="box"):
        calibrate(small_bundle, engine, plain)
