import statistics

import pytest

from app.engines import Cut
from benchmarks import cuts


@pytest.mark.slow
def test_part_holds_the_dearer_cuts_against_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "ROWS", (1,))
    monkeypatch.setattr(cuts, "PROCESSES", 2)

    part = cuts.run(1)

    assert [target.limit for target in part.targets] == [1.06, 2.2]
    assert [row[1] for row in part.tables[0].rows] == ["`predict`", "`explain`", "`explain_deep`"]
    assert part.tables[0].rows[0][3] == "1.00 (1.00 to 1.00)"
    assert part.tables[0].rows[1][3].startswith(f"{part.targets[0].measured:.2f} (")


@pytest.mark.slow
def test_ratio_is_the_median_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [(4.0, 5.0, 8.0), (8.0, 9.0, 16.0), (4.0, 4.0, 12.0)]
    runs = iter([dict(zip(Cut, medians, strict=True)) for medians in times])
    monkeypatch.setattr(cuts, "ROWS", (1,))
    monkeypatch.setattr(cuts, "PROCESSES", len(times))
    monkeypatch.setattr(cuts, "_in_a_process", lambda rounds, rows: next(runs))

    part = cuts.run(1)

    assert [target.measured for target in part.targets] == [
        statistics.median([5 / 4, 9 / 8, 1]),
        statistics.median([2, 2, 3]),
    ]


def test_times_of_operations_add_up_to_the_cut() -> None:
    """Whatever counting took: predict's 50 ms and explain's 5 ms are 100 % and 106 %."""
    times = {
        Cut.PREDICT: {"Convolution": 40.0, "Add": 10.0},
        Cut.EXPLAIN: {"Convolution": 4.0, "Multiply": 1.0},
        Cut.EXPLAIN_DEEP: {"Convolution": 150.0, "Multiply": 50.0},
    }
    ratios = {Cut.PREDICT: 1.0, Cut.EXPLAIN: 1.06, Cut.EXPLAIN_DEEP: 2.0}

    table = cuts._shares(1, times, ratios)

    assert table.rows == [
        ("all", "100.0", "106.0", "200.0"),
        ("Convolution", "80.0", "84.8", "150.0"),
        ("Multiply", "0.0", "21.2", "50.0"),
    ]
