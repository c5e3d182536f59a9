from app.bundle import Int8, Method
from training.export.int8 import gate

BEFORE = {
    "top1": 0.85,
    "ece": 0.02,
    "mean_iou": {"cam": {"last": 0.64}, "gradcam": {"last": 0.65, "last6": 0.55}},
    "mean_iou_fused": {"cam": {"last": 0.7}},
}
AFTER = {
    "top1": 0.846,
    "ece": 0.026,
    "mean_iou": {"cam": {"last": 0.65}, "gradcam": {"last": 0.65, "last6": 0.54}},
    "mean_iou_fused": {"cam": {"last": 0.694}},
}


def both(before: object, after: object) -> Int8:
    counts = {"calibration_photos": 3, "photos": 5, "precision": "bfloat16"}
    return Int8.model_validate({**counts, "before": before, "after": after})


def test_what_integers_lose() -> None:
    losses = gate.losses(both(BEFORE, AFTER))

    assert {loss.name: round(loss.lost, 6) for loss in losses} == {
        "top-1 accuracy": 0.004,
        "expected calibration error": 0.006,
        "mean IoU, cam last, rule heatmap": -0.01,
        "mean IoU, gradcam last, rule heatmap": 0,
        "mean IoU, gradcam last6, rule heatmap": 0.01,
        "mean IoU, cam last, rule fused": 0.006,
    }
    assert [loss.name for loss in losses if loss.lost > gate.MAY_LOSE] == [
        "expected calibration error",
        "mean IoU, gradcam last6, rule heatmap",
        "mean IoU, cam last, rule fused",
    ]


def test_a_model_without_calibration_and_boxes_has_its_accuracy_alone() -> None:
    int8 = both({"top1": 0.5}, {"top1": 0.25})

    assert gate.losses(int8) == [("top-1 accuracy", 0.5, 0.25, 0.25)]
    assert int8.before.mean_iou == {}
    assert Method.CAM in both(BEFORE, AFTER).before.mean_iou
