"""Over pictures whose boxes are known, with a model whose weights are random."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Confidence, Fused, Label, Method, ModelCard
from app.engines import Engine
from tests.training.fake_engine import FakeEngine
from tests.training.known_maps import (
    DOG,
    FOREGROUND,
    OWN,
    block_map,
    known_outputs,
    white_box_photo,
    with_card,
    with_fusion,
)
from tests.training.pictures import dataset
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.evaluate import evaluate
from training.evaluation.metrics import CONSTANT_BOX
from training.evaluation.schema import Summary

Array = npt.NDArray[Any]

EXAMPLES = dataset(train=11).train

LIMITS = Confidence(
    temperature=2,
    least_probability=0.3,
    least_foreground=-1e9,
    most_novelty=None,
    photos=9,
    ece=0,
    ece_before=0,
)


def measure(
    bundle: Bundle, engine: Engine, examples: Sequence[Example], **options: Any
) -> dict[str, Any]:
    """The JSON that `evaluate` writes."""
    return evaluate(bundle, engine, examples, **options).dump()


def _gradcam_ious(bundle: Bundle, engine: Engine, threshold: float) -> list[float]:
    """The same figure by the straight way: one photo, one box, no batch."""
    ious = []
    for example in EXAMPLES:
        photo = images.decode(example.read())
        rows = engine.run(
            engines.Cut.EXPLAIN,
            engines.Batch.of(
                images.squash(photo.pixels, 32)[None], np.array([example.label], np.int32)
            ),
        )
        raw = rows["gradcam"][0]
        values = np.maximum(raw, 0) / raw.max() if raw.max() > 0 else raw
        box = heatmaps.locate(heatmaps.resize(values, 32, 32), threshold) if raw.any() else None
        true = [edge * 32 for edge in example.boxes[0]]  # squashed, as the photo was
        ious.append(heatmaps.iou(box, (true[0], true[1], true[2], true[3])) if box else 0.0)
    return ious


def test_evaluation_agrees_with_the_straight_way(small_bundle: Bundle, engine: Engine) -> None:
    figures = measure(small_bundle, engine, EXAMPLES)

    threshold = small_bundle.card.threshold(Method.GRADCAM, "last")
    expected = np.mean(_gradcam_ious(small_bundle, engine, threshold))
    assert figures["mean_iou"]["gradcam"]["last"] == pytest.approx(expected, abs=1e-4)
    boxes = [example.boxes[0] for example in EXAMPLES]
    constant = np.mean([heatmaps.iou(CONSTANT_BOX, box) for box in boxes])
    whole = np.mean([(box[2] - box[0]) * (box[3] - box[1]) for box in boxes])
    assert figures["mean_iou_baselines"]["constant_box"] == pytest.approx(constant, abs=1e-4)
    assert figures["mean_iou_baselines"]["full_frame"] == pytest.approx(whole, abs=1e-4)
    assert figures["photos"] == figures["photos_with_boxes"] == 11


def test_top5_of_more_than_five_classes(small_bundle: Bundle) -> None:
    labels = tuple(Label(index=index, name=f"class {index}") for index in range(7))
    logits = np.arange(7.0)[::-1]  # class 0 is the likeliest, class 6 the least likely
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN, logits=logits))
    examples = [white_box_photo(label, DOG) for label in (0, 3, 5, 6)]

    figures = measure(with_card(small_bundle, labels=labels), seen, examples)

    assert (figures["top1"], figures["top5"]) == (0.25, 0.5)
    low, high = figures["top5_interval"]
    assert low < 0.5 < high


def test_every_figure_of_localization_by_the_straight_way(
    small_bundle: Bundle, engine: Engine
) -> None:
    figures = measure(small_bundle, engine, EXAMPLES)["localization"]

    threshold = small_bundle.card.threshold(Method.GRADCAM, "last")
    ious = np.array(_gradcam_ious(small_bundle, engine, threshold))
    gradcam = figures["methods"]["gradcam"]["last"]
    assert gradcam["gt_known_localization"]["value"] == pytest.approx(
        np.mean(ious >= 0.5), abs=1e-4
    )
    boxes = [example.boxes[0] for example in EXAMPLES]
    constant = np.array([heatmaps.iou(CONSTANT_BOX, box) for box in boxes])
    difference = gradcam["mean_iou"]["difference"]
    assert difference == pytest.approx(np.mean(ious - constant), abs=2e-4)
    for estimate in gradcam.values():
        assert estimate["interval"][0] <= estimate["value"] <= estimate["interval"][1]
        low, high = estimate["difference_interval"]
        assert low <= estimate["difference"] <= high
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
    logits = np.log(np.maximum(probabilities, 1e-9))
    return {**outputs, "logits": logits, "probabilities": probabilities, "target_index": target}


def test_heatmaps_that_see_just_the_box(small_bundle: Bundle) -> None:
    examples = [
        white_box_photo(label, (x, 8, x + 12, 24)) for label, x in enumerate((1, 5, 14, 19))
    ]
    seeing = FakeEngine(partial(_seen, small_bundle.card))

    figures = measure(small_bundle, seeing, examples, sample=3)

    assert figures["top1"] == 0.25
    layercam = figures["localization"]["methods"]["layercam"]["last6"]
    assert _values(layercam) == {
        "mean_iou": 1,
        "gt_known_localization": 1,
        "top1_localization": 0.25,
        "max_box_acc_v2": 1,
        "pointing_game": 1,
        "energy_in_box": 1,
    }
    assert layercam["mean_iou"]["interval"] == [1, 1]
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


def _values(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: estimate["value"] for name, estimate in metrics.items()}


def test_heatmaps_that_see_just_the_wrong_place(small_bundle: Bundle) -> None:
    examples = [white_box_photo(1, (16, 16, 32, 32)) for _ in range(3)]
    away = FakeEngine(partial(known_outputs, small_bundle.card, own=block_map((1, 0, 0, 8, 8))))

    localization = measure(small_bundle, away, examples)["localization"]

    assert _values(localization["methods"]["gradcam"]["last"]) == {
        "mean_iou": 0,
        "gt_known_localization": 0,
        "top1_localization": 0,
        "max_box_acc_v2": 0.0,
        # From the middle of its first pixel to the box are 15.5 pixels each way.
        "pointing_game": 0,
        "energy_in_box": 0,
    }
    assert localization["methods"]["cam"]["last"]["mean_iou"]["difference_interval"][1] < 0


def test_uniform_maps_are_no_evidence(small_bundle: Bundle) -> None:
    card = small_bundle.card
    fused = {Method.GRADCAM: {"last": Fused(foreground=0.5, threshold=0.5)}}
    uniform = FakeEngine(partial(known_outputs, card, own=block_map((1, 0, 0, 32, 32))))

    figures = measure(
        with_card(small_bundle, fused=fused), uniform, [white_box_photo(1, (0, 0, 32, 32))]
    )

    localization = figures["localization"]
    for metrics in (localization["methods"]["layercam"]["last6"], localization["customary"]):
        assert set(_values(metrics).values()) == {0}
    assert set(_values(localization["fused"]["gradcam"]["last"]).values()) == {0}
    assert set(figures["curves"]["cam"]["last"]["heatmap"]["mean_iou"]) == {0}
    assert localization["baselines"]["full_frame"]["mean_iou"]["value"] == 1


def test_rule_fused_beside_the_plain_rule(small_bundle: Bundle) -> None:
    bundle = with_fusion(small_bundle)
    seen = FakeEngine(partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND))

    figures = measure(bundle, seen, [white_box_photo(label, DOG) for label in (1, 1, 0, 1)])

    localization = figures["localization"]
    assert localization["methods"]["gradcam"]["last"]["mean_iou"]["value"] == 0.5
    assert set(localization["fused"]) == {"gradcam"}
    assert _values(localization["fused"]["gradcam"]["last"]) == {
        "mean_iou": 1,
        "gt_known_localization": 1,
        "top1_localization": 0.75,
        "max_box_acc_v2": 1,
    }
    better = localization["fused"]["gradcam"]["last"]["mean_iou"]
    assert (better["difference_to_heatmap"], better["difference_to_heatmap_interval"]) == (
        0.5,
        [0.5, 0.5],
    )
    # At 0.1 of the maximum, the surroundings are in: 16 * 16 of 32 * 32.
    assert localization["fused"]["gradcam"]["last6"]["mean_iou"]["value"] == 0.25
    assert localization["fused"]["gradcam"]["last6"]["mean_iou"]["difference_to_heatmap"] == -0.25
    assert figures["mean_iou_fused"] == {"gradcam": {"last": 1, "last6": 0.25}}
    assert figures["mean_iou_fused_intervals"]["gradcam"]["last"] == [1, 1]
    assert figures["mean_iou"]["gradcam"]["last"] == 0.5
    assert figures["gt_known_localization"] == 1
    assert figures["gt_known_localization_customary"] == 1  # an IoU of 0.5 counts
    assert figures["mean_iou_customary"] == 0.5
    assert set(figures["gt_known_localization_baselines"]) == {"constant_box", "full_frame"}
    assert figures["most_confused"] == [
        {"true": "class 0", "predicted": "class 1", "count": 1, "share": 1.0}
    ]
    assert figures["gt_known_localization_interval"] == [1, 1]
    assert [photo["right"] for photo in figures["per_photo"]] == [True, True, False, True]
    assert figures["per_photo"][2] == {
        "name": f"{DOG}",
        "breed": "class 0",
        "predicted": "class 1",
        "right": False,
        "iou": {
            "cam": {"last": 0.5},
            **{
                method: {"last": 0.5, "last6": 0.5}
                for method in ("gradcam", "gradcampp", "layercam", "hirescam")
            },
        },
        "fused": {"gradcam": {"last": 1.0, "last6": 0.25}},
    }


def test_curves_by_each_rule(small_bundle: Bundle) -> None:
    bundle = with_fusion(small_bundle)
    seen = FakeEngine(partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND))
    # One photo whose dog is what Grad-CAM sees, one whose dog is what both see.
    examples = [white_box_photo(1, (8, 8, 16, 24)), white_box_photo(1, DOG)]

    figures = measure(bundle, seen, examples)
    curve = figures["curves"]["gradcam"]["last"]

    assert curve["thresholds"] == [round(0.02 * step, 2) for step in range(1, 50)]
    # To 0.2 the whole frame: (1/8 + 1/4) / 2. Then the half: (1 + 1/2) / 2.
    assert curve["heatmap"] == {
        "mean_iou": [0.1875] * 10 + [0.75] * 39,
        "best_threshold": 0.22,
        "best_mean_iou": 0.75,
        "oracle_mean_iou": 0.75,
        "threshold": 0.5,
        "calibrated": True,
    }
    # To 0.1 the whole frame, to 0.6 all of the dog, then the half.
    assert curve["fused"]["mean_iou"] == [0.1875] * 5 + [0.75] * 44
    assert (curve["fused"]["threshold"], curve["fused"]["foreground"]) == (0.4, 0.5)
    assert curve["fused"]["best_threshold"] == 0.12
    assert curve["fused"]["oracle_mean_iou"] == 1  # the half at 0.7, the dog at 0.4
    assert set(figures["curves"]["cam"]) == {"last"}
    assert set(figures["curves"]["layercam"]["last6"]) == {"thresholds", "heatmap"}
    plain = measure(small_bundle, seen, examples)["curves"]["gradcam"]["last"]["heatmap"]
    assert (plain["threshold"], plain["calibrated"]) == (0.15, False)


def test_the_customary_rule(small_bundle: Bundle) -> None:
    # By its greatest value, the surroundings are at 0.2 of it; by its least too, they are at 0.
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN))

    localization = measure(small_bundle, seen, [white_box_photo(1, DOG)])["localization"]

    assert localization["customary"]["mean_iou"]["value"] == 0.5
    assert localization["methods"]["gradcam"]["last"]["mean_iou"]["value"] == 0.25
    constant = localization["baselines"]["constant_box"]["mean_iou"]["value"]
    assert localization["customary"]["mean_iou"]["difference"] == pytest.approx(
        0.5 - constant, abs=1e-4
    )
    assert set(localization["customary"]) == set(localization["methods"]["cam"]["last"])
    assert set(localization["baselines"]) == {"constant_box", "full_frame"}


def test_customary_threshold_is_of_the_maximum(small_bundle: Bundle) -> None:
    """15 % is in, as half as much is not."""
    levels = block_map((0.07, 4, 4, 28, 28), (0.151, 8, 8, 24, 24), (1, 8, 8, 16, 16))
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=levels))
    calibrated = with_card(small_bundle, thresholds={Method.GRADCAM: {"last": 0.9}})

    localization = measure(calibrated, seen, [white_box_photo(1, DOG)])["localization"]

    assert localization["customary"]["mean_iou"]["value"] == 1
    assert localization["methods"]["gradcam"]["last"]["mean_iou"]["value"] == 0.25


def test_calibration_error_and_confidence_as_served(small_bundle: Bundle) -> None:
    # Over a temperature of 2: 4 to 1 and 1 and 1 and 1, a half, for three photos of four right.
    logits = np.array([0, 2 * np.log(4), 0, 0, 0])
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN, logits=logits))
    examples = [white_box_photo(label, DOG) for label in (1, 1, 3, 1)]

    figures = measure(with_card(small_bundle, confidence=LIMITS), seen, examples)
    strict = Confidence(**dict(LIMITS) | {"least_probability": 0.6})
    doubted = measure(with_card(small_bundle, confidence=strict), seen, examples)

    assert (figures["ece"], figures["confidence_ok"]) == (0.25, 1)
    assert (doubted["ece"], doubted["confidence_ok"]) == (0.25, 0)
    assert figures["top1"] == 0.75
    (half,) = (share for share in figures["reliability"] if share["photos"])
    assert half == {
        "low": 0.4667,
        "high": 0.5333,
        "photos": 4,
        "confidence": 0.5,
        "accuracy": 0.75,
    }
    plain = measure(small_bundle, seen, examples)
    assert plain["top1"] == 0.75
    assert not {"ece", "confidence_ok", "reliability"} & plain.keys()
    assert plain["confusion"] == {"class 1": {"class 1": 3}, "class 3": {"class 1": 1}}
    assert plain["model"]["classes"] == 5


def test_outputs_that_are_not_finite(small_bundle: Bundle) -> None:
    """As a network that has diverged gives: no ECE, and no gain by any pixel."""
    logits = np.array([0, np.nan, 0, 0, 0])
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN, logits=logits))
    bundle = with_card(small_bundle, confidence=LIMITS)

    figures = measure(bundle, seen, [white_box_photo(1, DOG)], sample=1)

    assert not {"ece", "reliability"} & figures.keys()
    assert figures["confidence_ok"] == 0
    areas = figures["faithfulness"]["methods"]["gradcam"]["last"]
    assert _values(areas) == {"insertion": 0, "deletion": 0}


def test_same_seed_same_figures(small_bundle: Bundle, engine: Engine) -> None:
    first = measure(small_bundle, engine, EXAMPLES[:4], sample=2, seed=7)

    assert first == measure(small_bundle, engine, EXAMPLES[:4], sample=2, seed=7)
    assert set(Summary.model_fields) - {"note", "ece", "confidence_ok"} < set(first)
    assert set(first["faithfulness"]["methods"]["layercam"]) == {"last", "last6"}


def test_accuracy_counts_photos_without_boxes_too(small_bundle: Bundle, engine: Engine) -> None:
    plain = [Example(photo.name, photo.data, photo.label, ()) for photo in EXAMPLES[:4]]

    figures = measure(small_bundle, engine, [*plain, *EXAMPLES[4:]])

    assert (figures["photos"], figures["photos_with_boxes"]) == (11, 7)
    assert figures["top1"] == pytest.approx(_hits(engine, EXAMPLES) / 11, abs=1e-4)


def _hits(engine: Engine, examples: Sequence[Example]) -> int:
    """Photos whose likeliest class is the right one, by the straight way."""
    hits = 0
    for example in examples:
        row = engine.run(
            engines.Cut.PREDICT,
            engines.Batch.of(images.squash(images.decode(example.read()).pixels, 32)[None]),
        )
        hits += int(np.argmax(row["logits"][0])) == example.label
    return hits


def test_each_photo_is_decoded_once_and_run_once_a_cut(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [Example(photo.name, photo.data, photo.label, ()) for photo in EXAMPLES[:4]]
    decoded: list[bytes] = []
    decode = images.decode

    def counted(data: bytes, **options: Any) -> images.Photo:
        decoded.append(data)
        return decode(data, **options)

    monkeypatch.setattr(images, "decode", counted)
    runs: dict[engines.Cut, int] = {}

    class Counted(FakeEngine):
        def run(self, cut: engines.Cut, batch: engines.Batch) -> dict[str, Array]:
            runs[cut] = runs.get(cut, 0) + len(batch)
            return super().run(cut, batch)

    seen = Counted(partial(known_outputs, small_bundle.card, own=OWN))
    measure(small_bundle, seen, [*plain, *EXAMPLES[4:]])

    assert sorted(decoded) == sorted(example.read() for example in EXAMPLES)
    assert runs == {engines.Cut.EXPLAIN: 11, engines.Cut.EXPLAIN_DEEP: 7}


def test_probabilities_are_those_of_predict(small_bundle: Bundle) -> None:
    """Where the deep cut, in bfloat16, has another likeliest class."""
    card = small_bundle.card

    class Apart(FakeEngine):
        def run(self, cut: engines.Cut, batch: engines.Batch) -> dict[str, Array]:
            outputs = super().run(cut, batch)
            if cut is engines.Cut.EXPLAIN_DEEP:
                outputs["probabilities"] = outputs["probabilities"][:, ::-1]
            return outputs

    figures = measure(
        small_bundle, Apart(partial(known_outputs, card, own=OWN)), [white_box_photo(1, DOG)]
    )

    assert figures["top1"] == 1


def test_without_boxes_there_is_accuracy_alone(small_bundle: Bundle, engine: Engine) -> None:
    plain = [Example(photo.name, photo.data, photo.label, ()) for photo in EXAMPLES[:2]]

    figures = measure(small_bundle, engine, plain)

    assert (figures["photos"], figures["photos_with_boxes"]) == (2, 0)
    assert figures["top1"] == _hits(engine, EXAMPLES[:2]) / 2
    assert figures["mean_iou"] == figures["mean_iou_intervals"] == {}
    assert "mean_iou_customary" not in figures
    assert figures["localization"] == figures["mean_iou_baselines"] == {}
    assert set(figures["breeds"]["class 0"]) == {"photos", "photos_with_boxes", "top1"}


def test_empty_split_is_an_error(small_bundle: Bundle, engine: Engine) -> None:
    with pytest.raises(DataError, match="no photos"):
        evaluate(small_bundle, engine, [])
