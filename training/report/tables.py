"""The tables of a report: what `evaluate` measured, as text in rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.bundle import Method, Rule
from app.preferences import Summary
from training.evaluation.inference import FUSED
from training.evaluation.schema import (
    BoxMetrics,
    ByMethod,
    Curves,
    Evaluation,
    Faithfulness,
    Localization,
    Randomization,
)
from training.report.wording import difference_text, estimate_text, heatmap_name, interval_text

__all__ = [
    "Table",
    "accuracy",
    "breeds",
    "confusions",
    "methods",
    "rated_methods",
    "rated_pairs",
    "sanity_checks",
    "single_layers",
    "thresholds",
]

T = TypeVar("T")

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows are headed by their first cell."""

    caption: str
    head: Row
    rows: Sequence[Row]


def accuracy(evaluation: Evaluation) -> Table:
    """Accuracy and, where the model is calibrated, how far probabilities can be trusted."""
    rows = [
        ("top-1 accuracy", f"{evaluation.top1:.3f} {interval_text(evaluation.top1_interval)}"),
        ("top-5 accuracy", f"{evaluation.top5:.3f} {interval_text(evaluation.top5_interval)}"),
    ]
    if evaluation.ece is not None:
        rows.append(("expected calibration error", f"{evaluation.ece:.3f}"))
    if evaluation.confidence_ok is not None:
        rows.append(("share of answers with confidence ok", f"{evaluation.confidence_ok:.3f}"))
    return Table("Over all photos", ("figure", "value"), rows)


def confusions(evaluation: Evaluation) -> Table | None:
    """The most confused breeds; None where every photo is right."""
    if not evaluation.most_confused:
        return None
    return Table(
        "Most confused: photos of one breed that are taken for another",
        ("breed", "taken for", "photos", "share of the breed's photos"),
        [
            (pair.true, pair.predicted, str(pair.count), f"{pair.share:.3f}")
            for pair in evaluation.most_confused
        ],
    )


def breeds(evaluation: Evaluation) -> Table:
    """Accuracy and mean IoUs of every breed."""

    def last(ious: ByMethod[float] | None, method: Method) -> float | None:
        return (ious or {}).get(method, {}).get("last")

    def text(iou: float | None) -> str:
        return "" if iou is None else f"{iou:.3f}"

    rows = []
    for name, breed in sorted(evaluation.breeds.items(), key=lambda item: -item[1].top1):
        baselines = breed.mean_iou_baselines
        rows.append(
            (
                name,
                str(breed.photos),
                f"{breed.top1:.3f}",
                str(breed.photos_with_boxes),
                text(last(breed.mean_iou, Method.CAM)),
                text(last(breed.mean_iou, Method.GRADCAM)),
                text(baselines.constant_box if baselines else None),
                text(baselines.full_frame if baselines else None),
            )
        )
    return Table(
        "By breed, the best first; mean IoU at the last layer by the rule heatmap",
        (
            "breed",
            "photos",
            "accuracy",
            "with boxes",
            "mean IoU, CAM",
            "mean IoU, Grad-CAM",
            "mean IoU, constant box",
            "mean IoU, full frame",
        ),
        rows,
    )


_BOX_HEAD = (
    "heatmap",
    "rule",
    "mean IoU",
    "difference to the constant box",
    "difference to the rule heatmap",
    "GT-known localisation",
    "top-1 localisation",
    "MaxBoxAccV2",
    "pointing game",
    "energy in box",
)


def methods(localization: Localization) -> Table:
    """The baselines, the customary rule, and methods at the last layer and the last six."""
    baselines = localization.baselines
    return Table(
        "Methods, beside the constant box, the full frame and the customary rule",
        _BOX_HEAD,
        [
            _box_row("constant box, 80 % x 90 %, centred", "", baselines.constant_box),
            _box_row("full frame", "", baselines.full_frame),
            _box_row("Grad-CAM, last layer", "customary", localization.customary),
            *_box_rows(localization, main=True),
        ],
    )


def single_layers(localization: Localization) -> Table | None:
    """Methods at single layers but the last; None where there are none."""
    rows = list(_box_rows(localization, main=False))
    return Table("Methods at single layers", _BOX_HEAD, rows) if rows else None


def _box_rows(localization: Localization, *, main: bool) -> Iterator[Row]:
    """Every method's by the rule `heatmap`, followed by the rule `fused` where it is calibrated."""
    for method, sets in localization.methods.items():
        for layers, metrics in sets.items():
            if (layers in FUSED) is not main:
                continue
            yield _box_row(heatmap_name(method, layers), Rule.HEATMAP.value, metrics)
            fused = localization.fused.get(method, {}).get(layers)
            if fused is not None:
                yield _box_row(heatmap_name(method, layers), Rule.FUSED.value, fused)


