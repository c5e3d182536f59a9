import itertools
import time
from typing import Any

import pytest

from app import engines
from app.bundle import Bundle
from benchmarks.int8 import _compare, _figures, _report_accuracy
from benchmarks.results import Part
from benchmarks.timing import Spread


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


def test_compare_times_each_cut_of_each_engine_in_turn(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = itertools.count(step=0.25)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock_s))
    calls: list[tuple[str, engines.Cut]] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, cut: engines.Cut, *_: object) -> None:
            calls.append((self.name, cut))

    recorders: dict[str, Any] = {name: Recorder(name) for name in ("bfloat16", "int8")}

    figures = _compare(shipped_bundle, recorders, rounds=2, rows=3)

    assert calls == [(name, cut) for name in recorders for cut in engines.Cut] * 3
    spread = Spread(250, 250, 250, 2)
    assert figures == {name: dict.fromkeys(engines.Cut, spread) for name in recorders}
