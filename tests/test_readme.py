"""What README and docs say is so."""

import ast
import json
import re
import typing
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from app.batch import cli as batch
from app.bundle import Bundle
from app.errors import BreedCAMError, QueueFull, StartupError
from app.main import create_app
from app.schemas import CamQuery, CompareQuery, GradcamQuery, PredictQuery
from app.settings import PROJECT, Settings
from tests import needs, readme
from tests.drawing import DRAWING, draw
from tests.training.folders import pixel_box, voc, write_photos

TEXTS = {str(page.relative_to(PROJECT)): page.read_text(encoding="utf-8") for page in readme.PAGES}
README, API, TRAINING = TEXTS["README.md"], TEXTS["docs/api.md"], TEXTS["docs/training.md"]
EVERYTHING = "\n".join(TEXTS.values())
EXAMPLES = [
    pytest.param(example, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, example in enumerate(readme.examples(text))
]


def every_error() -> Iterator[type[BreedCAMError]]:
    """The tree, without what ends the process before any answer."""
    waiting = [BreedCAMError]
    while waiting:
        error = waiting.pop()
        if not issubclass(error, StartupError):
            yield error
            waiting += error.__subclasses__()


# -- the pages


def test_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) < 215
    assert README.count("curl ") == 5


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "README.md"])
def test_a_page_has_one_reader_and_one_question(name: str) -> None:
    """Its first sentence names both, and README lists the page."""
    paragraph = TEXTS[name].split("\n\n")[1]

    assert re.match(r"For [^:]+: [^?]+\?", paragraph), paragraph
    assert f"({name})" in README


def test_files_and_headings_that_are_linked_exist() -> None:
    for name, text in TEXTS.items():
        directory = (PROJECT / name).parent
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = link.partition("#")
            target = (directory / path).resolve() if path else PROJECT / name
            assert target.exists(), f"{name}: {link}"
            if anchor:
                assert anchor in anchors(target), f"{name}: {link}"


