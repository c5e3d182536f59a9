import os
import subprocess
import sys

import pytest

from benchmarks import machine


def test_machine_is_told_with_its_versions() -> None:
    told = machine.describe()
    assert "core(s)" in told["processor"]
    assert told["memory"].endswith(" GB")
    assert told["openvino"].startswith("20")
    assert all(told.values())


def test_others_are_who_is_neither_this_process_nor_its_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([(1000, 5000), (1400, 6000)])
    seconds = iter([10.0, 11.0])
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(seconds))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)

    assert machine.Others().share == pytest.approx((400 - 100) / 1000)


def test_a_childs_work_counts_as_own() -> None:
    before = machine._own_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert machine._own_seconds() > before
    busy, every = machine._ticks()
    assert 0 < busy <= every
