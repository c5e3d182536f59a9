"""The evaluation as an HTML page: made from its JSON alone, and complete in itself.

`page.html` is the page's template. It escapes whatever is put into it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from app.preferences import Summary
from app.ratings import BreedCAMError, Ratings
from training.errors import ReportError
from training.evaluation.schema import Evaluation, Gallery, GalleryPhoto, Localization
from training.files import in_project
from training.report import breeds, charts, tables
from training.report.charts import Chart
from training.report.comparison import comparison_tables
from training.report.sentences import reading
from training.report.tables import Table
from training.report.tiles import tiles
from training.report.wording import heatmap_name

__all__ = ["Charts", "draw", "page", "read", "read_ratings", "report"]

_PAPERS = {
    "CAM": "https://arxiv.org/abs/1512.04150",
    "Grad-CAM": "https://arxiv.org/abs/1610.02391",
    "MaxBoxAccV2": "https://arxiv.org/abs/2001.07437",
    "RISE, insertion and deletion": "https://arxiv.org/abs/1806.07421",
    "model randomisation": "https://arxiv.org/abs/1810.03292",
    "LIME": "https://arxiv.org/abs/1602.04938",
    "KernelSHAP": "https://arxiv.org/abs/1705.07874",
}

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, inlined.

    Attributes:
        source: a data URI.
        alt: what it shows, for those who do not see it.
        caption: shown below it.
        size: width and height in pixels.
    """

    source: str
    alt: str
    caption: str
    size: tuple[int, int]


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
    thresholds: Table


@dataclass(frozen=True, slots=True)
class Charts:
    """What is drawn; where photos have no boxes, no histogram and no curve."""

    histograms: Sequence[Chart]
    curves: Sequence[Chart]
    reliability: Chart | None

    @property
    def all(self) -> list[Chart]:
        """In the order of the page."""
        reliability = [self.reliability] if self.reliability else []
        return [*self.histograms, *reliability, *self.curves]


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
    """Write `index.html` and its plots, as SVG files beside it.

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
    drawn = draw(evaluation)
    index = place / "index.html"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for chart in drawn.all:
            (place / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")
        index.write_text(page(evaluation, drawn, summary), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"--out {place} cannot be written: {error.strerror}.") from error
    return index


def draw(evaluation: Evaluation) -> Charts:
    """The plots."""
    return Charts(
        histograms=list(charts.histograms(evaluation)),
        curves=list(charts.curves(evaluation)),
        reliability=charts.reliability(evaluation),
    )


def page(evaluation: Evaluation, drawn: Charts, ratings: Summary | None = None) -> str:
    """The whole page.

    Args:
        evaluation: what it shows.
        drawn: see `draw`.
        ratings: of people; None leaves their section out.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = Markup  # what this package draws is markup
    localization = evaluation.localization
    return environment.get_template(_TEMPLATE.name).render(
        evaluation=evaluation,
        tiles=list(tiles(evaluation)),
        paragraphs=reading(evaluation),
        charts=drawn,
        accuracy=breeds.accuracy(evaluation),
        matrix=breeds.confusion_matrix(evaluation),
        confusions=breeds.confusions(evaluation),
        reliability=breeds.reliability(evaluation),
        breeds=breeds.breeds(evaluation),
        boxes=_boxes(evaluation, localization) if localization else None,
        sanity_checks=list(tables.sanity_checks(evaluation)),
        ratings=ratings
        and RatedHeatmaps(ratings, tables.rated_pairs(ratings), tables.rated_methods(ratings)),
        comparison=list(comparison_tables(evaluation.perturbation))
        if evaluation.perturbation
        else [],
        gallery=_gallery(evaluation),
        papers=_PAPERS,
    )


def _boxes(evaluation: Evaluation, localization: Localization) -> Boxes:
    return Boxes(
        methods=tables.methods(localization),
        single_layers=tables.single_layers(localization),
        thresholds=tables.thresholds(evaluation.curves),
    )


def _gallery(evaluation: Evaluation) -> dict[str, list[GalleryEntry]]:
    """Photos by their kind, see `Gallery`: without any where none were drawn."""
    gallery = evaluation.gallery or Gallery(correct=[], best=[], worst=[])
    return {kind: [_entry(photo) for photo in photos] for kind, photos in gallery}


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
