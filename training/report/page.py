"""The evaluation as an HTML page: made from its JSON alone, and complete in itself.

`page.html` is the page's template. It escapes whatever is put into it.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from app.bundle import Method, Rule
from app.preferences import Summary
from app.ratings import BreedCAMError, Ratings
from training.errors import ReportError
from training.evaluation.schema import Evaluation, GalleryPhoto, Localization
from training.files import in_project
from training.report import plots as report_plots
from training.report import tables
from training.report.sentences import reading
from training.report.tables import Table
from training.report.wording import heatmap_name

__all__ = ["page", "plots", "read", "read_ratings", "report"]

_PAPERS = {
    "CAM": "https://arxiv.org/abs/1512.04150",
    "Grad-CAM": "https://arxiv.org/abs/1610.02391",
    "MaxBoxAccV2": "https://arxiv.org/abs/2001.07437",
    "insertion and deletion": "https://arxiv.org/abs/1806.07421",
    "model randomisation": "https://arxiv.org/abs/1810.03292",
}

_TEMPLATE = Path(__file__).with_name("page.html")

_COMPARED = (Method.CAM, Method.GRADCAM)
"""The methods that have a histogram."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, inlined.

    Attributes:
        source: a data URI.
        alt: what it shows, for those who do not see it.
        caption: shown below it.
        size: width and height in pixels, where they are to be kept.
    """

    source: str
    alt: str
    caption: str
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GalleryEntry:
    """A photo of the gallery: its breed, what it is taken for, its name and its overlays."""

    title: str
    name: str
    overlays: list[Picture]


@dataclass(frozen=True, slots=True)
class RatedHeatmaps:
    """What the page shows of ratings."""

    summary: Summary
    pairs: Table
    methods: Table


@dataclass(frozen=True, slots=True)
class Boxes:
    """What the page shows of boxes, where photos have them."""

    methods: Table
    single_layers: Table | None
    histograms: list[Picture]
    curves: Picture
    thresholds: Table


def read(path: Path) -> Evaluation:
    """Read what `evaluate --out` wrote.

    Raises:
        ReportError: it cannot be read, or is something else.
    """
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReportError(f"--figures {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ReportError(
            f"--figures {path} is not what `python -m training evaluate --out FILE` writes: "
            f"{f'{place}: ' if place else ''}{first['msg']}"
        ) from error


def read_ratings(path: Path, model: str, version: int) -> Summary:
    """Summarize the ratings of a model version in a file of the service (`BREEDCAM_RATINGS`).

    Raises:
        ReportError: it cannot be read, is something else, or has no rating of the version.
    """
    try:
        ratings = Ratings.open_to_read(path)
        try:
            summary = ratings.summary(model, version)
        finally:
            ratings.close()
    except BreedCAMError as error:
        raise ReportError(f"--ratings {path} cannot be used: {error}") from error
    if not summary.ratings:
        raise ReportError(f"--ratings {path} has no rating of {model} version {version}.")
    return summary


def report(source: Path, place: Path, ratings: Path | None = None) -> Path:
    """Write `index.html` and its plots, as PNG files beside it.

    Args:
        source: what `evaluate --out` wrote.
        place: the report's directory, made where there is none.
        ratings: a file of ratings, which gets a section.

    Returns:
        The page.

    Raises:
        ReportError: the figures cannot be read or are something else; they show photos, and
            `place` is within the project; or nothing can be written there.
    """
    evaluation = read(source)
    if evaluation.gallery and in_project(place):
        raise ReportError(
            f"--out {place}: {source} shows photos, which must not get into the repository. Name a "
            "directory outside of the project."
        )
    model = evaluation.model
    summary = None if ratings is None else read_ratings(ratings, model.name, model.version)
    files = plots(evaluation)
    index = place / "index.html"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name).write_bytes(content)
        index.write_text(page(evaluation, files, summary), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"--out {place} cannot be written: {error.strerror}.") from error
    return index


def plots(evaluation: Evaluation) -> dict[str, bytes]:
    """The plots, as PNG, by file name; none where no photo has a box."""
    localization, photos = evaluation.localization, evaluation.per_photo
    if localization is None:
        return {}
    constant = localization.baselines.constant_box.mean_iou.value
    files = {}
    for method in _COMPARED:
        if method in localization.methods:
            ious = {Rule.HEATMAP: [photo.iou[method]["last"] for photo in photos]}
            if localization.rule(method) is Rule.FUSED:
                ious[Rule.FUSED] = [photo.fused[method]["last"] for photo in photos]
            files[_histogram_name(method)] = report_plots.histogram(ious, constant)
    files["curves.png"] = report_plots.curves(evaluation.curves, constant)
    return files


def _histogram_name(method: Method) -> str:
    return f"iou-{method.value}.png"


def page(evaluation: Evaluation, files: Mapping[str, bytes], ratings: Summary | None = None) -> str:
    """The whole page.

    Args:
        evaluation: what it shows.
        files: see `plots`.
        ratings: of people; None leaves their section out.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    localization = evaluation.localization
    return environment.get_template(_TEMPLATE.name).render(
        evaluation=evaluation,
        paragraphs=reading(evaluation),
        accuracy=tables.accuracy(evaluation),
        confusions=tables.confusions(evaluation),
        breeds=tables.breeds(evaluation),
        boxes=_boxes(evaluation, localization, files) if localization else None,
        sanity_checks=list(tables.sanity_checks(evaluation)),
        ratings=ratings
        and RatedHeatmaps(ratings, tables.rated_pairs(ratings), tables.rated_methods(ratings)),
        gallery=_gallery(evaluation),
        papers=_PAPERS,
    )


