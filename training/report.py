"""A page that tells what `evaluate` measured: from its JSON alone, and complete in itself."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TypeVar

from app.bundle import Rule
from training import report_plots
from training.errors import ReportError
from training.explanations import FUSED
from training.figures import BASELINES
from training.markup import HTML, details, figure, html, join, link, paragraph, section, table
from training.places import in_project
from training.reading import reading
from training.report_figures import (
    BoxMetrics,
    Faithfulness,
    Figures,
    Localization,
    OfMethods,
    Randomization,
    Shown,
    read,
)
from training.wording import interval, measured, named, signed

__all__ = ["page", "plots", "report"]

T = TypeVar("T")

_KINDS = {
    "correct": "Correctly classified, drawn by lot",
    "best": "Where Grad-CAM's box fits best",
    "worst": "Where Grad-CAM's box fits worst",
}

_PAPERS = {
    "CAM": "https://arxiv.org/abs/1512.04150",
    "Grad-CAM": "https://arxiv.org/abs/1610.02391",
    "MaxBoxAccV2": "https://arxiv.org/abs/2001.07437",
    "insertion and deletion": "https://arxiv.org/abs/1806.07421",
    "model randomisation": "https://arxiv.org/abs/1810.03292",
}

_TEMPLATE = Path(__file__).with_name("report.html")


def report(source: Path, place: Path) -> Path:
    """Write `index.html` and its plots, as PNG files beside it.

    Args:
        source: what `evaluate --out` wrote.
        place: the report's directory, made where there is none.

    Returns:
        The page.

    Raises:
        ReportError: the figures cannot be read or are something else; they show photos, and
            `place` is within the project; or nothing can be written there.
    """
    figures = read(source)
    if figures.gallery and in_project(place):
        raise ReportError(
            f"--out {place}: {source} shows photos, which must not get into the repository. Name a "
            "directory outside of the project."
        )
    drawn = plots(figures)
    index = place / "index.html"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in drawn.items():
            (place / name).write_bytes(content)
        index.write_text(page(figures, drawn), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"--out {place} cannot be written: {error.strerror}.") from error
    return index


def plots(figures: Figures) -> dict[str, bytes]:
    """The plots, as PNG, by file name; none where no photo has a box."""
    told = figures.localization
    if told is None:
        return {}
    constant = told.baselines.constant_box.mean_iou.value
    drawn = {}
    for method in ("cam", "gradcam"):
        if method in figures.per_photo[0].iou:
            ious = {Rule.HEATMAP: [photo.iou[method]["last"] for photo in figures.per_photo]}
            if told.rule(method) is Rule.FUSED:
                ious[Rule.FUSED] = [photo.fused[method]["last"] for photo in figures.per_photo]
            drawn[f"iou-{method}.png"] = report_plots.histogram(ious, constant)
    drawn["curves.png"] = report_plots.curves(figures.curves, constant)
    return drawn


def page(figures: Figures, drawn: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        figures: what it tells.
        drawn: see `plots`.
    """
    model = f"{figures.model.name} {figures.model.version}"
    parts = [
        section("Reading", *(paragraph(told) for told in reading(figures))),
        section("Accuracy", _accuracy(figures), *_confused(figures), _breeds(figures)),
    ]
    if figures.localization is not None:
        parts += [
            section("Boxes and heatmaps", *_localization(figures.localization)),
            section("IoU of each photo", *_histograms(figures, drawn)),
            section("Thresholds", *_thresholds(figures, drawn["curves.png"])),
        ]
    parts += [
        section("Do heatmaps show what the model uses?", *_sanity(figures)),
        section("Gallery", *_gallery(figures)),
        section("Papers", paragraph(*(link(url, name) for name, url in _PAPERS.items()))),
    ]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html(f"{model}: evaluation on the {figures.split} split"),
        subtitle=html(
            f"{figures.photos} photos, {figures.photos_with_boxes} of them with boxes; "
            f"engine {figures.engine}. {f'{figures.note}. ' if figures.note else ''}"
            "In brackets: 95 % intervals."
        ),
        content=join(parts),
    )


