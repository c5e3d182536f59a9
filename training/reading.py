"""What a report's numbers say, in sentences: each is true of them, and no more."""

from collections.abc import Iterator, Sequence

import numpy as np

from app.bundle import Rule
from training.metrics import estimate, mean, resample
from training.report_figures import Estimate, Figures, Localization, Photo
from training.wording import clear_of_zero, measured, named, signed

__all__ = ["paired", "reading"]

_NEARLY = 0.05
"""Mean distance of two methods' IoUs under which they are called nearly the same."""


def reading(figures: Figures) -> list[str]:
    """Paragraphs about accuracy, boxes, methods, rules, thresholds and the heatmaps' sense."""
    paragraphs = [list(_accuracy(figures))]
    if figures.localization is None:
        paragraphs.append(["No photo of this split has a box, so that boxes cannot be judged."])
    else:
        told = figures.localization
        paragraphs += [
            [*_against_guesses(told), *_fusing(told)],
            list(_best(figures.per_photo)),
            list(_cam_and_gradcam(figures)),
            list(_thresholds(figures, told)),
        ]
    paragraphs.append([*_faithfulness(figures), *_randomization(figures)])
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def paired(ours: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of one method's IoUs and its difference to another's, of the same photos."""
    weights = resample(len(ours), seed=0)
    told = estimate(mean(np.array(ours)), weights, mean(np.array(others)))
    return Estimate.model_validate(told)


def _accuracy(figures: Figures) -> Iterator[str]:
    yield (
        f"The likeliest breed is right for {figures.top1:.1%} of {figures.photos} photos "
        f"(95 % interval {figures.top1_interval[0]:.1%} to {figures.top1_interval[1]:.1%}), and "
        f"the right one is among the five likeliest for {figures.top5:.1%}."
    )
    if len(figures.breeds) > 1:
        order = sorted(figures.breeds.items(), key=lambda item: item[1].top1)
        worst, best = (f"{name} ({breed.top1:.1%})" for name, breed in (order[0], order[-1]))
        yield f"By breed, accuracy goes from {worst} to {best}."
    if figures.ece is not None:
        yield (
            f"As served, the likeliest breed's probability misses its accuracy by "
            f"{figures.ece:.3f} on average (expected calibration error)."
        )
    if figures.confidence_ok is not None:
        yield f"{figures.confidence_ok:.1%} of the answers are told with confidence ok."


def _against_guesses(told: Localization) -> Iterator[str]:
    """The boxes of `/cam` and `/gradcam`, beside those that need no heatmap of this model."""
    constant = told.baselines.constant_box.mean_iou.value
    for method in ("cam", "gradcam"):
        ours = told.served(method)
        if ours is not None:
            yield (
                f"The box of {named(method, 'last', told.rule(method))} has a mean IoU of "
                f"{measured(ours.mean_iou)}, that of the constant box, which looks at no photo, "
                f"{constant:.3f}: {_verdict(ours.mean_iou)}"
            )
    customary = told.customary.mean_iou
    yield (
        "The customary rule (Grad-CAM at the last layer, 15 % of the maximum) has "
        f"{measured(customary)}: {_verdict(customary)}"
    )


def _verdict(one: Estimate) -> str:
    """What a difference to the constant box says."""
    if one.difference is None or one.difference_interval is None:
        return ""
    told = signed(one.difference, one.difference_interval)
    if not clear_of_zero(one.difference_interval):
        return f"the difference of {told} is not clear of zero, so that the two may not differ."
    word = "better" if one.difference > 0 else "worse"
    return f"it is {word} than the constant box by {told}, clear of zero."


def _fusing(told: Localization) -> Iterator[str]:
    """Whether the foreground's heatmap helps the boxes."""
    better: list[str] = []
    worse: list[str] = []
    neither: list[str] = []
    for method, sets in told.fused.items():
        for layers, metrics in sets.items():
            edges = metrics.mean_iou.difference_to_heatmap_interval
            if edges is None or not clear_of_zero(edges):
                neither.append(named(method, layers))
            else:
                (better if edges[0] > 0 else worse).append(named(method, layers))
    for names, verdict in (
        (better, "is better than the rule heatmap, with an interval clear of zero"),
        (worse, "is worse than the rule heatmap, with an interval clear of zero"),
        (neither, "cannot be told from the rule heatmap"),
    ):
        if names:
            yield f"The rule fused {verdict}, for: {'; '.join(names)}."


def _best(photos: Sequence[Photo]) -> Iterator[str]:
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
        f"Of all methods over the last layer and the last six, {named(*first)} has the greatest "
        f"mean IoU, {np.mean(ious[first]):.3f}."
    )
    alike = []
    for other in order[1:]:
        edges = paired(ious[first], ious[other]).difference_interval
        if edges is not None and not clear_of_zero(edges):
            alike.append(named(*other))
    if alike:
        yield f"It cannot be told from: {'; '.join(alike)}."
    elif len(order) > 1:
        yield "Its difference to each of the others is clear of zero."
    yield (
        "It was found by looking at these very photos; what is greatest of many leans upwards, and "
        "the service's choice is not made here."
    )


