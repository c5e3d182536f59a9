"""Which photos are shown, what their pictures hold, and that none gets into the repository."""

import base64
import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
from training import cli
from training.evaluation.evaluate import evaluate
from training.evaluation.gallery import choose
from training.files import PROJECT


def test_best_and_worst_by_iou_and_correct_ones_by_lot() -> None:
    ious = np.array([0.5, 0.9, 0.1, 0.7, 0.0])
    right = np.array([True, False, True, True, False])

    chosen = choose(ious, right, 2, seed=3)

    assert (chosen["best"], chosen["worst"]) == ([1, 3], [4, 2])
    assert len(chosen["correct"]) == 2
    assert set(chosen["correct"]) < {0, 2, 3}
    assert chosen == choose(ious, right, 2, seed=3)
    lots = {tuple(choose(ious, right, 2, seed)["correct"]) for seed in range(40)}
    assert len(lots) == 6  # every pair in either order
    assert choose(ious, right, 9, seed=0)["best"] == [1, 3, 0, 2, 4]


def test_pictures_hold_the_found_box_and_the_true_one(small_bundle: Bundle) -> None:
    bundle = with_fusion(small_bundle)
    seen = FakeEngine(partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND))
    examples = [
        white_box_photo(1, DOG),
        white_box_photo(1, (8, 8, 16, 24)),
        white_box_photo(0, (0, 24, 8, 32)),
    ]

    figures = evaluate(bundle, seen, examples, gallery=1).dump()

    gallery = figures["gallery"]
    names = {kind: [photo["name"] for photo in photos] for kind, photos in gallery.items()}
    assert (names["best"], names["worst"]) == (["(8, 8, 24, 24)"], ["(0, 24, 8, 32)"])
    (correct,) = names["correct"]  # the third photo is of another class than the engine says
    assert correct in {"(8, 8, 24, 24)", "(8, 8, 16, 24)"}
    assert gallery["correct"][0]["right"]
    (best,) = gallery["best"]
    cam, gradcam = best["overlays"]["cam"], best["overlays"]["gradcam"]
    assert (cam["rule"], cam["iou"]) == ("heatmap", 0.5)
    assert (gradcam["rule"], gradcam["iou"]) == ("fused", 1.0)
    (worst,) = gallery["worst"]
    assert worst["overlays"]["gradcam"]["iou"] == 0
    picture = Image.open(io.BytesIO(base64.b64decode(worst["overlays"]["gradcam"]["data"])))
    assert (picture.format, picture.size) == ("JPEG", (32, 32))
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    # White along the true box, at the lower left; green along the found one, the dog's place.
    assert (pixels[30:32, 1:7].min(axis=2) > 150).any()
    green = pixels[..., 1] - np.maximum(pixels[..., 0], pixels[..., 2])
    along = green[8:24, [8, 23]].mean() + green[[8, 23], 8:24].mean()
    assert along > 80
    assert green[26:, 12:].mean() < 10


def test_model_without_cam_has_gradcam_alone(small_bundle: Bundle) -> None:
    bundle = with_fusion(small_bundle)
    card = bundle.card.replace(head="other")
    seen = FakeEngine(partial(known_outputs, card, own=OWN, foreground=FOREGROUND))

    gallery = evaluate(
        Bundle(bundle.path, card), seen, [white_box_photo(1, DOG)], gallery=1
    ).gallery

    assert gallery is not None
    assert set(gallery.best[0].overlays) == {Method.GRADCAM}


def test_no_pictures_by_default(small_bundle: Bundle) -> None:
    seen = FakeEngine(partial(known_outputs, small_bundle.card, own=OWN))

    assert "gallery" not in evaluate(small_bundle, seen, [white_box_photo(1, DOG)]).dump()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--gallery needs --out FILE"),
        (["--out", str(PROJECT / "docs" / "figures.json")], "which must not get into"),
    ],
)
def test_photos_stay_out_of_the_repository(
    options: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message):
        cli.main(["evaluate", "--model", str(tmp_path), "--gallery", "2", *options])
