"""What a report says of LIME, KernelSHAP and RISE beside the CAM family."""

from collections.abc import Iterator

from app.bundle import Method
from app.wording import listed
from training.evaluation.perturbation import Perturbation
from training.evaluation.schema import Compared, Comparison, OnSample
from training.report.tables import Row, Table, insertion_deletion
from training.report.wording import comparison_text, estimate_text, heatmap_name, seconds_text

__all__ = ["comparison_tables", "reading_of_comparison", "rows_by_name"]

_NAMES = {
    Perturbation.LIME: "LIME",
    Perturbation.KERNELSHAP: "KernelSHAP",
    Perturbation.RISE: "RISE",
}


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Boxes, where photos have them; insertion and deletion; agreement and cost."""
    compared, all_rows = _compared_by_name(comparison), rows_by_name(comparison)
    photos = f"{comparison.photos} photos"
    if comparison.baselines.constant_box.mean_iou is not None:
        yield Table(
            f"Boxes, {photos}: each photo's is drawn at the threshold that is best for the others, "
            "of every method",
            (
                "heatmap",
                "mean IoU",
                "beside the constant box",
                "share with an IoU of 0.5 or more",
                "pointing game",
                "best threshold",
            ),
            [_box_row(name, figures) for name, figures in all_rows.items()],
        )
    yield insertion_deletion(
        f"Insertion (more is better) and deletion (less is better), {photos}", all_rows
    )
    yield Table(
        f"Agreement with Grad-CAM at the last layer, and the cost of a heatmap, {photos}",
        (
            "heatmap",
            "rank correlation",
            "structural similarity",
            "photos left out of both",
            "photos with a blank heatmap for one class or both",
            "model calls",
            "seconds",
        ),
        [
            (
                name,
                estimate_text(figures.rank_correlation),
                estimate_text(figures.structural_similarity),
                "" if figures.similarity_blank is None else str(figures.similarity_blank),
                str(figures.blank),
                f"{figures.model_calls:,g}",
                seconds_text(figures.seconds),
            )
            for name, figures in compared.items()
        ],
    )


def reading_of_comparison(comparison: Comparison) -> Iterator[str]:
    """The figures beside Grad-CAM's and the constant box's, and the cost; no winner is named."""
    methods, gradcam = comparison.perturbation, comparison.methods[Method.GRADCAM]["last"]
    names = listed("{}", [_NAMES[method] for method in methods])
    yield (
        f"{names} explained the same {comparison.photos} photos as the CAM family, from "
        f"{comparison.samples:,} perturbed copies of each."
    )
    rows: dict[str, OnSample] = {
        "Grad-CAM at the last layer": gradcam,
        "the constant box": comparison.baselines.constant_box,
        **{_NAMES[method]: figures for method, figures in methods.items()},
    }
    for title, figure in (
        ("Mean IoU", "mean_iou"),
        ("Insertion (more is better)", "insertion"),
        ("Deletion (less is better)", "deletion"),
    ):
        values = [
            f"{estimate.value:.3f} for {name}"
            for name, figures in rows.items()
            if (estimate := getattr(figures, figure)) is not None
        ]
        if values:
            yield f"{title}: {listed('{}', values)}."
    yield (
        "The tables compare each heatmap with the constant box, photo by photo. Whether two "
        "methods differ from each other was not tested."
    )
    costs = [
        f"{_NAMES[method]} runs it on {figures.model_calls:,g} photos, in "
        f"{seconds_text(figures.seconds)} s"
        for method, figures in methods.items()
    ]
    yield (
        "For a heatmap, Grad-CAM at the last layer runs the model on one photo, in "
        f"{seconds_text(gradcam.seconds)} s; {'; '.join(costs)}."
    )


def _compared_by_name(comparison: Comparison) -> dict[str, Compared]:
    """Every method's figures by name."""
    within = {
        heatmap_name(method, layers): figures
        for method, sets in comparison.methods.items()
        for layers, figures in sets.items()
    }
    outside = {_NAMES[method]: figures for method, figures in comparison.perturbation.items()}
    return within | outside


def rows_by_name(comparison: Comparison) -> dict[str, OnSample]:
    """The figures of the baselines, then every method's, by name."""
    baselines = comparison.baselines
    return {
        "constant box": baselines.constant_box,
        "full frame": baselines.full_frame,
        **_compared_by_name(comparison),
    }


def _box_row(name: str, figures: OnSample) -> Row:
    iou = figures.mean_iou
    return (
        name,
        estimate_text(iou),
        comparison_text(iou.difference, iou.difference_interval) if iou else "",
        estimate_text(figures.gt_known_localization),
        estimate_text(figures.pointing_game),
        f"{figures.threshold:g}"
        if isinstance(figures, Compared) and figures.threshold is not None
        else "",
    )
