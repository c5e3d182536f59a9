from pathlib import Path

import numpy as np
import pytest

from app import heatmaps
from app.bundle import Bundle
from app.settings import PROJECT
from benchmarks import weights
from benchmarks.explain import OURS, PEERS, _report, _start, agreement
from benchmarks.machine import has_amx
from benchmarks.protocol import Worker
from benchmarks.results import Part
from benchmarks.timing import Spread


def test_agreement_is_the_correlation_of_heatmaps_of_any_size() -> None:
    small = np.random.default_rng(0).random((7, 7), np.float32)
    large = heatmaps.resize(small, 224, 224)

    assert agreement(small, large * 3 + 1) == pytest.approx(1, abs=1e-4)
    assert agreement(large.tolist(), (-small).tolist()) == pytest.approx(-1, abs=1e-4)
    assert abs(agreement(small, small[::-1])) < 0.9


@pytest.mark.slow
def test_keras_io_recipe_gives_our_heatmap(shipped_bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    weights.write(shipped_bundle, file)

    with Worker("benchmarks.workers.engine", "--engine", "openvino") as ours:
        heatmap = ours.ask("heatmap")
        assert len(ours.ask("explain", count=2)) == 2
    with _start("keras_io", file) as recipe:
        assert agreement(heatmap, recipe.ask("heatmap")) > 0.99
        assert len(recipe.ask("explain")) == len(recipe.ask("explain_built")) == 1


def test_report_is_of_those_that_could_be_measured() -> None:
    part = Part("", "")
    name, (_, *limits) = next(iter(PEERS.items()))

    _report(part, {OURS: Spread(4, 5, 6, 9), name: Spread(70, 80, 90, 9)}, {name: 0.98765})

    assert part.tables[0].rows[1] == (name, "80.0 (70.0 to 90.0)", "16.0", "0.9877")
    (target,) = part.targets
    assert (target.measured, target.at_most) == (16.0, False)
    assert target.limit == limits[not has_amx()]


def test_each_peer_has_a_module() -> None:
    for module, *_ in PEERS.values():
        assert (PROJECT / f"benchmarks/peers/{module}.py").exists()
