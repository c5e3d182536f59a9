"""What `evaluate` writes is what `report` reads, and nothing else passes."""

import base64
import json
from functools import partial

import pytest
from pydantic import ValidationError

from app.bundle import Bundle, Method
from tests.training.fake_engine import FakeEngine
from tests.training.known_maps import (
    DOG,
    FOREGROUND,
    OWN,
    known_outputs,
    white_box_photo,
    with_fusion,
)
from tests.training.report.known_comparison import COMPARISON
from training.data.dataset import Example
from training.evaluation.evaluate import evaluate
from training.evaluation.schema import Estimate, Evaluation, Overlay, Summary


@pytest.fixture(scope="module")
def evaluation(small_bundle: Bundle) -> Evaluation:
    bundle = with_fusion(small_bundle)
    seen = FakeEngine(partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND))
    examples = [white_box_photo(label, DOG) for label in (1, 0)]
    return evaluate(bundle, seen, examples, note="drawn by hand", sample=1, gallery=1)


def test_json_holds_all_of_it(evaluation: Evaluation) -> None:
    assert evaluation.gallery is not None
    assert evaluation.randomization is not None

    assert Evaluation.model_validate_json(json.dumps(evaluation.dump())) == evaluation


def test_figures_of_an_older_version_are_read(evaluation: Evaluation) -> None:
    figures = evaluation.dump()
    del figures["confusion"], figures["model"]["classes"]
    for by_method in figures["randomization"]["down_to"].values():
        for sets in by_method.values():
            for similarity in sets.values():
                del similarity["blank"]
                similarity.setdefault("rank_correlation", {"value": 0.0, "interval": [0.0, 0.0]})
                similarity.setdefault("structural_similarity", {"value": 0, "interval": [0, 0]})

    old = Evaluation.model_validate_json(json.dumps(figures))

    assert (old.confusion, old.reliability, old.model.classes) == (None, None, None)
    assert old.per_photo == evaluation.per_photo


def test_comparison_without_gradcam_is_refused(evaluation: Evaluation) -> None:
    compared = COMPARISON.model_dump(mode="json", exclude_none=True)
    figures = evaluation.dump() | {"perturbation": compared, "localization": {}}
    assert Evaluation.model_validate_json(json.dumps(figures)).perturbation == COMPARISON
    del compared["methods"]["gradcam"]["last"]

    with pytest.raises(ValidationError, match="lacks Grad-CAM's figures at the last layer"):
        Evaluation.model_validate_json(json.dumps(figures))


def test_without_boxes_localization_is_an_empty_object(small_bundle: Bundle) -> None:
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN))
    dog = white_box_photo(1, DOG)

    bare = evaluate(small_bundle, seen, [Example(dog.name, dog.data, dog.label, ())])

    figures = bare.dump()
    assert figures["localization"] == figures["curves"] == {}
    assert not {"note", "faithfulness", "gallery", "gt_known_localization"} & figures.keys()
    assert Evaluation.model_validate_json(json.dumps(figures)) == bare


def test_summary_is_a_part_of_the_figures(evaluation: Evaluation) -> None:
    summary, figures = evaluation.summary(), evaluation.dump()

    assert summary == {name: figures[name] for name in summary}
    assert list(summary)[:3] == ["split", "note", "photos"]
    assert set(Summary.model_fields) - set(summary) == {"ece", "confidence_ok"}
    assert summary["mean_iou_fused"] == {"gradcam": {"last": 1, "last6": 0.25}}
    json.dumps(summary, allow_nan=False)


def test_served_box_is_by_the_default_rule(evaluation: Evaluation) -> None:
    localization = evaluation.localization
    assert localization is not None

    gradcam, cam = (localization.served(method) for method in (Method.GRADCAM, Method.CAM))

    assert gradcam == localization.fused[Method.GRADCAM]["last"]
    assert cam == localization.methods[Method.CAM]["last"]


def test_pictures_are_base64_in_json_alone() -> None:
    jpeg = bytes(range(256))
    encoded = base64.b64encode(jpeg).decode()

    overlay = Overlay.model_validate(
        {
            "iou": 0.5,
            "rule": "heatmap",
            "media_type": "image/jpeg",
            "width": 3,
            "height": 2,
            "data": encoded,
        }
    )

    assert overlay.data == jpeg
    assert overlay.model_dump(mode="json")["data"] == encoded


@pytest.mark.parametrize(
    "figure",
    [
        {"value": float("nan"), "interval": (0, 1)},
        {"value": 0.5, "interval": (0, float("inf"))},
        {"value": 0.5, "interval": (0, 1, 2)},
        {"value": 0.5, "interval": (0, 1), "mean": 0.5},
    ],
)
def test_other_figures_are_refused(figure: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Estimate.model_validate(figure)
