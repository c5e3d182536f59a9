"""The tables of a report: what `evaluate` measured, as text in rows."""

from collections.abc import Iterator, Mapping, Sequence
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
    InsertionDeletion,
    Localization,
    Randomization,
    Similarity,
)
from training.report.wording import (
    BLANK_AS_ZERO,
    comparison_text,
    estimate_text,
    heatmap_name,
    interval_text,
)

__all__ = [
    "Row",
    "Table",
    "insertion_deletion",
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
    """A table whose rows are headed by their first cell.

    Attributes:
        caption: shown above it.
        head: of the columns.
        rows: cells as text; an interval after a value, in brackets, goes below it.
        bars: columns of shares, 0..1, that are drawn as bars too.
        tall: so many rows that they scroll in a box of their own.
    """

    caption: str
    head: Row
    rows: Sequence[Row]
    bars: frozenset[int] = frozenset()
    tall: bool = False


_BOX_HEAD = (
    "heatmap",
    "rule",
    "mean IoU",
    "beside the constant box",
    "beside the rule heatmap",
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
        comparison_text(iou.difference, iou.difference_interval),
        comparison_text(iou.difference_to_heatmap, iou.difference_to_heatmap_interval),
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
    return insertion_deletion(
        f"Insertion (more is better) and deletion (less is better), {faithfulness.photos} photos; "
        "each beside the constant box",
        by_name,
    )


def insertion_deletion(title: str, by_name: Mapping[str, InsertionDeletion]) -> Table:
    """Both areas of each heatmap, and how they differ from the constant box's."""
    return Table(
        title,
        (
            "heatmap",
            "insertion",
            "insertion, beside the constant box",
            "deletion",
            "deletion, beside the constant box",
        ),
        [
            (
                name,
                estimate_text(areas.insertion),
                comparison_text(areas.insertion.difference, areas.insertion.difference_interval),
                estimate_text(areas.deletion),
                comparison_text(
                    areas.deletion.difference,
                    areas.deletion.difference_interval,
                    less_is_better=True,
                ),
            )
            for name, areas in by_name.items()
        ],
    )


def _randomization(randomization: Randomization) -> Table:
    stages = {layer: _by_name(similarity) for layer, similarity in randomization.down_to.items()}
    names = dict.fromkeys(name for stage in stages.values() for name in stage)
    counted = all(row.blank is not None for stage in stages.values() for row in stage.values())
    blank = (
        "or constant heatmap are counted and left out" if counted else f"heatmap {BLANK_AS_ZERO}"
    )
    return Table(
        "Rank correlation with the model's own heatmaps after shuffling the weights of all layers "
        f"from the head down to the one named, {randomization.photos} photos; photos with a blank "
        f"{blank}",
        ("heatmap", *stages),
        [
            (
                name,
                *(
                    _similarity_text(stage[name], randomization.photos) if name in stage else ""
                    for stage in stages.values()
                ),
            )
            for name in names
        ],
    )


def _similarity_text(similarity: Similarity, photos: int) -> str:
    """`0.100 [0.000, 0.200], 3 left out`."""
    if similarity.rank_correlation is None:
        return f"all {photos} left out"
    left_out = f", {similarity.blank} left out" if similarity.blank else ""
    return f"{estimate_text(similarity.rank_correlation)}{left_out}"


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
