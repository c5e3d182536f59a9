"""The page holds what the figures say, needs nothing else, and shows no photo where it must not."""

import base64
import io
import json
import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from app.bundle import Bundle, Confidence
from app.ratings import Ratings
from app.schemas import Rating
from tests import needs
from tests.training.fake_engine import FakeEngine
from tests.training.known_maps import (
    DOG,
    FOREGROUND,
    OWN,
    known_outputs,
    white_box_photo,
    with_card,
    with_fusion,
)
from tests.training.report.known_comparison import COMPARISON
from training import cli
from training.errors import ReportError
from training.evaluation.evaluate import evaluate
from training.files import PROJECT
from training.report.page import report

VOID = {"meta", "img", "br"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Every element in its place; tables by caption, pictures, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows
            self._rows, self._caption = [], ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] == "style":
            return
        self.words.append(data)
        if "caption" in self.open:
            self._caption += data
        elif self._rows and {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)

    def table(self, start: str) -> dict[tuple[str, ...], dict[str, str]]:
        """Rows by their first two cells, or the first where the rest are numbers."""
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        head = rows[0]
        keys = 2 if "rule" in head else 1
        return {tuple(row[:keys]): dict(zip(head, row, strict=True)) for row in rows[1:]}

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def figures(small_bundle: Bundle) -> dict[str, Any]:
    limits = Confidence(
        temperature=1,
        least_probability=0.1,
        least_foreground=-1e9,
        most_novelty=None,
        photos=9,
        ece=0,
        ece_before=0,
    )
    bundle = with_card(with_fusion(small_bundle), confidence=limits)
    seen = FakeEngine(partial(known_outputs, bundle.card, own=OWN, foreground=FOREGROUND))
    boxes = (DOG, (8, 8, 16, 24), (0, 0, 32, 32), DOG)
    examples = [white_box_photo(label, box) for label, box in zip((1, 1, 3, 1), boxes, strict=True)]
    return evaluate(bundle, seen, examples, sample=2, gallery=2).dump()


