import time

import pytest

from app import bundle as bundles
from app import engines
from app.settings import PROJECT
from benchmarks.cuts import measure, medians_ms


def test_median_is_of_each_call_alone_and_warm_up_is_left_out() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.3 if len(order) < 2 else 0.02)

    medians = medians_ms({"slow": slow, "fast": lambda: order.append("fast")}, rounds=5)

    assert order == ["slow", "fast"] * 6
    assert 15 < medians["slow"] < 250
    assert medians["fast"] < medians["slow"]


def test_measure_reports_each_cut_and_its_ratio() -> None:
    bundle = bundles.load(PROJECT / "models/dogs10")
    engine = engines.create(bundle, engine="openvino")

    figures = measure(bundle, engine, rounds=2)

    assert set(figures) == {
        f"{cut.value}{tail}" for cut in engines.Cut for tail in ("", "/predict")
    }
    assert figures["predict/predict"] == 1
    assert figures["explain/predict"] == pytest.approx(figures["explain"] / figures["predict"])