def _box_row(name: str, rule: str, metrics: BoxMetrics) -> Row:
    iou = metrics.mean_iou
    return (
        name,
        rule,
        estimate_text(iou),
        difference_text(iou.difference, iou.difference_interval),
        difference_text(iou.difference_to_heatmap, iou.difference_to_heatmap_interval),
        estimate_text(metrics.gt_known_localization),
        estimate_text(metrics.top1_localization),
        estimate_text(metrics.max_box_acc_v2),
        estimate_text(metrics.pointing_game),
        estimate_text(metrics.energy_in_box),
    )


def thresholds(curves: ByMethod[Curves]) -> Table:
    """Every curve's threshold in use, and its best one."""
    return Table(
        "Thresholds: those in use, and the best for these photos",
        (
            "heatmap",
            "rule",
            "threshold",
            "best threshold",
            "mean IoU at the best",
            "mean IoU at each photo's best (oracle)",
        ),
        [
            (
                heatmap_name(method, layers),
                rule.value,
                f"{curve.threshold:g}{'' if curve.calibrated else ' (default)'}",
                f"{curve.best_threshold:g}",
                f"{curve.best_mean_iou:.3f}",
                f"{curve.oracle_mean_iou:.3f}",
            )
            for method, sets in curves.items()
            for layers, by_rule in sets.items()
            for rule, curve in by_rule.rules.items()
        ],
    )


def sanity_checks(evaluation: Evaluation) -> Iterator[Table]:
    """Insertion and deletion, and model randomisation, where they were measured."""
    if evaluation.faithfulness is not None:
        yield _faithfulness(evaluation.faithfulness)
    if evaluation.randomization is not None:
        yield _randomization(evaluation.randomization)


def _faithfulness(faithfulness: Faithfulness) -> Table:
    by_name = {
        "constant box": faithfulness.baselines.constant_box,
        "full frame": faithfulness.baselines.full_frame,
        **_by_name(faithfulness.methods),
    }
    return Table(
        f"Insertion (more is better) and deletion (less is better), {faithfulness.photos} photos; "
        "each beside its difference to the constant box",
        ("heatmap", "insertion", "difference", "deletion", "difference"),
        [
            (
                name,
                estimate_text(areas.insertion),
                difference_text(areas.insertion.difference, areas.insertion.difference_interval),
                estimate_text(areas.deletion),
                difference_text(areas.deletion.difference, areas.deletion.difference_interval),
            )
            for name, areas in by_name.items()
        ],
    )


def _randomization(randomization: Randomization) -> Table:
    stages = {layer: _by_name(similarity) for layer, similarity in randomization.down_to.items()}
    names = dict.fromkeys(name for stage in stages.values() for name in stage)
    return Table(
        "Rank correlation with the model's own heatmaps after shuffling the weights of all layers "
        f"from the head down to the one named, {randomization.photos} photos",
        ("heatmap", *stages),
        [
            (
                name,
                *(
                    estimate_text(stage[name].rank_correlation) if name in stage else ""
                    for stage in stages.values()
                ),
            )
            for name in names
        ],
    )


def _by_name(figures: ByMethod[T]) -> dict[str, T]:
    return {
        heatmap_name(method, layers): figure
        for method, sets in figures.items()
        for layers, figure in sets.items()
    }


def rated_pairs(summary: Summary) -> Table:
    """Which of two heatmaps raters prefer."""
    rows = [
        (
            f"{_rated_name(pair.methods[0])} or {_rated_name(pair.methods[1])}",
            str(pair.wins[0]),
            str(pair.wins[1]),
            str(pair.same),
            "" if pair.win_rate is None else f"{pair.win_rate:.3f}",
            "" if pair.interval is None else interval_text(pair.interval),
        )
        for pair in summary.pairs
    ]
    head = ("pair", "first better", "second better", "the same", "win rate of the first", "95 %")
    return Table("Which explains better", head, rows)


def rated_methods(summary: Summary) -> Table:
    """How often a method's heatmap misses the dog, and its strength where there is an estimate."""
    rows = [
        (
            _rated_name(score.method),
            str(score.shown),
            str(score.misses),
            "" if score.strength is None else f"{score.strength:.3f}",
            "" if score.interval is None else interval_text(score.interval),
        )
        for score in summary.methods
    ]
    head = ("heatmap", "shown", "misses the dog", "Bradley-Terry strength", "95 %")
    return Table("Over all pairs", head, rows)


def _rated_name(name: str) -> str:
    method, _, layers = name.partition("/")
    return heatmap_name(Method(method), layers)