def _report(figures: dict[str, Any], place: Path) -> Page:
    source = place / "figures.json"
    source.write_text(json.dumps(figures), encoding="utf-8")
    index = report(source, place / "report")
    assert index == place / "report" / "index.html"
    return Page(index.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(figures: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `figures`, in a directory `report`."""
    directory = tmp_path_factory.mktemp("written")
    _report(figures, directory)
    return directory / "report"


@pytest.fixture(scope="module")
def page(place: Path) -> Page:
    return Page((place / "index.html").read_text(encoding="utf-8"))


def _shown(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval"]
    return f"{estimate['value']:.3f} [{low:.3f}, {high:.3f}]"


def _compared(difference: float, edges: list[float]) -> str:
    if edges[0] <= 0 <= edges[1]:
        return f"unclear: {difference:+.3f} [{edges[0]:+.3f}, {edges[1]:+.3f}]"
    if difference > 0:
        return f"better by {difference:.3f} [{edges[0]:.3f}, {edges[1]:.3f}]"
    return f"worse by {-difference:.3f} [{-edges[1]:.3f}, {-edges[0]:.3f}]"


NAMES = {
    "mean_iou": "mean IoU",
    "gt_known_localization": "GT-known localisation",
    "top1_localization": "top-1 localisation",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pointing_game": "pointing game",
    "energy_in_box": "energy in box",
}


def _same(row: dict[str, str], metrics: dict[str, Any]) -> None:
    for name, estimate in metrics.items():
        assert row[NAMES[name]] == _shown(estimate)
    iou = metrics["mean_iou"]
    if "difference" in iou:
        shown = row["beside the constant box"]
        assert shown == _compared(iou["difference"], iou["difference_interval"])
    if "difference_to_heatmap" in iou:
        shown = row["beside the rule heatmap"]
        edges = iou["difference_to_heatmap_interval"]
        assert shown == _compared(iou["difference_to_heatmap"], edges)


def test_tables_hold_the_figures(figures: dict[str, Any], page: Page) -> None:
    localization = figures["localization"]
    rows = page.table("Methods, beside")
    constant = ("constant box, 80 % x 90 %, centred", "")
    _same(rows[constant], localization["baselines"]["constant_box"])
    _same(rows["full frame", ""], localization["baselines"]["full_frame"])
    _same(rows["Grad-CAM, last layer", "customary"], localization["customary"])
    _same(rows["CAM, last layer", "heatmap"], localization["methods"]["cam"]["last"])
    _same(
        rows["LayerCAM, last six layers", "heatmap"], localization["methods"]["layercam"]["last6"]
    )
    _same(rows["Grad-CAM, last layer", "fused"], localization["fused"]["gradcam"]["last"])
    assert len(rows) == 3 + 9 + 2
    single = page.table("Methods at single layers")
    _same(
        single["HiResCAM, early_out", "heatmap"], localization["methods"]["hirescam"]["early_out"]
    )
    accuracy = page.table("Over all photos")
    assert accuracy["top-1 accuracy",]["value"].startswith(f"{figures['top1']:.3f} [")
    assert accuracy["expected calibration error",]["value"] == f"{figures['ece']:.3f}"
    assert accuracy["share of answers with confidence ok",]["value"] == "1.000"
    assert ("top-5 accuracy",) not in accuracy  # of five breeds, it is always 1
    confused = page.table("Photos by true breed")
    assert confused["class 1",] == {"true breed": "class 1", "class 1": "3", "class 3": "0"}
    assert confused["class 3",] == {"true breed": "class 3", "class 1": "1", "class 3": "0"}
    stated = page.table("Photos by the stated probability")
    assert {row["photos"] for row in stated.values()} == {"0", "4"}
    breeds = page.table("By breed")
    assert list(breeds) == [("class 1",), ("class 3",)]
    of_breed = figures["breeds"]["class 1"]
    row = breeds["class 1",]
    assert row["photos"] == "3"
    cam, constant = of_breed["mean_iou"]["cam"]["last"], of_breed["mean_iou_baselines"]
    assert row["mean IoU, CAM, rule heatmap"] == f"{cam:.3f}"
    assert row["mean IoU, constant box"] == f"{constant['constant_box']:.3f}"
    thresholds = page.table("Thresholds")
    curve = figures["curves"]["gradcam"]["last"]["fused"]
    row = thresholds["Grad-CAM, last layer", "fused"]
    assert (row["threshold"], row["best threshold"]) == ("0.4", f"{curve['best_threshold']:g}")
    assert row["mean IoU at each photo's best (oracle)"] == f"{curve['oracle_mean_iou']:.3f}"
    areas = page.table("Insertion")["CAM, last layer",]
    insertion = figures["faithfulness"]["methods"]["cam"]["last"]["insertion"]
    assert areas["insertion"] == _shown(insertion)
    likeness = page.table("Rank correlation")["CAM, last layer",]
    for layer, by_method in figures["randomization"]["down_to"].items():
        assert likeness[layer] == _shown(by_method["cam"]["last"]["rank_correlation"])


def test_tiles_and_contents_come_first(figures: dict[str, Any], page: Page) -> None:
    titles = ["Top-1 accuracy", "Calibration error (ECE)", "Mean IoU of the box", "Boxes with IoU"]
    places = [page.text.index(title) for title in [*titles, "Contents", "Summary"]]
    assert places == sorted(places)
    iou = figures["localization"]["fused"]["gradcam"]["last"]["mean_iou"]
    assert f"Mean IoU of the box {iou['value']:.3f} Grad-CAM" in page.text
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] or "" for attributes in page.all("a")]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert inner[:3] == ["summary", "paper", "accuracy"]
    assert len(inner) == len(list(page.all("section")))
    assert ids >= set(inner)


def test_page_is_complete_in_itself_and_accessible(place: Path, page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "base"}
    text = (place / "index.html").read_text(encoding="utf-8")
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    for tag, attributes in page.elements:
        addresses = [value or "" for name, value in attributes.items() if name in ("src", "href")]
        for address in addresses:
            outside = "https://arxiv.org/" if tag == "a" else "data:image/"
            assert address.startswith(("#", outside))
        assert not any(name.startswith("on") for name in attributes)
    assert next(page.all("html"))["lang"] == "en"
    assert len(list(page.all("h1"))) == 1
    assert not re.search(r"worse by -|better by -", page.text)
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert {attributes["role"] for attributes in page.all("svg")} == {"img"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("svg"):
        assert attributes["aria-labelledby"] in ids
    assert {attributes["style"] for attributes in page.all("td") if "style" in attributes}
    assert all(attributes["scope"] in ("col", "row") for attributes in page.all("th"))
    assert all(page.tables)
    assert "prefers-color-scheme: dark" in text
    heading = [tag for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    levels = [int(tag[1]) for tag in heading]
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))


def test_it_fits_screens_and_phones_and_loads_nothing(place: Path) -> None:
    boxes = "[...document.querySelectorAll('.wide')]"
    scrolling = f"{boxes}.filter(box => box.scrollWidth > box.clientWidth).length"
    path = needs.tool("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((place / "index.html").as_uri())
        for width, wide in ((1280, False), (375, True)):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert (page.evaluate(scrolling) > 0) is wide
        browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [requests[0]]


def test_plots_are_inlined_and_beside_the_page(
    figures: dict[str, Any], place: Path, page: Page, tmp_path: Path
) -> None:
    methods = ("cam", "gradcam", "gradcampp", "hirescam", "layercam")
    written = {path.stem: path.read_text() for path in place.glob("*.svg")}
    curves = {f"curves-{method}" for method in methods}
    assert set(written) == curves | {"iou-cam", "iou-gradcam", "reliability"}
    assert len(list(page.all("svg"))) == len(written)
    text = (place / "index.html").read_text(encoding="utf-8")
    for content in written.values():
        assert ElementTree.fromstring(content).tag == f"{SVG}svg"
        assert content in text
    _report(figures, tmp_path)
    assert (tmp_path / "report" / "iou-cam.svg").read_text() == written["iou-cam"]


def _decoded(address: str) -> bytes:
    return base64.b64decode(address.partition("base64,")[2], validate=True)


def test_gallery_shows_both_overlays_with_their_ious(figures: dict[str, Any], page: Page) -> None:
    pictures = page.all("img")
    jpegs = [img for img in pictures if (img["src"] or "").startswith("data:image/jpeg")]
    photos = [photo for kind in ("correct", "best", "worst") for photo in figures["gallery"][kind]]
    assert len(photos) == 6
    overlays = [
        (photo, method, overlay)
        for photo in photos
        for method, overlay in photo["overlays"].items()
    ]
    assert len(jpegs) == len(overlays) == 12
    for element, (photo, method, overlay) in zip(jpegs, overlays, strict=True):
        name = {"cam": "CAM", "gradcam": "Grad-CAM"}[method]
        assert (element["alt"] or "").startswith(f"{name} over {photo['name']}, {photo['breed']};")
        assert f"{overlay['iou']:.3f}" in (element["alt"] or "")
        assert f"{name}, rule {overlay['rule']}: IoU {overlay['iou']:.3f}" in page.text
        with Image.open(io.BytesIO(_decoded(element["src"] or ""))) as image:
            assert (str(image.width), str(image.height)) == (element["width"], element["height"])
    assert "class 3, taken for class 1" in page.text


def test_without_a_gallery_that_is_said(figures: dict[str, Any], tmp_path: Path) -> None:
    page = _report({k: v for k, v in figures.items() if k != "gallery"}, tmp_path)

    assert "Left out: the figures hold no pictures" in page.text
    assert not list(page.all("img"))
    assert "Best and worst boxes" not in page.text


def test_text_is_escaped(figures: dict[str, Any], tmp_path: Path) -> None:
    evil = """<script>alert("1")</script> & 'co' {{ 7 * 7 }} {% include "x" %}"""
    places = json.dumps(figures).replace("class 1", "PLACE").replace(f"{DOG}", "PLACE")
    hostile = json.loads(places.replace("PLACE", json.dumps(evil)[1:-1]))
    hostile["model"]["name"] = hostile["engine"] = hostile["note"] = evil

    page = _report(hostile, tmp_path)

    assert not list(page.all("script"))
    assert f"engine {evil}. {evil}. In brackets" in page.text
    assert (evil,) in page.table("By breed")
    assert f"{evil} 3: evaluation" in page.text
    assert any(evil in (attributes["alt"] or "") for attributes in page.all("img"))


def test_model_without_cam_and_photos_without_boxes(small_bundle: Bundle, tmp_path: Path) -> None:
    card = small_bundle.card.replace(head="other")
    seen = FakeEngine(partial(known_outputs, card, own=OWN))
    dog = white_box_photo(1, DOG)
    bundle = Bundle(small_bundle.path, card)
    other = evaluate(bundle, seen, [dog]).dump()
    plain = evaluate(bundle, seen, [type(dog)(dog.name, dog.data, dog.label, ())]).dump()
    for name in ("other", "plain"):
        (tmp_path / name).mkdir()

    page = _report(other, tmp_path / "other")
    assert len(list(page.all("svg"))) == 1 + 4  # Grad-CAM's histogram, and curves
    assert ("CAM, last layer", "heatmap") not in page.table("Methods, beside")
    page = _report(plain, tmp_path / "plain")
    assert not list(page.all("svg"))
    assert not list((tmp_path / "plain" / "report").glob("*.svg"))
    assert "boxes cannot be judged" in page.text
    assert "not measured: no photo of this split has a box" in page.text
    assert "the model's probabilities are not calibrated" in page.text
    head = page.table("By breed")["class 1",]
    assert list(head) == ["breed", "photos", "accuracy"]


def test_figures_of_an_older_version(figures: dict[str, Any], tmp_path: Path) -> None:
    old = json.loads(json.dumps(figures))
    del old["confusion"], old["reliability"], old["model"]["classes"]
    for by_method in old["randomization"]["down_to"].values():
        for sets in by_method.values():
            for similarity in sets.values():
                del similarity["blank"]

    page = _report(old, tmp_path)

    (pair,) = figures["most_confused"]
    confused = page.table("Most confused")
    assert confused[pair["true"],]["taken for"] == pair["predicted"] == "class 1"
    assert confused[pair["true"],]["photos"] == "1"
    assert ("top-5 accuracy",) in page.table("Over all photos")
    assert "Reliability" not in page.text
    assert list(page.table("Rank correlation"))
    count_as_zero = "count as 0, as an older version of evaluate wrote these figures"
    assert f"photos with a blank heatmap {count_as_zero}" in page.text
    assert f"would keep 1. Blank heatmaps {count_as_zero}." in page.text
    new = tmp_path / "new"
    new.mkdir()
    assert count_as_zero not in _report(figures, new).text


def test_blank_and_constant_heatmaps_are_counted(figures: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(figures))
    for sets in changed["randomization"]["down_to"].values():
        sets["cam"]["last"]["blank"] = 1
        sets["gradcam"]["last"] = {"blank": 2}
    likeness = figures["randomization"]["down_to"]["predictions"]["cam"]["last"]

    page = _report(changed, tmp_path)
    rows = page.table("Rank correlation")

    assert "photos with a blank or constant heatmap are counted and left out" in page.text
    shown = rows["CAM, last layer",]["predictions"]
    assert shown == f"{_shown(likeness['rank_correlation'])}, 1 left out"
    assert rows["Grad-CAM, last layer",]["predictions"] == "all 2 left out"


def _nothing(figures: dict[str, Any]) -> str:
    return "{}"


def _text(figures: dict[str, Any]) -> str:
    return "no JSON"


def _list(figures: dict[str, Any]) -> str:
    return json.dumps([figures])


def _no_curve(figures: dict[str, Any]) -> str:
    kept = {method: curves for method, curves in figures["curves"].items() if method != "cam"}
    return json.dumps(figures | {"curves": kept})


def _no_last(figures: dict[str, Any]) -> str:
    localization = json.loads(json.dumps(figures["localization"]))
    del localization["methods"]["gradcam"]["last"]
    return json.dumps(figures | {"localization": localization})


def _no_photos(figures: dict[str, Any]) -> str:
    return json.dumps(figures | {"per_photo": []})


def _other_photos(figures: dict[str, Any]) -> str:
    return json.dumps(figures | {"per_photo": [figures["per_photo"][0] | {"iou": {}}]})


def _no_picture(figures: dict[str, Any]) -> str:
    gallery = json.loads(json.dumps(figures["gallery"]))
    gallery["best"][0]["overlays"]["cam"]["media_type"] = "text/html"
    return json.dumps(figures | {"gallery": gallery})


def _other_method(figures: dict[str, Any]) -> str:
    return json.dumps(figures | {"curves": figures["curves"] | {"saliency": {}}})


def _short_curve(figures: dict[str, Any]) -> str:
    curves = json.loads(json.dumps(figures["curves"]))
    curves["cam"]["last"]["thresholds"].pop()
    return json.dumps(figures | {"curves": curves})


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (_nothing, "split: Field required"),
        (_text, "Invalid JSON"),
        (_list, "object"),
        (_no_curve, "curves has other methods"),
        (_no_last, "localization lacks"),
        (_no_photos, "per_photo has no photo"),
        (_other_photos, "per_photo has other methods"),
        (_no_picture, "media_type"),
        (_other_method, "curves.saliency"),
        (_short_curve, "not as many mean IoUs as thresholds"),
    ],
)
def test_json_that_evaluate_did_not_write(
    figures: dict[str, Any], tmp_path: Path, written: Any, problem: str
) -> None:
    source = tmp_path / "other.json"
    source.write_text(written(figures))

    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "--figures", str(source), "--out", str(tmp_path / "report")])

    message = str(ended.value.code)
    assert message.startswith(f"error: --figures {source} is not what `python -m training evaluate")
    assert problem in message
    assert "\n" not in message
    assert not (tmp_path / "report").exists()


def test_files_that_cannot_be_read_or_written(figures: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"none\.json cannot be read: No such file"):
        report(tmp_path / "none.json", tmp_path / "report")

    source = tmp_path / "figures.json"
    source.write_text(json.dumps(figures))
    with pytest.raises(ReportError, match=r"figures\.json cannot be written: "):
        report(source, source)


def test_photos_stay_out_of_the_repository(figures: dict[str, Any], tmp_path: Path) -> None:
    source, place = tmp_path / "figures.json", PROJECT / "build" / "a-report"
    source.write_text(json.dumps(figures))
    link = tmp_path / "elsewhere"
    link.symlink_to(PROJECT, target_is_directory=True)

    for inside in (place, link / "build" / "a-report"):
        with pytest.raises(ReportError, match="must not get into the repository"):
            report(source, inside)

    assert not place.exists()


def test_command_line_names_the_page(
    figures: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "figures.json"
    source.write_text(json.dumps(figures))

    cli.main(["report", "--figures", str(source), "--out", str(tmp_path / "deep" / "report")])

    index = tmp_path / "deep" / "report" / "index.html"
    assert f"Wrote {index}." in capsys.readouterr().err
    assert index.is_file()


def test_ratings_have_a_section(figures: dict[str, Any], tmp_path: Path) -> None:
    assert "What people prefer" not in _report(figures, tmp_path).text
    source, kept = tmp_path / "figures.json", tmp_path / "ratings.sqlite"
    model = figures["model"]
    ratings = Ratings.open(kept)
    with pytest.raises(ReportError, match="has no rating of"):
        report(source, tmp_path / "rated", kept)
    for number, answer in enumerate(("first", "first", "second", "same")):
        rating = Rating.model_validate_json(
            json.dumps(
                {
                    "digest": f"{number:064x}",
                    "methods": ["cam/last", "gradcampp/last6"],
                    "answer": answer,
                    "misses": ["gradcampp/last6"],
                    "rater": "0" * 32,
                }
            )
        )
        ratings.add(rating, model["name"], model["version"])
    ratings.close()
    page = Page(report(source, tmp_path / "rated", kept).read_text(encoding="utf-8"))
    first, second = "CAM, last layer", "Grad-CAM++, last six layers"
    assert page.tables["Which explains better"][1:] == [
        [f"{first} or {second}", "2", "1", "1", "0.667", "[0.208, 0.939]"]
    ]
    assert page.tables["Over all pairs"][1:] == [
        [first, "4", "0", "", ""],
        [second, "4", "4", "", ""],
    ]


def test_a_file_that_holds_no_ratings_is_named(figures: dict[str, Any], tmp_path: Path) -> None:
    _report(figures, tmp_path)
    source = tmp_path / "figures.json"
    with pytest.raises(ReportError, match=r"--ratings .*figures\.json"):
        report(source, tmp_path / "rated", source)
    assert not (tmp_path / "rated").exists()


def test_methods_that_perturb_photos_have_a_section_where_they_were_measured(
    figures: dict[str, Any], page: Page, tmp_path: Path
) -> None:
    compared = COMPARISON.model_dump(mode="json", exclude_none=True)

    with_them = _report(figures | {"perturbation": compared}, tmp_path)

    (contents,) = [
        attributes for attributes in with_them.all("a") if attributes["href"] == "#perturbation"
    ]
    assert contents
    assert "KernelSHAP" in with_them.text
    lime = compared["perturbation"]["lime"]
    assert with_them.table("Boxes, 50 photos")["LIME",]["mean IoU"] == _shown(lime["mean_iou"])
    assert not [attributes for attributes in page.all("a") if attributes["href"] == "#perturbation"]
