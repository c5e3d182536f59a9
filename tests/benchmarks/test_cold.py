from benchmarks.cold import OURS, _report
from benchmarks.results import Part
from benchmarks.timing import Spread


def test_report_holds_each_service_against_ours() -> None:
    part = Part("", "")
    openvino, usual = Spread(1, 2, 3, 5), Spread(4, 5, 6, 5)
    memory = Spread(500, 500, 500, 5)

    _report(
        part,
        {OURS: openvino, "usual way": usual},
        {OURS: memory, "usual way": memory},
        {OURS: openvino},
    )

    assert part.tables[0].rows[1] == (
        "usual way",
        "5.00 (4.00 to 6.00)",
        "2.5",
        "500 (500 to 500)",
        "",
    )
    assert [(target.measured, target.reached) for target in part.targets] == [
        (2, True),
        (500, True),
    ]
