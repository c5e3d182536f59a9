"""Which layer sets there are, and that photos come in order and in one piece."""

import os

import numpy as np
import numpy.typing as npt
import pytest

from app import heatmaps, images
from app.bundle import Bundle, Fused, Layer, Method, Rule
from app.engines import Cut, Engine
from app.evidence import MethodAtLayers
from tests.training.pictures import dataset
from training.evaluation import inference
from training.evaluation.inference import Explained, explain, layer_sets

EXAMPLES = dataset(train=11).train


def test_layer_sets(small_bundle: Bundle) -> None:
    sets = layer_sets(small_bundle.card)

    assert [layers for layers in sets if layers.method is Method.CAM] == [
        MethodAtLayers(Method.CAM, "last", ("last_out",))
    ]
    assert {
        layers.name: layers.layer_names for layers in sets if layers.method is Method.LAYERCAM
    } == {
        "last": ("last_out",),
        "last6": ("early_out", "middle_out", "last_out"),
        "early_out": ("early_out",),
        "middle_out": ("middle_out",),
    }
    without_cam = small_bundle.card.model_copy(update={"head": "other"})
    assert {layers.method for layers in layer_sets(without_cam)} == set(Method) - {Method.CAM}


def test_one_layer_is_one_set(small_bundle: Bundle) -> None:
    card = small_bundle.card.model_copy(
        update={"layers": (Layer(name="only", height=4, width=4),), "head": "other"}
    )

    assert layer_sets(card) == [
        MethodAtLayers(method, "last", ("only",)) for method in Method if method is not Method.CAM
    ]


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
        xmin, ymin, xmax, ymax = row.example.boxes[0]
        assert row.boxes == [pytest.approx((60 * xmin, 48 * ymin, 60 * xmax, 48 * ymax))]
        assert row.boxes_in_input == [pytest.approx((32 * xmin, 32 * ymin, 32 * xmax, 32 * ymax))]


def _box_in_process(row: Explained) -> tuple[int, str, images.Box | None]:
    layers = MethodAtLayers.of(row.card, Method.GRADCAM, row.card.layer_names[-1:])
    return os.getpid(), row.example.name, row.evidence(layers).box(row.width, row.height)


def test_many_photos_are_worked_on_in_other_processes(
    small_bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[tuple[int, str, images.Box | None]]:
        card = small_bundle.card
        return list(
            explain(card, engine, EXAMPLES, Cut.EXPLAIN, _box_in_process, "test", processes=True)
        )

    few = run()
    monkeypatch.setattr(inference, "PROCESS_THRESHOLD", len(EXAMPLES))
    many = run()

    assert {process for process, _, _ in few} == {os.getpid()}
    assert os.getpid() not in {process for process, _, _ in many}
    assert [row[1:] for row in many] == [row[1:] for row in few]
    assert any(box is not None for _, _, box in many)


def test_likeliest_class_is_explained_with_top1(small_bundle: Bundle, engine: Engine) -> None:
    rows = list(
        explain(
            small_bundle.card, engine, EXAMPLES, Cut.EXPLAIN, lambda row: row, "test", top1=True
        )
    )

    for row in rows:
        assert row.outputs["target_index"] == row.outputs["probabilities"].argmax()
    assert any(row.outputs["target_index"] != row.example.label for row in rows)


def test_evidence_is_the_service_s_at_the_model_s_input_size(
    small_bundle: Bundle, engine: Engine
) -> None:
    fused = {Method.CAM: {"last": Fused(foreground=0.25, threshold=0.5)}}
    card = small_bundle.card.model_copy(update={"fused": fused})
    last = MethodAtLayers(Method.CAM, "last", ("last_out",))
    (row,) = explain(card, engine, EXAMPLES[:1], Cut.EXPLAIN, lambda row: row, "test")

    raw = np.random.default_rng(0).normal(0, 1, (4, 4)).astype(np.float32)
    row.outputs["cam"] = raw
    plain, both = row.evidence(last, Rule.HEATMAP), row.evidence(last)
    expected = heatmaps.resize((raw - raw.min()) / (raw.max() - raw.min()), 32, 32)
    assert plain.values is not None
    assert both.searched is not None
    np.testing.assert_allclose(plain.values, expected, atol=1e-6)
    np.testing.assert_allclose(both.searched, 0.75 * expected + 0.25 * row.foreground, atol=1e-6)
    assert (plain.rule, both.rule, both.threshold) == (Rule.HEATMAP, Rule.FUSED, 0.5)
    row.outputs["cam"] = np.zeros((4, 4), np.float32)
    assert row.evidence(last).values is None


def test_foreground_is_fused_of_its_layers(small_bundle: Bundle, engine: Engine) -> None:
    (row,) = explain(small_bundle.card, engine, EXAMPLES[:1], Cut.EXPLAIN, lambda row: row, "test")
    rng = np.random.default_rng(1)
    fine, coarse = rng.random((8, 8), np.float32), rng.random((4, 4), np.float32)
    row.outputs.update({"foreground_early_out": fine, "foreground": coarse})

    def scaled(raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = (raw - raw.min()) / (raw.max() - raw.min())
        return values

    mean = (scaled(fine) + heatmaps.resize(scaled(coarse), 8, 8)) / 2
    expected = heatmaps.resize(mean / mean.max(), 32, 32)
    np.testing.assert_allclose(row.foreground, expected, atol=1e-6)
