"""Sentences that say what the figures of an evaluation mean, and no more than they do."""

from collections.abc import Iterator, Sequence

import numpy as np

from app.bundle import Method, Rule
from training.evaluation.metrics import estimate, mean, resample
from training.evaluation.schema import Estimate, Evaluation, Localization, PhotoResult
from training.report.breeds import served_ious
from training.report.comparison import reading_of_comparison
from training.report.wording import (
    BLANK_AS_ZERO,
    clear_of_zero,
    comparison_text,
    difference_text,
    estimate_text,
    heatmap_name,
    interval_text,
    shows_top5,
)

__all__ = ["paired", "reading"]

_NEARLY = 0.05
"""Mean distance of two methods' IoUs under which they are called nearly the same."""


def reading(figures: Evaluation) -> list[str]:
    """Paragraphs about accuracy, boxes, methods, rules, thresholds and the heatmaps' sense."""
    paragraphs = [list(_accuracy(figures))]
    if figures.localization is None:
        paragraphs.append(["No photo of this split has a box, so boxes cannot be judged."])
    else:
        paragraphs += [
            [
                *_against_baselines(figures.localization),
                *_by_breed(figures),
                *_fusing(figures.localization),
            ],
            list(_best(figures.per_photo)),
            list(_cam_and_gradcam(figures)),
            list(_thresholds(figures, figures.localization)),
        ]
    paragraphs.append([*_faithfulness(figures), *_randomization(figures)])
    if figures.perturbation is not None:
        paragraphs.append(list(reading_of_comparison(figures.perturbation)))
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def paired(ours: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of one method's IoUs and its difference to another's, over the same photos."""
    weights = resample(len(ours), seed=0)
    return estimate(mean(np.array(ours)), weights, mean(np.array(others)))


def _accuracy(figures: Evaluation) -> Iterator[str]:
    top5 = f"; top-5 accuracy is {figures.top5:.1%}" if shows_top5(figures) else ""
    yield (
        f"Top-1 accuracy is {figures.top1:.1%} over {figures.photos} photos (95 % interval "
        f"{figures.top1_interval[0]:.1%} to {figures.top1_interval[1]:.1%}){top5}."
    )
    if len(figures.breeds) > 1:
        order = sorted(figures.breeds.items(), key=lambda item: item[1].top1)
        worst, best = (f"{name} ({breed.top1:.1%})" for name, breed in (order[0], order[-1]))
        yield f"By breed, accuracy ranges from {worst} to {best}."
    if figures.ece is not None:
        yield f"The expected calibration error of the served probabilities is {figures.ece:.3f}."
    if figures.confidence_ok is not None:
        yield f"Confidence is ok for {figures.confidence_ok:.1%} of the photos."


def _against_baselines(localization: Localization) -> Iterator[str]:
    """The boxes of `/cam` and `/gradcam` beside the constant box, and the customary rule's."""
    constant = localization.baselines.constant_box.mean_iou
    yield f"The constant box, which ignores the photo, has a mean IoU of {estimate_text(constant)}."
    for method in (Method.CAM, Method.GRADCAM):
        served = localization.served(method)
        if served is not None:
            name = heatmap_name(method, "last", localization.rule(method))
            yield f"{name} has {estimate_text(served.mean_iou)}: {_verdict(served.mean_iou)}"
    customary = localization.customary.mean_iou
    yield (
        "The customary rule (Grad-CAM at the last layer, 15 % of the maximum) has "
        f"{estimate_text(customary)}: {_verdict(customary)}"
    )


def _verdict(iou: Estimate) -> str:
    """What a difference to the constant box says."""
    if iou.difference is None or iou.difference_interval is None:
        return ""
    if not clear_of_zero(iou.difference_interval):
        difference = difference_text(iou.difference, iou.difference_interval)
        return f"the difference, {difference}, may be chance."
    return f"{comparison_text(iou.difference, iou.difference_interval)}, clear of zero."


def _by_breed(figures: Evaluation) -> Iterator[str]:
    """For how many breeds the service's box is better than the constant one."""
    served = served_ious(figures).get(Method.GRADCAM, {})
    pairs = [
        (served[name], breed.mean_iou_baselines.constant_box)
        for name, breed in figures.breeds.items()
        if breed.mean_iou_baselines is not None and name in served
    ]
    if len(pairs) > 1:
        better = sum(ours > constant for ours, constant in pairs)
        yield (
            f"By breed, Grad-CAM's box has a higher mean IoU than the constant box for {better} of "
            f"{len(pairs)} breeds."
        )


def _fusing(localization: Localization) -> Iterator[str]:
    """Whether the foreground's heatmap helps the boxes."""
    better: list[str] = []
    worse: list[str] = []
    neither: list[str] = []
    for method, sets in localization.fused.items():
        for layers, metrics in sets.items():
            edges = metrics.mean_iou.difference_to_heatmap_interval
            if edges is None or not clear_of_zero(edges):
                neither.append(heatmap_name(method, layers))
            else:
                (better if edges[0] > 0 else worse).append(heatmap_name(method, layers))
    for names, verdict in (
        (better, "is better than the rule heatmap, with an interval clear of zero"),
        (worse, "is worse than the rule heatmap, with an interval clear of zero"),
        (neither, "shows no clear difference to the rule heatmap"),
    ):
        if names:
            yield f"The rule fused {verdict}, for: {'; '.join(names)}."


def _best(photos: Sequence[PhotoResult]) -> Iterator[str]:
    """Whose boxes fit best, of the last layer's and the last six's, and whether by chance."""
    ious = {
        (method, layers, rule): [
            (photo.iou if rule is Rule.HEATMAP else photo.fused)[method][layers] for photo in photos
        ]
        for rule, tree in ((Rule.HEATMAP, photos[0].iou), (Rule.FUSED, photos[0].fused))
        for method, sets in tree.items()
        for layers in sets
    }
    order = sorted(ious, key=lambda key: -float(np.mean(ious[key])))
    first = order[0]
    yield (
        f"Of all methods over the last layer and the last six, {heatmap_name(*first)} has the "
        f"highest mean IoU, {np.mean(ious[first]):.3f}."
    )
    alike = []
    for other in order[1:]:
        edges = paired(ious[first], ious[other]).difference_interval
        if edges is not None and not clear_of_zero(edges):
            alike.append(heatmap_name(*other))
    if alike:
        yield f"Its lead may be chance over: {'; '.join(alike)}."
    elif len(order) > 1:
        yield "Its lead over all others is clear of zero."
    yield (
        "It was picked on these very photos, and the best of many figures is biased upwards; the "
        "service's defaults are not chosen this way."
    )


def _cam_and_gradcam(figures: Evaluation) -> Iterator[str]:
    """Whether the two agree at the last layer, and why with this head."""
    pairs = [
        (photo.iou[Method.CAM]["last"], photo.iou[Method.GRADCAM]["last"])
        for photo in figures.per_photo
        if Method.CAM in photo.iou
    ]
    if not pairs:
        yield "This model's head does not support CAM, so there is none to compare Grad-CAM with."
        return
    cam, gradcam = zip(*pairs, strict=True)
    apart = float(np.abs(np.subtract(cam, gradcam)).mean())
    to_cam = paired(gradcam, cam)
    edges = to_cam.difference_interval or (0.0, 0.0)
    yield (
        f"By the rule heatmap, the IoUs of CAM's and Grad-CAM's boxes at the last layer differ "
        f"by {apart:.3f} on average: "
        + ("nearly the same." if apart < _NEARLY else "the two do not agree on every photo.")
    )
    if clear_of_zero(edges):
        low, high = sorted(map(abs, edges))
        yield (
            f"Grad-CAM's mean is {'higher' if edges[0] > 0 else 'lower'} than CAM's by "
            f"{abs(to_cam.difference or 0):.3f} {interval_text((low, high))}, clear of zero."
        )
    else:
        difference = difference_text(to_cam.difference, edges)
        yield f"The difference of Grad-CAM's mean to CAM's, {difference}, may be chance."
    if figures.model.head == "gap_dense":
        yield (
            "With global average pooling and one Dense layer, Grad-CAM's map there is CAM's after "
            "a ReLU, up to a factor: the two differ only in normalisation and threshold."
        )


def _thresholds(figures: Evaluation, localization: Localization) -> Iterator[str]:
    """How far the served box is from the best threshold for these photos."""
    for method in (Method.CAM, Method.GRADCAM):
        served, rule = localization.served(method), localization.rule(method)
        if served is None:
            continue
        curve, iou = figures.curves[method]["last"].rules[rule], served.mean_iou.value
        yield (
            f"At its {'calibrated' if curve.calibrated else 'default'} threshold "
            f"{curve.threshold:g}, {heatmap_name(method, 'last', rule)} has a mean IoU of "
            f"{iou:.3f}. The best threshold for these photos is {curve.best_threshold:g}, with "
            f"{curve.best_mean_iou:.3f}. An oracle that picks the best threshold for each photo "
            f"would reach {curve.oracle_mean_iou:.3f}."
        )


def _faithfulness(figures: Evaluation) -> Iterator[str]:
    """In how many cases the heatmaps matter to the model more than a box in the middle."""
    faithfulness = figures.faithfulness
    if faithfulness is None:
        return
    areas = [areas for sets in faithfulness.methods.values() for areas in sets.values()]
    # More insertion is better; so is less deletion.
    for name, sign in (("insertion", 1), ("deletion", -1)):
        edges = [getattr(heatmap, name).difference_interval or (0.0, 0.0) for heatmap in areas]
        better = sum(min(sign * low, sign * high) > 0 for low, high in edges)
        worse = sum(max(sign * low, sign * high) < 0 for low, high in edges)
        yield (
            f"By {name}, over {faithfulness.photos} photos, {better} of {len(areas)} heatmaps are "
            f"better than the constant box and {worse} worse, clear of zero."
        )


def _randomization(figures: Evaluation) -> Iterator[str]:
    """How much of Grad-CAM's heatmap is left when the whole model has forgotten."""
    randomization = figures.randomization
    if randomization is None or not randomization.down_to:
        return
    layer, similarity = list(randomization.down_to.items())[-1]
    gradcam = similarity.get(Method.GRADCAM, {}).get("last")
    if gradcam is None:
        return
    if gradcam.blank:
        yield (
            f"With all weights down to {layer} in a random order, Grad-CAM's heatmap at the last "
            f"layer is blank or constant for {gradcam.blank} of {randomization.photos} photos, "
            "which the similarity leaves out."
        )
    if gradcam.rank_correlation is not None:
        photos = randomization.photos - (gradcam.blank or 0)
        old = f" Blank heatmaps {BLANK_AS_ZERO}." if gradcam.blank is None else ""
        yield (
            f"With all weights down to {layer} in a random order, Grad-CAM's heatmap at the last "
            f"layer keeps a rank correlation of {estimate_text(gradcam.rank_correlation)} with "
            f"the model's own, over {photos} photos; a heatmap that ignores "
            f"the model would keep 1.{old}"
        )
