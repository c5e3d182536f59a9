"""Which layer sets there are, and that photos come in order and in one piece."""

from collections.abc import Iterator

import numpy as np
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Method
from app.engines import Cut, Engine
from tests.training.pictures import dataset
from training.explanations import LayerSet, explain, layer_sets

EXAMPLES = dataset(train=11).train


@pytest.fixture(scope="module")
def engine(small_bundle: Bundle) -> Iterator[Engine]:
    engine = engines.create(small_bundle, engine="openvino", precision="float32")
    yield engine
    engine.close()


def test_layer_sets(small_bundle: Bundle) -> None:
    sets = layer_sets(small_bundle.card)

    assert [each for each in sets if each.method is Method.CAM] == [
        LayerSet(Method.CAM, "last", ("last_out",))
    ]
    assert {each.name: each.layers for each in sets if each.method is Method.LAYERCAM} == {
        "last": ("last_out",),
        "last6": ("early_out", "middle_out", "last_out"),
        "early_out": ("early_out",),
        "middle_out": ("middle_out",),
    }
    other = small_bundle.card.model_copy(update={"head": "other"})
    assert {each.method for each in layer_sets(other)} == set(Method) - {Method.CAM}


def test_photos_come_in_order_with_their_size_boxes_and_input(
    small_bundle: Bundle, engine: Engine
) -> None:
    card = small_bundle.card
    rows = list(explain(card, engine, EXAMPLES, Cut.EXPLAIN, lambda row: row, "test"))

    assert [row.example for row in rows] == list(EXAMPLES)
    for row in rows:
        photo = images.decode(row.example.read())
        assert (row.width, row.height) == (60, 48)
        np.testing.assert_array_equal(row.image, images.squash(photo.pixels, 32))
        assert row.outputs["target_index"] == row.example.label
        (box,) = row.boxes
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((30, 24))


def test_likeliest_class_is_explained_where_that_is_asked_for(
    small_bundle: Bundle, engine: Engine
) -> None:
    rows = list(
        explain(
            small_bundle.card, engine, EXAMPLES, Cut.EXPLAIN, lambda row: row, "test", top1=True
        )
    )

    for row in rows:
        assert row.outputs["target_index"] == row.outputs["probabilities"].argmax()
    assert any(row.outputs["target_index"] != row.example.label for row in rows)


def test_heatmap_is_the_service_s_at_the_model_s_input_size(
    small_bundle: Bundle, engine: Engine
) -> None:
    card = small_bundle.card
    last = LayerSet(Method.CAM, "last", ("last_out",))
    (row,) = explain(card, engine, EXAMPLES[:1], Cut.EXPLAIN, lambda row: row, "test")

    raw = np.random.default_rng(0).normal(0, 1, (4, 4)).astype(np.float32)
    row.outputs["cam"] = raw
    values = row.values(last)
    assert values is not None
    expected = heatmaps.resize((raw - raw.min()) / (raw.max() - raw.min()), 32, 32)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    row.outputs["cam"] = np.zeros((4, 4), np.float32)
    assert row.values(last) is None
    assert row.in_photo(None) is None
    assert row.in_photo((0.0, 8.0, 16.0, 32.0)) == (0.0, 12.0, 30.0, 48.0)