def _accuracy(figures: Figures) -> HTML:
    rows = [
        ("top-1 accuracy", f"{figures.top1:.3f} {interval(figures.top1_interval)}"),
        ("top-5 accuracy", f"{figures.top5:.3f} {interval(figures.top5_interval)}"),
    ]
    if figures.ece is not None:
        rows.append(("expected calibration error", f"{figures.ece:.3f}"))
    if figures.confidence_ok is not None:
        rows.append(("share of answers with confidence ok", f"{figures.confidence_ok:.3f}"))
    return table("Over all photos", ("figure", "value"), rows)


def _confused(figures: Figures) -> Iterator[HTML]:
    if figures.most_confused:
        yield table(
            "Most confused: of the first breed, so many photos are taken for the second",
            ("breed", "taken for", "photos", "share of the breed's photos"),
            (
                (pair.true, pair.predicted, str(pair.count), f"{pair.share:.3f}")
                for pair in figures.most_confused
            ),
        )


def _breeds(figures: Figures) -> HTML:
    def shown(iou: float | None) -> str:
        return "" if iou is None else f"{iou:.3f}"

    return table(
        "By breed, the best first; mean IoU at the last layer by the rule heatmap",
        (
            *("breed", "photos", "accuracy", "with boxes", "mean IoU, CAM", "mean IoU, Grad-CAM"),
            *("mean IoU, constant box", "mean IoU, full frame"),
        ),
        (
            (
                name,
                str(breed.photos),
                f"{breed.top1:.3f}",
                str(breed.photos_with_boxes),
                *(shown(breed.mean_iou.get(one, {}).get("last")) for one in ("cam", "gradcam")),
                *(shown(breed.mean_iou_baselines.get(one)) for one in BASELINES),
            )
            for name, breed in sorted(figures.breeds.items(), key=lambda item: -item[1].top1)
        ),
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


def _localization(told: Localization) -> Iterator[HTML]:
    guesses = [
        _box_row("constant box, 80 % x 90 %, centred", "", told.baselines.constant_box),
        _box_row("full frame", "", told.baselines.full_frame),
        _box_row("Grad-CAM, last layer", "customary", told.customary),
    ]
    yield table(
        "Methods, beside guesses that look at no photo and the customary rule",
        _BOX_HEAD,
        [*guesses, *_box_rows(told, main=True)],
    )
    others = list(_box_rows(told, main=False))
    if others:
        yield details("Single layers", table("Methods at single layers", _BOX_HEAD, others))


def _box_rows(told: Localization, *, main: bool) -> Iterator[tuple[str, ...]]:
    """Each method's, by the rule `heatmap` and, where there is it, `fused` after it."""
    for method, sets in told.methods.items():
        for layers, metrics in sets.items():
            if (layers in FUSED) is not main:
                continue
            yield _box_row(named(method, layers), Rule.HEATMAP.value, metrics)
            fused = told.fused.get(method, {}).get(layers)
            if fused is not None:
                yield _box_row(named(method, layers), Rule.FUSED.value, fused)


def _box_row(name: str, rule: str, told: BoxMetrics) -> tuple[str, ...]:
    iou = told.mean_iou
    others = (told.gt_known_localization, told.top1_localization, told.max_box_acc_v2)
    of_heatmap = (told.pointing_game, told.energy_in_box)
    return (
        name,
        rule,
        measured(iou),
        signed(iou.difference, iou.difference_interval),
        signed(iou.difference_to_heatmap, iou.difference_to_heatmap_interval),
        *map(measured, (*others, *of_heatmap)),
    )


def _histograms(figures: Figures, drawn: Mapping[str, bytes]) -> Iterator[HTML]:
    told = figures.localization
    if told is None:
        return
    constant = told.baselines.constant_box.mean_iou.value
    for method in ("cam", "gradcam"):
        name, served = f"iou-{method}.png", told.served(method)
        if name in drawn and served is not None:
            yield figure(
                drawn[name],
                "image/png",
                f"Histogram of the IoU of {named(method, 'last')} over {len(figures.per_photo)} "
                f"photos; mean {served.mean_iou.value:.3f} by the rule {told.rule(method).value}, "
                f"mean of the constant box {constant:.3f}.",
                f"{named(method, 'last')}: photos by the IoU of their box. Dashed: means. Dotted: "
                "the constant box's mean.",
            )


def _thresholds(figures: Figures, drawn: bytes) -> Iterator[HTML]:
    yield figure(
        drawn,
        "image/png",
        "Mean IoU over the threshold, for each method; the table below has each curve's threshold "
        "in use and its best one.",
        "Mean IoU of the boxes at each threshold. Dots: the calibrated threshold, or the default "
        "one where there is none. Dotted: the constant box.",
    )
    yield table(
        "Thresholds, and what the best one for these photos would have",
        (
            "heatmap",
            "rule",
            "threshold",
            "best threshold",
            "mean IoU at the best",
            "mean IoU at each photo's best (oracle)",
        ),
        (
            (
                named(method, layers),
                rule.value,
                f"{curve.threshold:g}{'' if curve.calibrated else ' (default)'}",
                f"{curve.best_threshold:g}",
                f"{curve.best_mean_iou:.3f}",
                f"{curve.oracle_mean_iou:.3f}",
            )
            for method, sets in figures.curves.items()
            for layers, told in sets.items()
            for rule, curve in told.rules.items()
        ),
    )


def _sanity(figures: Figures) -> Iterator[HTML]:
    if figures.faithfulness is not None:
        yield _faithfulness(figures.faithfulness)
    if figures.randomization is not None:
        yield _randomization(figures.randomization)
    if figures.faithfulness is None and figures.randomization is None:
        yield paragraph("Not measured: the figures were made with --sample 0.")


def _faithfulness(told: Faithfulness) -> HTML:
    guesses = {
        "constant box": told.baselines.constant_box,
        "full frame": told.baselines.full_frame,
    }
    return table(
        f"Insertion (more is better) and deletion (less is better), {told.photos} photos; each "
        "beside its difference to the constant box",
        ("heatmap", "insertion", "difference", "deletion", "difference"),
        (
            (
                name,
                measured(one.insertion),
                signed(one.insertion.difference, one.insertion.difference_interval),
                measured(one.deletion),
                signed(one.deletion.difference, one.deletion.difference_interval),
            )
            for name, one in {**guesses, **_flat(told.methods)}.items()
        ),
    )


def _randomization(told: Randomization) -> HTML:
    stages = {layer: _flat(one) for layer, one in told.down_to.items()}
    names = dict.fromkeys(name for one in stages.values() for name in one)
    return table(
        "Rank correlation with the model's own heatmaps once the layers from the head down to the "
        f"one named hold their weights in a random order, {told.photos} photos",
        ("heatmap", *stages),
        (
            (
                name,
                *(
                    measured(one[name].rank_correlation) if name in one else ""
                    for one in stages.values()
                ),
            )
            for name in names
        ),
    )


def _flat(tree: OfMethods[T]) -> dict[str, T]:
    return {
        named(method, layers): one for method, sets in tree.items() for layers, one in sets.items()
    }


def _gallery(figures: Figures) -> Iterator[HTML]:
    if not figures.gallery:
        yield paragraph("Left out: the figures hold no pictures (evaluate --gallery N adds some).")
        return
    yield paragraph(
        "Green: the box found for the true breed. White: the true boxes. Boxes are the service's "
        "by its default rule."
    )
    for kind, title in _KINDS.items():
        shown: Sequence[Shown] = figures.gallery.get(kind, [])
        if shown:
            yield HTML(f"<h3>{html(title)}</h3>")
            yield HTML(f'<div class="gallery">\n{join(map(_photo, shown))}\n</div>')


def _photo(shown: Shown) -> HTML:
    verdict = "right" if shown.right else f"taken for {shown.predicted}"
    pictures = [
        figure(
            one.data,
            one.media_type,
            f"{named(method)} over {shown.name}, {shown.breed}; the box's IoU is {one.iou:.3f}.",
            f"{named(method)}, rule {one.rule.value}: IoU {one.iou:.3f}",
            (one.width, one.height),
        )
        for method, one in shown.overlays.items()
    ]
    heading = HTML(f"<h4>{html(shown.breed)}, {html(verdict)}</h4>\n<p>{html(shown.name)}</p>")
    return HTML(f"<article>\n{heading}\n{join(pictures)}\n</article>")
