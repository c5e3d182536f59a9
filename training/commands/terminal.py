"""What subcommands print: messages, and short tables of what was calibrated or measured."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.bundle import Method, ModelCard, Rule
from training.evaluation.inference import FUSED
from training.evaluation.schema import (
    BoxMetrics,
    Breed,
    Compared,
    Comparison,
    Evaluation,
    Localization,
)
from training.report.comparison import rows_by_name
from training.report.wording import (
    estimate_text,
    heatmap_name,
    interval_text,
    seconds_text,
    shows_top5,
)

if TYPE_CHECKING:
    from training.export.int8.gate import Loss

__all__ = ["calibration", "comparison", "evaluation", "int8", "say"]

BREEDS = 5
"""How many of the best and of the worst breeds are listed, and of the most confused pairs."""

Rows = Sequence[Sequence[str]]


def say(message: str) -> None:
    """Write to standard error: standard output is for results."""
    print(message, file=sys.stderr, flush=True)


def columns(rows: Rows) -> list[str]:
    """Lines of a table whose columns are as wide as their longest cell, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def calibration(card: ModelCard, *, boxes: tuple[int, int], validation: tuple[int, int]) -> str:
    """A table of what was calibrated.

    Args:
        card: as it is written.
        boxes: how many photos with boxes were used, and of how many; 0: thresholds are as before.
        validation: the same of validation photos.
    """
    lines = [f"{card.name} {card.version}"]
    limits = card.confidence
    if limits is not None:
        novelty = "" if limits.most_novelty is None else f", novelty {limits.most_novelty:.4g}"
        lines += [
            f"Confidence, on {_of(validation)} validation photos: temperature "
            f"{limits.temperature:g}, calibration error {limits.ece_before:.3f} before and "
            f"{limits.ece:.3f} with it.",
            f"Limits: probability {limits.least_probability:.3f}, foreground "
            f"{limits.least_foreground:.4g}{novelty}.",
        ]
    if boxes[0]:
        lines.append(f"Boxes, on {_of(boxes)} photos with boxes, drawn evenly by breed:")
        rows = [("heatmap", "threshold", "fused: foreground", "threshold")]
        for method, thresholds in card.thresholds.items():
            for layers in (name for name in FUSED if name in thresholds):
                fused = card.fused.get(method, {}).get(layers)
                shares = (
                    ("", "") if fused is None else (f"{fused.foreground:g}", f"{fused.threshold:g}")
                )
                rows.append((heatmap_name(method, layers), f"{thresholds[layers]:g}", *shares))
        lines += columns(rows)
        others = sum(len(sets.keys() - set(FUSED)) for sets in card.thresholds.values())
        if others:
            lines.append(f"And {others} thresholds at single layers.")
    return "\n".join(lines)


def int8(losses: "Sequence[Loss]", precision: str) -> str:
    """A table of what the graph in 8-bit integers was held to.

    Args:
        losses: of all figures.
        precision: that it is compared with.
    """
    rows = [
        (loss.name, f"{loss.before:.4f}", f"{loss.after:.4f}", f"{100 * loss.lost:+.2f}")
        for loss in losses
    ]
    return "\n".join(columns([("", precision, "int8", "points lost"), *rows]))


def _of(counts: tuple[int, int]) -> str:
    used, total = counts
    return f"all {total:,}" if used == total else f"{used:,} of {total:,}"


def evaluation(figures: Evaluation) -> str:
    """A short table of what `evaluate` measured."""
    model, note = figures.model, figures.note
    lines = [
        f"{model.name} {model.version} on {figures.photos:,} photos of the {figures.split} split, "
        f"{figures.photos_with_boxes:,} with boxes{f' ({note})' if note else ''}; "
        f"{figures.engine}; in brackets 95 % intervals",
        "",
        *columns(list(_accuracy(figures))),
    ]
    if figures.localization is not None:
        head = ("boxes, for the true breed", "mean IoU", "share with an IoU of 0.5 or more")
        lines += ["", *columns([head, *_boxes(figures.localization)])]
    pairs = figures.most_confused[:BREEDS]
    if pairs:
        lines += ["", "most confused"]
        lines += [
            f"  {pair.true} taken for {pair.predicted}: {pair.count} ({pair.share:.0%})"
            for pair in pairs
        ]
    order = sorted(figures.breeds.items(), key=lambda item: (-item[1].top1, item[0]))
    count = min(BREEDS, len(order) // 2)
    if count:
        lines += ["", f"best breeds:  {_listed(order[:count])}"]
        lines += [f"worst breeds: {_listed(order[::-1][:count])}"]
    return "\n".join(lines)


def _accuracy(figures: Evaluation) -> Iterator[tuple[str, str]]:
    yield "top-1 accuracy", f"{figures.top1:.3f} {interval_text(figures.top1_interval)}"
    if shows_top5(figures):
        yield "top-5 accuracy", f"{figures.top5:.3f} {interval_text(figures.top5_interval)}"
    if figures.ece is not None:
        yield "expected calibration error", f"{figures.ece:.3f}"
    if figures.confidence_ok is not None:
        yield "share with confidence ok", f"{figures.confidence_ok:.3f}"


def _boxes(localization: Localization) -> Iterator[tuple[str, str, str]]:
    """CAM and Grad-CAM at the last layer by both rules, and what needs no calibration."""
    by_rule = {Rule.FUSED: localization.fused, Rule.HEATMAP: localization.methods}
    for method in (Method.CAM, Method.GRADCAM):
        for rule, methods in by_rule.items():
            metrics = methods.get(method, {}).get("last")
            if metrics is not None:
                yield _box(heatmap_name(method, "last", rule), metrics)
    yield _box("Grad-CAM, customary threshold (15 %)", localization.customary)
    yield _box("constant box", localization.baselines.constant_box)
    yield _box("full frame", localization.baselines.full_frame)


def _box(name: str, metrics: BoxMetrics) -> tuple[str, str, str]:
    return name, estimate_text(metrics.mean_iou), estimate_text(metrics.gt_known_localization)


def comparison(figures: Comparison) -> str:
    """A short table of the methods that perturb photos beside the CAM family and the baselines."""
    samples = f"{figures.photos} photos, {figures.samples:,} perturbed ones each"
    rows: list[tuple[str, ...]] = [
        (samples, "mean IoU", "insertion", "deletion", "model calls", "seconds")
    ]
    for name, row in rows_by_name(figures).items():
        cost = ("", "")
        if isinstance(row, Compared):
            cost = (f"{row.model_calls:,g}", seconds_text(row.seconds))
        estimates = (row.mean_iou, row.insertion, row.deletion)
        rows.append((name, *map(estimate_text, estimates), *cost))
    return "\n".join(columns(rows))


def _listed(breeds: Sequence[tuple[str, Breed]]) -> str:
    return ", ".join(f"{name} {breed.top1:.2f}" for name, breed in breeds)