def _boxes(evaluation: Evaluation, localization: Localization, files: Mapping[str, bytes]) -> Boxes:
    return Boxes(
        methods=tables.methods(localization),
        single_layers=tables.single_layers(localization),
        histograms=list(_histograms(len(evaluation.per_photo), localization, files)),
        curves=Picture(
            _data_uri(files["curves.png"], "image/png"),
            alt="Mean IoU over the threshold, for each method; the table below has each curve's "
            "threshold in use and its best one.",
            caption="Mean IoU of the boxes at each threshold. Dots: the calibrated threshold, or "
            "the default one where there is none. Dotted: the constant box.",
        ),
        thresholds=tables.thresholds(evaluation.curves),
    )


def _histograms(
    photos: int, localization: Localization, files: Mapping[str, bytes]
) -> Iterator[Picture]:
    constant = localization.baselines.constant_box.mean_iou.value
    for method in _COMPARED:
        served = localization.served(method)
        if served is not None:
            name = heatmap_name(method, "last")
            yield Picture(
                _data_uri(files[_histogram_name(method)], "image/png"),
                alt=f"Histogram of the IoU of {name} over {photos} photos; mean "
                f"{served.mean_iou.value:.3f} by the rule {localization.rule(method).value}, mean "
                f"of the constant box {constant:.3f}.",
                caption=f"{name}: photos by the IoU of their box. Dashed: means. Dotted: the "
                "constant box's mean.",
            )


def _gallery(evaluation: Evaluation) -> dict[str, list[GalleryEntry]]:
    """Photos by the title of their kind; empty where none were drawn."""
    gallery = evaluation.gallery
    if gallery is None:
        return {}
    kinds = {
        "Correctly classified, drawn by lot": gallery.correct,
        "Where Grad-CAM's box fits best": gallery.best,
        "Where Grad-CAM's box fits worst": gallery.worst,
    }
    return {title: [_entry(photo) for photo in photos] for title, photos in kinds.items() if photos}


def _entry(photo: GalleryPhoto) -> GalleryEntry:
    verdict = "right" if photo.right else f"taken for {photo.predicted}"
    return GalleryEntry(
        title=f"{photo.breed}, {verdict}",
        name=photo.name,
        overlays=[
            Picture(
                _data_uri(overlay.data, overlay.media_type),
                alt=f"{heatmap_name(method)} over {photo.name}, {photo.breed}; the box's IoU is "
                f"{overlay.iou:.3f}.",
                caption=f"{heatmap_name(method)}, rule {overlay.rule.value}: IoU {overlay.iou:.3f}",
                size=(overlay.width, overlay.height),
            )
            for method, overlay in photo.overlays.items()
        ],
    )


def _data_uri(content: bytes, media_type: str) -> str:
    """A file as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
