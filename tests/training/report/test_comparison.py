"""Tables and sentences hold the figures that they are made from."""

from tests.training.report.known_comparison import COMPARISON
from training.evaluation.perturbation import Perturbation
from training.evaluation.schema import Baselines, OnSample
from training.report.comparison import comparison_tables, reading_of_comparison


def test_tables_hold_every_method_and_figure() -> None:
    boxes, areas, cost = comparison_tables(COMPARISON)

    methods = ["CAM, last layer", "Grad-CAM, last layer", "LIME", "KernelSHAP"]
    baselines = ["constant box", "full frame"]
    for table in (boxes, areas):
        assert [row[0] for row in table.rows] == [*baselines, *methods]
    assert [row[0] for row in cost.rows] == methods
    for table in (boxes, areas, cost):
        assert "50 photos" in table.caption
        assert {len(row) for row in table.rows} == {len(table.head)}
    by_name = {row[0]: row[1:] for row in boxes.rows}
    assert by_name["constant box"][0] == "0.600 [0.580, 0.620]"
    assert by_name["constant box"][1] == by_name["constant box"][-1] == ""
    assert by_name["LIME"] == (
        "0.550 [0.530, 0.570]",
        "worse by 0.050 [0.020, 0.080]",
        "0.750 [0.730, 0.770]",
        "0.900 [0.880, 0.920]",
        "0.22",
    )
    deletion = {row[0]: row[-1] for row in areas.rows}
    assert deletion["LIME"] == "better by 0.150 [0.120, 0.180]"  # less is better
    costs = {row[0]: row[1:] for row in cost.rows}
    assert costs["LIME"][0] == costs["LIME"][1] == "0.400 [0.380, 0.420]"
    assert costs["KernelSHAP"][2:] == ("1", "2", "1,002.5", "12.5")
    assert costs["Grad-CAM, last layer"] == ("", "", "", "0", "1", "0.0234")


def test_without_boxes_there_is_no_table_of_them() -> None:
    def bare(figures: OnSample) -> OnSample:
        return OnSample(insertion=figures.insertion, deletion=figures.deletion)

    baselines = COMPARISON.baselines
    plain = COMPARISON.model_copy(
        update={
            "baselines": Baselines[OnSample](
                constant_box=bare(baselines.constant_box), full_frame=bare(baselines.full_frame)
            )
        }
    )

    captions = [table.caption for table in comparison_tables(plain)]

    assert len(captions) == 2
    assert not any(caption.startswith("Boxes") for caption in captions)


def test_sentences_state_the_figures_and_the_cost() -> None:
    first, iou, insertion, deletion, untested, cost = reading_of_comparison(COMPARISON)

    assert first == (
        "LIME and KernelSHAP explained the same 50 photos as the CAM family, from 1,000 perturbed "
        "copies of each."
    )
    assert iou == (
        "Mean IoU: 0.660 for Grad-CAM at the last layer, 0.600 for the constant box, 0.550 for "
        "LIME and 0.610 for KernelSHAP."
    )
    assert insertion.startswith("Insertion (more is better): 0.620 for Grad-CAM at the last layer,")
    assert deletion.endswith("0.200 for the constant box, 0.050 for LIME and 0.090 for KernelSHAP.")
    assert "was not tested" in untested  # unpaired intervals name no winner
    assert cost == (
        "For a heatmap, Grad-CAM at the last layer runs the model on one photo, in 0.0234 s; LIME "
        "runs it on 1,000 photos, in 11.2 s; KernelSHAP runs it on 1,002.5 photos, in 12.5 s."
    )


def test_one_method_and_many_seconds() -> None:
    lime = COMPARISON.perturbation[Perturbation.LIME].model_copy(update={"seconds": 1234.5})
    alone = COMPARISON.model_copy(update={"perturbation": {Perturbation.LIME: lime}})

    sentences = list(reading_of_comparison(alone))

    assert sentences[0].startswith("LIME explained the same 50 photos as the CAM family, from")
    assert sentences[-1].endswith("LIME runs it on 1,000 photos, in 1,234 s.")
    *_, cost = comparison_tables(alone)
    assert {row[0]: row[-1] for row in cost.rows}["LIME"] == "1,234"