def _cam_and_gradcam(figures: Figures) -> Iterator[str]:
    """Whether the two agree at the last layer, and why with this head."""
    pairs = [
        (photo.iou["cam"]["last"], photo.iou["gradcam"]["last"])
        for photo in figures.per_photo
        if "cam" in photo.iou
    ]
    if not pairs:
        yield "This model's head has no CAM to hold Grad-CAM against."
        return
    cam, gradcam = zip(*pairs, strict=True)
    apart = float(np.abs(np.subtract(cam, gradcam)).mean())
    to_cam = paired(gradcam, cam)
    edges = to_cam.difference_interval or (0.0, 0.0)
    yield (
        f"By the rule heatmap, the IoUs of CAM's and Grad-CAM's boxes at the last layer are "
        f"{apart:.3f} apart on an average photo: "
        + ("nearly the same." if apart < _NEARLY else "the two do not agree on every photo.")
    )
    yield (
        f"Grad-CAM's mean is {signed(to_cam.difference, edges)} from CAM's, "
        + ("clear of zero." if clear_of_zero(edges) else "not clear of zero.")
    )
    if figures.model.head == "gap_dense":
        yield (
            "With global average pooling and one Dense layer, Grad-CAM's map there is CAM's with "
            "what is negative cut off, up to a factor: the two differ in how they are normalised "
            "and in their thresholds alone."
        )


def _thresholds(figures: Figures, told: Localization) -> Iterator[str]:
    """How far the served box is from the best threshold for these photos."""
    for method in ("cam", "gradcam"):
        served, rule = told.served(method), told.rule(method)
        if served is None:
            continue
        curve, ours = figures.curves[method]["last"].rules[rule], served.mean_iou.value
        yield (
            f"At its {'calibrated' if curve.calibrated else 'default'} threshold "
            f"{curve.threshold:g}, {named(method, 'last', rule)} has a mean IoU of {ours:.3f}. Of "
            f"the thresholds that were tried, {curve.best_threshold:g} would be the best for these "
            f"photos, with {curve.best_mean_iou:.3f}; one picked for each photo with its true box "
            f"in hand (an oracle) would have {curve.oracle_mean_iou:.3f}, "
            f"{curve.oracle_mean_iou - ours:.3f} more than the service."
        )


def _faithfulness(figures: Figures) -> Iterator[str]:
    """In how many cases the heatmaps matter to the model more than a box in the middle."""
    told = figures.faithfulness
    if told is None:
        return
    every = [metrics for sets in told.methods.values() for metrics in sets.values()]
    for name, sign in (("insertion", 1), ("deletion", -1)):
        edges = [getattr(one, name).difference_interval or (0.0, 0.0) for one in every]
        better = sum(min(sign * low, sign * high) > 0 for low, high in edges)
        worse = sum(max(sign * low, sign * high) < 0 for low, high in edges)
        yield (
            f"By {name}, over {told.photos} photos, {better} of {len(every)} heatmaps are better "
            f"than the constant box and {worse} worse, clear of zero."
        )


def _randomization(figures: Figures) -> Iterator[str]:
    """How much of Grad-CAM's heatmap is left when the whole model has forgotten."""
    told = figures.randomization
    if told is None or not told.down_to:
        return
    layer, last = list(told.down_to.items())[-1]
    one = last.get("gradcam", {}).get("last")
    if one is not None:
        left = one.rank_correlation
        yield (
            f"With all weights down to {layer} in a random order, Grad-CAM's heatmap at the last "
            f"layer keeps a rank correlation of {measured(left)} with the model's own, over "
            f"{told.photos} photos; a guess that looks at nothing would keep 1."
        )
