import pytest

from app import bundle as bundles
from app import engines
from app.settings import PROJECT
from benchmarks import cuts
from benchmarks.cuts import compare


def test_compare_reports_each_cut_of_each_engine() -> None:
    bundle = bundles.load(PROJECT / "models/dogs10")
    engine = engines.create(bundle, engine="openvino")

    figures = compare(bundle, {"mine": engine}, rounds=2, rows=3)

    assert set(figures["mine"]) == set(engines.Cut)
    for found in figures["mine"].values():
        assert found.count == 2
        assert 0 < found.lower <= found.median <= found.upper


def test_part_holds_the_dearer_cuts_against_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "ROWS", (1,))

    part = cuts.run(1)

    assert [target.limit for target in part.targets] == [1.08, 2.2]
    assert [row[1] for row in part.tables[0].rows] == ["`predict`", "`explain`", "`explain_deep`"]
    assert f"{part.targets[0].measured:.2f}" == part.tables[0].rows[1][3]
