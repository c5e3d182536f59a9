"""Over pictures whose boxes are known, against the loop that the definition says."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Foreground, Fused, Method, ModelCard
from app.engines import Engine
from app.evidence import MethodAtLayers
from tests.training.fake_engine import FakeEngine
from tests.training.pictures import dataset
from training.calibration.boxes import THRESHOLDS, WEIGHTS, BoxRules, calibrate
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.inference import layer_sets
from training.evaluation.metrics import best_iou

Array = npt.NDArray[Any]

EXAMPLES = dataset(train=11).train


def _noise(card: ModelCard, photos: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """Maps that depend on the photo alone, whatever the batch."""
    seeds = [int(photo.sum(dtype=np.int64)) for photo in photos]
    return {
        engines.layer_output(card, name, layer.name): np.stack(
            [
                np.random.default_rng((seed, index, order))
                .normal(0.3, 1, (layer.height, layer.width))
                .astype(np.float32)
                for seed in seeds
            ]
        )
        for index, name in enumerate([*card.methods, "foreground"])
        for order, layer in enumerate(card.layers)
    }


def _heatmap(rows: dict[str, Array], names: list[str], *, signed: bool) -> Array:
    """At the model's input size, of the first photo."""
    heatmap = heatmaps.from_maps([rows[name][0] for name in names], signed=signed)
    assert heatmap.status == "ok"
    return heatmaps.resize(heatmap.values, 32, 32)


def _sums(card: ModelCard) -> dict[tuple[MethodAtLayers, float], Array]:
    """IoUs at each threshold, summed over the photos, by layer set and the foreground's weight."""
    sums: dict[tuple[MethodAtLayers, float], Array] = {}
    for example in EXAMPLES:
        photo = images.decode(example.read())
        size = (photo.width, photo.height)
        rows = _noise(card, images.squash(photo.pixels, 32)[None])
        true = [images.scale_box(box, (1, 1), size) for box in example.boxes]
        foreground = _heatmap(
            rows, ["foreground_early_out", "foreground"], signed=card.foreground.rule != "boxes"
        )
        for layers in layer_sets(card):
            names = [engines.layer_output(card, layers.method, x) for x in layers.layer_names]
            values = _heatmap(rows, names, signed=layers.method is Method.CAM)
            for weight in (0.0, *WEIGHTS):
                mixed = ((1 - weight) * values + weight * foreground).astype(np.float32)
                ious = []
                for threshold in THRESHOLDS:
                    box = heatmaps.locate(mixed, threshold)
                    assert box is not None
                    ious.append(best_iou(images.scale_box(box, (32, 32), size), true))
                total = sums.setdefault((layers, weight), np.zeros(len(THRESHOLDS)))
                total += ious
    return sums


@pytest.mark.parametrize("rule", ["boxes", "ddt"])
def test_rules_are_those_of_the_straight_loop(small_bundle: Bundle, rule: Any) -> None:
    fused_layers = small_bundle.card.foreground.layers
    foreground = Foreground(rule=rule, photos=200, layers=fused_layers)
    card = small_bundle.card.replace(foreground=foreground)
    sums = _sums(card)

    thresholds: dict[Method, dict[str, float]] = {}
    fused: dict[Method, dict[str, Fused]] = {}
    left_out = 0
    for layers in layer_sets(card):
        plain = sums[layers, 0.0]
        assert plain.min() < plain.max()
        thresholds.setdefault(layers.method, {})[layers.name] = THRESHOLDS[int(plain.argmax())]
        if layers.name not in ("last", "last6"):
            continue
        weight = max(WEIGHTS, key=lambda weight: float(sums[layers, weight].max()))
        if sums[layers, weight].max() > plain.max():
            best = THRESHOLDS[int(sums[layers, weight].argmax())]
            fused.setdefault(layers.method, {})[layers.name] = Fused(
                foreground=weight, threshold=best
            )
        else:
            left_out += 1
    rules = calibrate(Bundle(small_bundle.path, card), FakeEngine(partial(_noise, card)), EXAMPLES)
    assert rules == BoxRules(thresholds, fused)
    assert len({value for by_set in thresholds.values() for value in by_set.values()}) > 3
    assert left_out or rule == "boxes"  # of these maps, ddt's do not help everywhere
    assert len({fusion.foreground for by_set in fused.values() for fusion in by_set.values()}) > 1


def test_no_weight_is_kept_of_a_foreground_that_shows_nothing(small_bundle: Bundle) -> None:
    """It changes no box: no weight is better than the plain rule."""

    def outputs(photos: npt.NDArray[np.uint8]) -> dict[str, Array]:
        rows = _noise(small_bundle.card, photos)
        return {k: v * 0 if k.startswith("foreground") else v for k, v in rows.items()}

    rules = calibrate(small_bundle, FakeEngine(outputs), EXAMPLES[:3])

    assert rules.fused == {}
    assert rules.thresholds


def test_every_layer_set_has_a_threshold(small_bundle: Bundle, engine: Engine) -> None:
    thresholds = calibrate(small_bundle, engine, EXAMPLES[:2]).thresholds

    assert {(method, name) for method in thresholds for name in thresholds[method]} == {
        (layers.method, layers.name) for layers in layer_sets(small_bundle.card)
    }


def test_without_boxes_there_is_nothing_to_calibrate_on(
    small_bundle: Bundle, engine: Engine
) -> None:
    plain = [Example(photo.name, photo.data, photo.label, ()) for photo in EXAMPLES[:2]]

    with pytest.raises(DataError, match="box"):
        calibrate(small_bundle, engine, plain)