def anchors(page: Path) -> list[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_drawing_is_that_of_the_script() -> None:
    """JPEG and other versions of Pillow change pixels by a little."""
    kept = np.asarray(Image.open(DRAWING), np.float64)
    drawn = np.asarray(draw(), np.float64)

    assert kept.shape == drawn.shape
    assert np.abs(kept - drawn).mean() < 4


# -- tables


def test_settings_table_is_that_of_the_settings() -> None:
    rows = re.findall(
        r"^\| `(BREEDCAM_\w+)` \| (`.*?`|\(none\)) \| (.*) \|$", TEXTS["docs/settings.md"], re.M
    )

    assert rows == [
        (
            f"BREEDCAM_{name.upper()}",
            "(none)" if field.default is None else f"`{field.default}`",
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"BREEDCAM_(\w+)", EVERYTHING))

    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_endpoints_table_is_that_of_the_service() -> None:
    app = create_app()
    documented = {
        f"{method.upper()} {path}"
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    rows = readme.Table.read(README, "endpoint", "answers with").rows

    assert {row[0].strip("`") for row in rows} == documented | {
        "GET /docs",
        "GET /",
        "GET /metrics",
    }
    assert {"/docs", "/"} <= {getattr(route, "path", "") for route in app.routes}


def test_parameters_table_is_that_of_the_queries() -> None:
    queries: dict[str, type[BaseModel]] = {
        "/predict": PredictQuery,
        "/cam": CamQuery,
        "/gradcam": GradcamQuery,
        "/compare": CompareQuery,
    }
    groups = {
        "all": set(queries),
        "explanations": set(queries) - {"/predict"},
        "`/gradcam`": {"/gradcam"},
        "`/compare`": {"/compare"},
    }
    rows = readme.Table.read(API, "parameter", "endpoints", "default").rows
    printed = [
        (path, name.strip("`"), default)
        for name, group, default, _ in rows
        for path in groups[group]
    ]

    assert sorted((path, name) for path, name, _ in printed) == sorted(
        (path, name) for path, query in queries.items() for name in query.model_fields
    )
    for path, name, default in printed:
        declared = queries[path].model_fields[name].default
        if declared not in (None, []):
            assert default == str(declared).lower(), name


def test_tests_that_are_named_exist() -> None:
    page = TEXTS["docs/reliability.md"]
    named = re.findall(r"`(tests/\S+\.py)::(\S+)`", page)
    rows = readme.Table.read(page, "promise", "settings", "tests").rows

    assert all("::test_" in row[2] for row in rows)
    for path, name in named:
        tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
        assert name.split("::") in list(names_of_tests(tree)), f"{path}::{name}"


def names_of_tests(tree: ast.Module) -> Iterator[list[str]]:
    """Of functions and of methods, with their class."""
    function = ast.FunctionDef | ast.AsyncFunctionDef
    for node in tree.body:
        if isinstance(node, function):
            yield [node.name]
        elif isinstance(node, ast.ClassDef):
            yield from (
                [node.name, member.name] for member in node.body if isinstance(member, function)
            )


def test_sources_that_are_cited_are_listed() -> None:
    page = TEXTS["docs/reliability.md"]
    listed = re.findall(r"^\| ([TSLB]\d) \|", page, re.M)

    assert set(re.findall(r"\[([TSLB]\d)\]", page)) == set(listed)
    assert len(listed) == len(set(listed))


def test_errors_table_is_the_error_tree() -> None:
    rows = readme.Table.read(API, "status").rows
    codes = {(error.status, error.code) for error in every_error()}

    assert {(int(row[0]), row[1].strip("`")) for row in rows} == codes | {
        (404, "not-found"),
        (405, "method-not-allowed"),
    }


def test_a_full_service_answers_as_printed() -> None:
    error = QueueFull("full")
    expected = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\n" + "".join(
        f"{name.lower()}: {value}\n" for name, value in error.headers.items()
    )

    assert f"```http\n{expected}" in API


def test_figures_are_those_of_the_shipped_model(shipped_bundle: Bundle) -> None:
    """Those that `evaluate --write` keeps, and beside them those of photos never seen."""
    metrics = shipped_bundle.card.metrics
    unseen = metrics["beside"]["ImageNet validation"]
    baselines = metrics["mean_iou_baselines"]
    accuracy = {
        "top-1 accuracy": "top1",
        "top-5 accuracy": "top5",
        "expected calibration error": "ece",
        "`confidence` is `ok`": "confidence_ok",
    }
    by_default = {
        "share with an IoU of 0.5 or more, `/gradcam`": metrics["gt_known_localization"],
        "mean IoU, constant box (80 % x 90 %, centred)": baselines["constant_box"],
        "mean IoU, the whole frame": baselines["full_frame"],
    }
    by_rule = {
        "mean IoU, `/gradcam`": ("gradcam", "last"),
        "mean IoU, `/cam`": ("cam", "last"),
        "mean IoU, `/gradcam?method=layercam&layers=last6`": ("layercam", "last6"),
    }
    part = README[README.index("## The model") : README.index("## Documentation")]
    rows = re.findall(r"^\| (.+?) \| (0\.\d{3})? ?\| (0\.\d{3})? ?\|$", part, re.M)
    printed = {name: (first, second) for name, first, second in rows}

    for name, key in accuracy.items():
        assert printed[name] == (f"{metrics[key]:.3f}", f"{unseen[key]:.3f}"), name
    assert f"| photos | {metrics['photos']:,} | {unseen['photos']:,} |" in part
    for name, figure in by_default.items():
        assert printed[name][0] == f"{figure:.3f}", name
    for name, (method, layers) in by_rule.items():
        figures = (metrics[key][method][layers] for key in ("mean_iou_fused", "mean_iou"))
        assert printed[name] == tuple(f"{figure:.3f}" for figure in figures), name
    customary = metrics["mean_iou_customary"]
    assert printed["mean IoU, Grad-CAM with the customary threshold (15 %)"] == (
        "",
        f"{customary:.3f}",
    )
    assert metrics["photos"] == 2066
    assert "TBD" not in part


def test_which_model_has_the_figures_of_both(shipped_bundle: Bundle, lite_bundle: Bundle) -> None:
    part = README[README.index("## Which model") : README.index("## The model")]
    for bundle in (shipped_bundle, lite_bundle):
        card, metrics = bundle.card, bundle.card.metrics
        unseen = metrics["beside"]["ImageNet validation"]
        iou = metrics["mean_iou_fused"]["gradcam"]["last"]
        size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
        row = (
            rf"^\| `{card.name}`.*, {card.input.size} px \| {metrics['top1']:.3f} / "
            rf"{unseen['top1']:.3f} \| {iou:.3f} \| [\d.]+ ms \| {size / 1e6:.0f} MB \|$"
        )
        assert re.search(row, part, re.M), row


def test_the_papers_page_has_the_figures_of_the_shipped_model(shipped_bundle: Bundle) -> None:
    metrics = shipped_bundle.card.metrics
    unseen = metrics["beside"]["ImageNet validation"]
    page = TEXTS["docs/paper.md"]
    part = page[page.index("| the shipped model |") :]
    ious = {
        "Grad-CAM, customary rule": metrics["mean_iou_customary"],
        "CAM, calibrated threshold (`rule=heatmap`)": metrics["mean_iou"]["cam"]["last"],
        "Grad-CAM, calibrated threshold (`rule=heatmap`)": metrics["mean_iou"]["gradcam"]["last"],
        "CAM, `rule=fused`": metrics["mean_iou_fused"]["cam"]["last"],
        "Grad-CAM, `rule=fused` (the default)": metrics["mean_iou_fused"]["gradcam"]["last"],
        "constant box": metrics["mean_iou_baselines"]["constant_box"],
        "full frame": metrics["mean_iou_baselines"]["full_frame"],
    }

    for k in ("top1", "top5"):
        row = f"| {k[:3]}-{k[3]}, the shipped model | {metrics[k]:.3f} | {unseen[k]:.3f} |"
        assert row in page
    for name, iou in ious.items():
        assert f"| {name} | {iou:.3f} (" in part, name


def test_presets_table_is_that_of_the_presets() -> None:
    from training.config import TrainConfig
    from training.presets import PRESETS

    table = readme.Table.read(TRAINING, "option", "`finetune` (default)")
    presets = [PRESETS[name] for name in ("finetune", "refine", "paper", "scratch")]
    expected = []
    for name in TrainConfig.model_fields:
        values = [typed(preset.model_fields[name].default) for preset in presets]
        if name != "preset" and len(set(values)) > 1:
            expected.append((f"`--{name.replace('_', '-')}`", *values))

    assert table.columns == ("option", "`finetune` (default)", "`refine`", "`paper`", "`scratch`")
    assert list(table.rows) == expected


def typed(value: Any) -> str:
    """A value as on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_figures_of_evaluate_exist() -> None:
    """The names in the first column are written by some module of `training`."""
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (PROJECT / "training").rglob("*.py")
    )
    rows = readme.Table.read(TEXTS["docs/evaluation.md"], "in the JSON", "photos").rows
    paths = {path for row in rows for path in re.findall(r"`(.+?)`", row[0])}

    assert len(paths) > 20
    for path in paths:
        for name in path.split("."):
            stem = name.removesuffix("_interval").removesuffix("_baselines")
            stem = stem.removesuffix("_customary").removesuffix("_fused")
            assert re.search(rf"\b{stem}\b", sources), path


@pytest.mark.parametrize("kind", ["PASCAL VOC", "COCO", "CSV"])
def test_boxes_are_read_where_the_page_says(tmp_path: Path, kind: str) -> None:
    from training.config import TrainConfig
    from training.data.loading import load_dataset

    rows = readme.Table.read(TEXTS["docs/own-data.md"], "format", "where").rows
    where = {row[0]: row[1] for row in rows}[kind]
    target = tmp_path / re.findall(r"`DIR/([^`]+)`", where)[0]
    photos = write_photos(tmp_path, 3)
    boxes = {photo: pixel_box(*map(int, photo.stem.split("-"))) for photo in photos}
    if kind == "PASCAL VOC":
        target.mkdir()
        for photo, box in boxes.items():
            (target / f"{photo.stem}.xml").write_text(voc(box) % photo.name)
    elif kind == "COCO":
        target.write_text(json.dumps(coco(boxes)))
    else:
        columns = re.findall(r"`(filename,[\w,]+)`", where)
        lines = [f"{photo.name},{','.join(map(str, box))}" for photo, box in boxes.items()]
        target.write_text("\n".join(columns + lines))
    dataset = load_dataset(TrainConfig(source="folder", data_dir=tmp_path))
    examples = dataset.train + dataset.validation + dataset.test

    assert len(examples) == 6
    for example in examples:
        xmin, ymin, xmax, ymax = boxes[next(p for p in photos if p.name in example.name)]
        (box,) = example.boxes
        assert box == pytest.approx((xmin / 60, ymin / 48, xmax / 60, ymax / 48))


def coco(boxes: dict[Path, tuple[float, float, float, float]]) -> dict[str, Any]:
    """COCO's images and annotations: a box is its corner, width and height."""
    return {
        "images": [{"id": number, "file_name": photo.name} for number, photo in enumerate(boxes)],
        "annotations": [
            {"image_id": number, "bbox": [xmin, ymin, xmax - xmin, ymax - ymin]}
            for number, (xmin, ymin, xmax, ymax) in enumerate(boxes.values())
        ],
    }


# -- terms and commands


def test_terms_of_the_weights_are_stated(shipped_bundle: Bundle) -> None:
    terms = r"\bImageNet\b.*\bnon-commercial\s+research\s+and\s+education\b"
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")

    for place in (shipped_bundle.card.licence, README, dockerfile):
        assert re.search(terms, place, re.S)


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:    |.*`)(?:\S+=\S+ )*make ([a-z-]+)\b", EVERYTHING, re.M))

    assert {"serve", "test", "train", "bench"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_training_commands_parse() -> None:
    """With all their options; files and directories need not exist."""
    from training.cli import Training

    used = readme.commands(EVERYTHING, "-m training")
    used += [["train", *words[0].split()] for words in make_arguments("train")]
    parsed = [words for words in used if "--help" not in words]
    for words in parsed:
        chosen = Training(_cli_parse_args=words)
        assert getattr(chosen, words[0]) is not None, words

    assert {words[0] for words in parsed} == set(Training.model_fields)


def test_batch_commands_parse() -> None:
    used = readme.commands(EVERYTHING, "-m app.batch")

    assert len(used) >= 2
    for words in used:
        assert batch.parser().parse_args(words)


def make_arguments(target: str) -> list[list[str]]:
    """What `make TARGET ARGS="..."` passes on."""
    return [
        [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
        for words in readme.commands(EVERYTHING, f"make {target}")
        if any(word.startswith("ARGS=") for word in words)
    ]


def test_options_that_are_named_exist() -> None:
    from training.cli import Training

    subcommands = [
        kind
        for field in Training.model_fields.values()
        for kind in typing.get_args(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    options = {f"--{name.replace('_', '-')}" for kind in subcommands for name in kind.model_fields}
    options |= set(re.findall(r"--[a-z][a-z-]*", batch.parser().format_help()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", EVERYTHING))

    assert len(subcommands) == len(Training.model_fields)
    assert "--checkpoint-minutes" in named
    of_others = {
        *("--build", "--build-arg", "--profile", "--rm", "--target", "--user"),  # Docker's
        *("--data-binary", "--fail", "--silent"),  # curl's
        *("--retry", "--retry-connrefused", "--retry-delay"),
        *("--head", "--address", "--port", "--generate"),  # Ray's
        *("--cpu-list", "--kill"),  # taskset's and fuser's
        *("--config", "--output-path", "--url"),  # openapi-python-client's
        "--core-hour",  # the benchmarks'
    }
    assert named - options <= {"--help", *of_others}


def test_benchmark_commands_exist() -> None:
    from benchmarks.__main__ import PARTS

    used = readme.commands(EVERYTHING, "-m benchmarks")
    assert used
    for words in used:
        assert words[0] in {"boxes", "capacity", "ray", *PARTS}, words
        assert set(words[1:]) <= {"--data-dir", "DIR", "--limit", "N", "alone", "two"}, words


# -- examples


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with readme.serve() as address:
        yield address


def test_readme_needs_no_other_files() -> None:
    """So its examples run in every checkout; those of docs/api.md need photos of dogs."""
    own = readme.examples(README)

    assert len(own) == 5
    assert not any(example.uses_photos for example in own)


def test_the_heatmap_is_loaded_as_printed(address: str, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(import io\n.*?)```", API, re.S)
    assert code.count("photo.jpg") == code.count("localhost:8000") == 1
    code = code.replace("photo.jpg", str(readme.DOCS / "drawing.jpg"))
    names: dict[str, Any] = {}
    exec(code.replace("localhost:8000", address), names)

    assert names["heatmap"].shape == (360, 480)
    assert 0.9 < names["heatmap"].max() <= 1
    assert names["status"] == "ok"
    assert names["label"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_commands_work_as_printed(
    address: str, shipped_bundle: Bundle, tmp_path: Path, example: readme.Example
) -> None:
    if example.uses_photos:
        needs.shared("photos")
    assert example.command.count("curl ") == 1
    output = example.run(address, tmp_path)

    if example.output:
        with Image.open(tmp_path / example.output) as picture:
            picture.load()
            assert picture.format == "PNG"
            panels = 3 if "/compare" in example.command else 1
            assert picture.width > panels * picture.height
    if example.gives_headers:
        assert example.answer is not None
        printed = {line.partition(":")[0].lower() for line in example.answer.splitlines()}
        names = {line.partition(":")[0].lower() for line in output.splitlines()}
        assert {name for name in printed if name.startswith("breedcam-")} <= names
        assert "breedcam-iou" in printed
    elif example.answer is not None:
        readme.check_like(json.loads(output), json.loads(example.answer))
    elif not example.output:
        assert json.loads(output)["name"] == shipped_bundle.card.name
