"""Tables that the commands print, whole."""

from functools import partial

import numpy as np

from app.bundle import Bundle, Confidence
from tests.training.fake_engine import FakeEngine
from tests.training.known_maps import (
    DOG,
    FOREGROUND,
    OWN,
    known_outputs,
    white_box_photo,
    with_card,
    with_fusion,
)
from tests.training.report.known_comparison import COMPARISON
from training.commands.terminal import calibration, comparison, evaluation
from training.evaluation.evaluate import evaluate

LIMITS = Confidence(
    temperature=2,
    least_probability=0.3,
    least_foreground=-10,
    most_novelty=None,
    photos=9,
    ece=0.25,
    ece_before=0.5,
)


def test_table_of_an_evaluation(small_bundle: Bundle) -> None:
    bundle = with_card(with_fusion(small_bundle), confidence=LIMITS)
    logits = np.array([0, 2 * np.log(4), 0, 0, 0])
    seen = FakeEngine(
        partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND, logits=logits)
    )
    examples = [white_box_photo(label, DOG) for label in (1, 1, 0, 0)]

    lines = evaluation(evaluate(bundle, seen, examples, note="made here")).splitlines()

    assert lines[0] == (
        "small 3 on 4 photos of the test split, 4 with boxes (made here); openvino float32; in "
        "brackets 95 % intervals"
    )
    rows = dict(line.split("  ", 1) for line in lines if "  " in line and line[0] != " ")
    shown = {name: row.split() for name, row in rows.items()}
    assert shown["top-1 accuracy"][0] == "0.500"
    assert "top-5 accuracy" not in shown  # of five classes
    assert shown["expected calibration error"] == ["0.000"]
    assert shown["share with confidence ok"] == ["1.000"]
    whole = ["1.000", "[1.000,", "1.000]"]
    assert shown["Grad-CAM, last layer, rule fused"] == whole * 2
    half = ["0.500", "[0.500,", "0.500]"]
    assert shown["Grad-CAM, last layer, rule heatmap"] == [*half, *whole]
    assert "CAM, last layer, rule fused" not in shown
    assert shown["full frame"][0] == "0.250"
    assert "  class 0 taken for class 1: 2 (100%)" in lines
    assert lines[-2:] == ["best breeds:  class 1 1.00", "worst breeds: class 0 0.00"]


def test_table_of_a_calibration(small_bundle: Bundle) -> None:
    card = with_card(with_fusion(small_bundle), confidence=LIMITS).card

    text = calibration(card, boxes=(1000, 5934), validation=(9, 9))

    lines = text.splitlines()
    assert lines[:3] == [
        "small 3",
        "Confidence, on all 9 validation photos: temperature 2, calibration error 0.500 before "
        "and 0.250 with it.",
        "Limits: probability 0.300, foreground -10.",
    ]
    assert lines[3] == "Boxes, on 1,000 of 5,934 photos with boxes, drawn evenly by breed:"
    rows = [line.split("  ") for line in lines[4:]]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    assert ["Grad-CAM, last layer", "0.5", "0.5", "0.4"] in cells
    assert ["LayerCAM, last six layers", "0.5"] in cells
    assert "Boxes" not in calibration(card, boxes=(0, 0), validation=(9, 9))


def test_table_of_a_comparison() -> None:
    lines = comparison(COMPARISON).splitlines()

    assert lines[0].startswith("50 photos, 1,000 perturbed ones each  mean IoU")
    rows = {line.split("  ")[0]: line.split() for line in lines[1:]}
    assert list(rows) == [
        *("constant box", "full frame", "CAM, last layer", "Grad-CAM, last layer"),
        *("LIME", "KernelSHAP"),
    ]
    assert rows["constant box"][2:5] == ["0.600", "[0.580,", "0.620]"]
    assert rows["constant box"][-1] == "0.220]"  # no cost
    assert rows["KernelSHAP"][-2:] == ["1,002.5", "12.5"]
