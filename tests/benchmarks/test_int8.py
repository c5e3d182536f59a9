import itertools
import time
from typing import Any

import pytest

from app import engines
from app.bundle import Bundle
from benchmarks.cuts import CALLS
from benchmarks.int8 import _compare, _figures, _report_accuracy
from benchmarks.results import Part
from benchmarks.timing import Spread


def figures(top1: float, ece: float, cam: float, fused: float) -> dict[str, float]:
    table = {"cam": {"last": cam, "conv4_block6_out": 0.1}}
    fused_table = {"cam": {"last": fused}}
    return _figures({"top1": top1, "ece": ece, "mean_iou": table, "mean_iou_fused": fused_table})


def test_int8_is_held_against_the_other_precision() -> None:
    part = Part("", "")

    _report_accuracy(
        part,
        {"bfloat16": figures(0.75, 0.02, 0.6, 0.7), "int8": figures(0.742, 0.03, 0.602, 0.699)},
        photos=2066,
    )

    assert part.tables[0].rows == [
        ("top-1", "0.7500", "0.7420", "-0.0080"),
        ("calibration error", "0.0200", "0.0300", "+0.0100"),
        ("mean IoU, cam, last", "0.6000", "0.6020", "+0.0020"),
        ("mean IoU, cam, last, fused", "0.7000", "0.6990", "-0.0010"),
    ]
    assert part.tables[0].caption == "On 2,066 test photos."
    assert [target.reached for target in part.targets] == [False, False, True, True]


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

    # A round to warm up and two that count; in each, a call that is dropped before those timed.
    turn = [(name, cut) for name in recorders for cut in engines.Cut for _ in range(CALLS + 1)]
    assert calls == turn * 3
    spread = Spread(250, 250, 250, 2 * CALLS)
    assert figures == {name: dict.fromkeys(engines.Cut, spread) for name in recorders}
