"""What subcommands print: messages, and short tables of what was calibrated or measured."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.bundle import ModelCard
from training.explanations import FUSED
from training.wording import interval, named, placed

__all__ = ["calibration", "evaluation", "say"]

BREEDS = 5
"""How many of the best and of the worst breeds are listed, and of the most confused pairs."""

Figures = Mapping[str, Any]
Rows = Sequence[Sequence[str]]


def say(message: str) -> None:
    """Speak to the person at the terminal; standard output is for results."""
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
                rows.append((named(method.value, layers), f"{thresholds[layers]:g}", *shares))
        lines += columns(rows)
        others = sum(len(sets.keys() - set(FUSED)) for sets in card.thresholds.values())
        if others:
            lines.append(f"And {others} thresholds at single layers.")
    return "\n".join(lines)


def _of(counts: tuple[int, int]) -> str:
    used, there = counts
    return f"all {there:,}" if used == there else f"{used:,} of {there:,}"


def evaluation(figures: Figures) -> str:
    """A short table of what `evaluate` measured."""
    model, note = figures["model"], figures.get("note")
    lines = [
        f"{model['name']} {model['version']} on {figures['photos']:,} photos of the "
        f"{figures['split']} split, {figures['photos_with_boxes']:,} with boxes"
        f"{f' ({note})' if note else ''}; {figures['engine']}; in brackets 95 % intervals",
        "",
        *columns(list(_accuracy(figures))),
    ]
    if figures["localization"]:
        head = ("boxes, for the true breed", "mean IoU", "share with an IoU of 0.5 or more")
        lines += ["", *columns([head, *_boxes(figures["localization"])])]
    pairs = figures["most_confused"][:BREEDS]
    if pairs:
        lines += ["", "most confused"]
        lines += [
            f"  {pair['true']} taken for {pair['predicted']}: {pair['count']} ({pair['share']:.0%})"
            for pair in pairs
        ]
    order = sorted(figures["breeds"].items(), key=lambda item: (-item[1]["top1"], item[0]))
    count = min(BREEDS, len(order) // 2)
    if count:
        lines += ["", f"best breeds:  {_listed(order[:count])}"]
        lines += [f"worst breeds: {_listed(order[::-1][:count])}"]
    return "\n".join(lines)


def _accuracy(figures: Figures) -> Iterator[tuple[str, str]]:
    for k in (1, 5):
        shown = f"{figures[f'top{k}']:.3f} {interval(figures[f'top{k}_interval'])}"
        yield f"top-{k} accuracy", shown
    if "ece" in figures:
        yield "expected calibration error", f"{figures['ece']:.3f}"
        yield "share with confidence ok", f"{figures['confidence_ok']:.3f}"


def _boxes(localization: Figures) -> Iterator[tuple[str, str, str]]:
    """CAM and Grad-CAM at the last layer, by each rule, and what needs no calibration."""
    for method in ("cam", "gradcam"):
        for rule, trees in (("fused", "fused"), ("heatmap", "methods")):
            metrics = localization[trees].get(method, {}).get("last")
            if metrics is not None:
                yield _box(f"{named(method)}, {placed('last')}, rule {rule}", metrics)
    yield _box("Grad-CAM, customary threshold (15 %)", localization["customary"])
    yield _box("constant box", localization["baselines"]["constant_box"])
    yield _box("full frame", localization["baselines"]["full_frame"])


def _box(name: str, metrics: Figures) -> tuple[str, str, str]:
    iou, share = (
        f"{metrics[key]['value']:.3f} {interval(metrics[key]['interval'])}"
        for key in ("mean_iou", "gt_known_localization")
    )
    return name, iou, share


def _listed(breeds: Sequence[tuple[str, Figures]]) -> str:
    return ", ".join(f"{name} {breed['top1']:.2f}" for name, breed in breeds)
