from app import engines
from app.bundle import Bundle
from benchmarks.int8 import _compare, _figures, _report_accuracy
from benchmarks.results import Part


def figures(top1: float, cam: float, gradcam: float) -> dict[str, float]:
    ious = {"cam": {"last": cam}, "gradcam": {"last": gradcam}}
    return _figures({"top1": top1, "mean_iou": ious})


def test_trial_is_held_against_what_is_served() -> None:
    part = Part("", "")

    _report_accuracy(
        part, {"bfloat16": figures(0.75, 0.6, 0.61), "int8": figures(0.742, 0.602, 0.609)}
    )

    assert part.tables[0].rows == [
        ("top-1", "0.7500", "0.7420", "-0.0080"),
        ("mean IoU, cam", "0.6000", "0.6020", "+0.0020"),
        ("mean IoU, gradcam", "0.6100", "0.6090", "-0.0010"),
    ]
    assert [target.reached for target in part.targets] == [False, True, True]


def test_compare_reports_each_cut_of_each_engine(shipped_bundle: Bundle) -> None:
    engine = engines.create(shipped_bundle, engine="openvino")

    figures = _compare(shipped_bundle, {"mine": engine}, rounds=2, rows=3)

    assert set(figures["mine"]) == set(engines.Cut)
    for found in figures["mine"].values():
        assert found.count == 2
        assert 0 < found.lower <= found.median <= found.upper
