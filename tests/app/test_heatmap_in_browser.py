"""heatmap.js in Chromium beside app/heatmaps.py, app/evidence.py and the API's own answers.

Apart from asynchronous tests: Playwright's event loop and theirs do not mix.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from app import evidence, heatmaps
from app.bundle import Bundle, Foreground, Fused, Method, Rule
from app.evidence import MethodAtLayers
from app.heatmaps import Box
from app.overlay import COLORMAPS
from app.panels import numbers
from tests import needs
from tests.app.conftest import Answer, by_hand, encode, picture
from tests.app.services import LONG, Service

Map = npt.NDArray[np.float32]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = needs.tool("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def call(browser: Browser, plain_service: Service) -> Iterator[Call]:
    """`call(body, argument)`: what a JavaScript function of `heatmap` and `argument` returns."""
    page = browser.new_page()
    page.set_default_timeout(LONG * 1000)
    page.goto(plain_service.url)

    def call(body: str, argument: Any = None) -> Any:
        module = "const heatmap = await import('/static/heatmap.js');"
        return page.evaluate(f"async (argument) => {{ {module} {body} }}", argument)

    yield call
    page.close()


def data(values: npt.ArrayLike) -> Answer:
    """A map as the API answers it."""
    return numbers(np.asarray(values, np.float32)).model_dump()


def drawing(*rows: str) -> Map:
    """A map whose values are the digits, `.` being 0."""
    return np.array([[int(cell) for cell in row.replace(".", "0")] for row in rows], np.float32)


def boxes(call: Call, maps: list[Map], thresholds: list[float]) -> list[Box | None]:
    """`locate` in the browser of each map at its threshold."""
    return [
        None if box is None else tuple(box)
        for box in call(
            """return argument.map(([data, threshold]) =>
                heatmap.locate(heatmap.decode(data), threshold))""",
            [[data(values), threshold] for values, threshold in zip(maps, thresholds, strict=True)],
        )
    ]


# -- a map's box, by hand

BY_HAND: dict[str, tuple[Map, float, Box | None]] = {
    "all zero": (np.zeros((4, 5), np.float32), 0.5, None),
    "one pixel": (drawing(".....", "...2.", "....."), 0.5, (3, 1, 4, 2)),
    "one pixel is the map": (drawing("7"), 1.0, (0, 0, 1, 1)),
    "all over": (drawing("999", "999"), 1.0, (0, 0, 3, 2)),
    "largest of two": (drawing("22...", "22...", "...9.", "...9."), 0.2, (0, 0, 2, 2)),
    "the peak's is not the largest": (drawing("9..", "...", "222"), 0.2, (0, 2, 3, 3)),
    "diagonal neighbours": (drawing("5...", ".5..", "..5.", "...."), 0.5, (0, 0, 3, 3)),
    "the other diagonal": (drawing("...5", "..5.", "....", "55.."), 0.5, (2, 0, 4, 2)),
    "a hole is not inside": (
        drawing("555....", "5.5.555", "5.5.555", "555.555"),
        0.5,
        (0, 0, 3, 4),
    ),
    "a filled one beats a ring": (drawing("555.999", "5.5.999", "555.999"), 0.5, (4, 0, 7, 3)),
    "one inside another's hole": (
        drawing("5555555", "5.....5", "5.999.5", "5.999.5", "5.999.5", "5.....5", "5555555"),
        0.5,
        (0, 0, 7, 7),
    ),
    "tie: the uppermost": (drawing("....5", "5....", "....."), 0.5, (4, 0, 5, 1)),
    "tie: then the leftmost": (drawing("5..5", "5..5"), 0.5, (0, 0, 1, 2)),
    "tie: the uppermost before the leftmost": (drawing("...55", "55..."), 0.5, (3, 0, 5, 1)),
    "tie: by the box, not by its first pixel": (
        drawing(".55555.5", ".55555.5", ".......5", "5555555."),
        0.5,
        (0, 0, 8, 4),
    ),
    "exactly at the threshold": (drawing("48.", "..."), 0.5, (0, 0, 2, 1)),
    "just over the threshold": (drawing("48.", "..."), 0.5 + 1e-6, (1, 0, 2, 1)),
    "the whole maximum": (drawing("88.8", "...."), 1.0, (0, 0, 2, 1)),
}


def test_boxes_by_hand(call: Call) -> None:
    maps, thresholds, expected = zip(*BY_HAND.values(), strict=True)
    found = boxes(call, list(maps), list(thresholds))
    assert dict(zip(BY_HAND, found, strict=True)) == dict(zip(BY_HAND, expected, strict=True))
    assert list(map(heatmaps.locate, maps, thresholds)) == list(expected)


def test_boxes_of_maps_full_of_ties(call: Call) -> None:
    """Few levels on few pixels: most maps have several regions of one size, holes and corners."""
    rng = np.random.default_rng(3)
    maps, thresholds = [], []
    for _ in range(3000):
        height, width = rng.integers(1, 14, 2)
        levels = int(rng.integers(2, 6))
        share = rng.uniform(0.2, 0.9)
        values = rng.integers(1, levels + 1, (height, width)) * (
            rng.random((height, width)) < share
        )
        scale = np.float32(rng.choice([1, 1 / 3, 0.1]))
        maps.append(values.astype(np.float32) * scale)
        # On the levels themselves, where >= decides.
        thresholds.append(float(rng.integers(1, levels + 1) / levels))
    assert boxes(call, maps, thresholds) == list(map(heatmaps.locate, maps, thresholds))


# -- arithmetic


def test_a_map_arrives_bit_by_bit(call: Call) -> None:
    values = np.random.default_rng(0).random((3, 5)).astype(np.float32)
    values[0, 0] = np.nextafter(np.float32(1), np.float32(0))
    decoded = call(
        "const map = heatmap.decode(argument); return {...map, values: [...map.values]};",
        data(values),
    )
    assert (decoded["height"], decoded["width"]) == (3, 5)
    assert decoded["values"] == values.ravel().tolist()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((8, 8), (256, 256)),
        ((16, 16), (256, 256)),
        ((7, 7), (224, 224)),
        ((10, 10), (299, 299)),
        ((5, 9), (40, 100)),
        ((1, 1), (4, 3)),
        ((1, 6), (5, 30)),
        ((256, 256), (100, 100)),
        ((6, 4), (6, 4)),
    ],
    ids=str,
)
def test_resize(call: Call, shape: tuple[int, int], size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape).astype(np.float32)
    resized = call(
        """const map = heatmap.resize(heatmap.decode(argument[0]), argument[1], argument[2]);
        return {...map, values: [...map.values]};""",
        [data(values), size[1], size[0]],
    )
    assert (resized["height"], resized["width"]) == size
    expected = heatmaps.resize(values, size[1], size[0])
    # OpenCV has several ways to count. With Intel's library, which takes no single row, not a bit
    # differs.
    tolerance = 0 if cv2.ipp.useIPP() and min(shape) > 1 else 2e-5
    np.testing.assert_allclose(np.reshape(resized["values"], size), expected, tolerance, tolerance)


def test_blend_is_the_services_to_the_last_bit(call: Call) -> None:
    rng = np.random.default_rng(2)
    for weight in (0.07, 0.5, 0.3, 0.999):
        first, second = rng.random((2, 9, 9)).astype(np.float32)
        blended = call(
            """const [a, b] = argument.slice(0, 2).map(heatmap.decode);
            return [...heatmap.blend(a, b, argument[2]).values];""",
            [data(first), data(second), weight],
        )
        assert blended == heatmaps.blend(first, second, weight).ravel().tolist()


def test_iou_energy_and_peak_in_a_box(call: Call) -> None:
    rng = np.random.default_rng(4)
    values = rng.random((7, 11)).astype(np.float32)
    values[3, 4] = values[5, 2] = 1.5  # the first of them is the peak
    edges = rng.uniform(-3, 14, (300, 2, 2, 2)).round(1)  # some meet, some are apart
    pairs = np.sort(edges, axis=2).reshape(300, 2, 4)
    pairs[::5, 1] = pairs[::5, 0]
    figures = call(
        """const map = heatmap.decode(argument[0]);
        const point = heatmap.peak(map);
        return argument[1].map(([a, b]) => [heatmap.iou(a, b), heatmap.energyInBox(map, a),
            heatmap.peakInBox(point, a)]);""",
        [data(values), pairs.tolist()],
    )
    point = heatmaps.peak(values)
    assert point == (4.5, 3.5)
    both: Any = pairs.tolist()
    for (a, b), (iou, energy, hit) in zip(both, figures, strict=True):
        assert iou == pytest.approx(heatmaps.iou(a, b), abs=1e-12)
        assert energy == pytest.approx(heatmaps.energy_in_box(values, a), abs=1e-9)
        assert hit == heatmaps.peak_in_box(point, a)
    assert len({hit for _, _, hit in figures}) == 2
    empty = call(
        "return heatmap.energyInBox(heatmap.decode(argument), [0, 0, 2, 2])", data(np.zeros((2, 2)))
    )
    assert empty == 0


# -- box and peak


LOCATED = """return argument.map((input) => {
    const maps = {
        heatmap: heatmap.decode(input.heatmap),
        foreground: input.foreground && heatmap.decode(input.foreground),
    };
    const { box, peak, values } = heatmap.located({ ...input, ...maps });
    const figures = (input.boxes ?? []).map((own) => {
        if (box === null) {
            return { iou: 0, energy_in_box: 0, peak_in_box: false };
        }
        const inside = heatmap.scaleBox(own, input.photo, [values.width, values.height]);
        return {
            iou: heatmap.iou(own, box),
            energy_in_box: heatmap.energyInBox(values, inside),
            peak_in_box: heatmap.peakInBox(peak, own),
        };
    });
    return { box, peak, figures, sum: values && values.values.reduce((a, b) => a + b, 0) };
});"""


def odd_maps() -> list[Map]:
    """Nothing, a hot cell in a corner, two equal plateaus, noise of both signs, spots, corners."""
    rng = np.random.default_rng(5)
    corner, plateaus = np.zeros((2, 7, 7), np.float32)
    corner[6, 0] = 3
    plateaus[1:3, 1:3] = plateaus[4:6, 4:6] = 2
    noise = rng.normal(size=(7, 7))
    spots = rng.random((7, 7)) < 0.2
    maps = (np.zeros((7, 7)), corner, plateaus, noise, spots, np.eye(7), np.ones((7, 7)))
    return [np.asarray(values, np.float32) for values in maps]


@pytest.mark.parametrize("rule", list(Rule))
def test_located_is_what_evidence_finds(call: Call, shipped_bundle: Bundle, rule: Rule) -> None:
    plain = by_hand(shipped_bundle.card).replace(foreground=Foreground(rule="boxes", photos=9))
    photos = [(640, 480), (480, 640), (3024, 4032), (1, 900), (17, 17)]
    inputs: list[Answer] = []
    expected: list[tuple[evidence.Evidence, tuple[int, int]]] = []
    for weight, threshold in ((0.3, 0.25), (0.5, 0.5), (0.7, 0.9), (0.25, 1.0)):
        fused = Fused(foreground=weight, threshold=0.5)
        card = plain.replace(fused={Method.GRADCAM: {"last": fused}})
        spec = MethodAtLayers.parse(card, Method.GRADCAM, "last")
        for raw in odd_maps():
            for foreground in odd_maps():
                outputs = {"gradcam": raw, "foreground": foreground}
                found = evidence.find(card, outputs, spec, rule=rule, threshold=threshold)
                photo = photos[len(inputs) % len(photos)]
                expected.append((found, photo))
                inputs.append(
                    {
                        "heatmap": data(found.heatmap.values),
                        "foreground": data(evidence.foreground_of(card, outputs).values),
                        "weight": weight,
                        "rule": rule.value,
                        "threshold": threshold,
                        "size": card.input.size,
                        "photo": photo,
                    }
                )
    answers = call(LOCATED, inputs)
    for answer, (found, photo) in zip(answers, expected, strict=True):
        for name in ("box", "peak"):
            own = answer[name] and tuple(answer[name])
            assert own == getattr(found, name)(*photo)
        if found.values is None:
            assert answer["sum"] is None
        else:
            assert answer["sum"] == pytest.approx(found.values.sum(dtype=np.float64), rel=1e-6)
    assert sum(answer["box"] is None for answer in answers) == 2 * 4 * len(odd_maps())


# -- the API's own answers


def drawings() -> list[bytes]:
    """Landscape, portrait, square, a strip, and one on its side by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    sizes = [(480, 360), (300, 450), (256, 256), (900, 90)]
    photos = [encode(picture(*size, seed=seed)) for seed, size in enumerate(sizes)]
    return [*photos, encode(picture(480, 360, seed=9), exif=exif)]


def photographs() -> list[bytes]:
    paths = sorted(needs.shared("photos").glob("*.JPEG"))
    return [path.read_bytes() for path in paths]


PARAMS: list[dict[str, Any]] = [
    {},
    {"rule": "heatmap"},
    {"rule": "heatmap", "threshold": 0.15, "target": "1"},
    {"threshold": 0.8, "target": "0", "versus": "1"},
    {"rule": "fused", "threshold": 1},
]


def quick() -> list[tuple[bytes, dict[str, Any]]]:
    return list(zip(drawings(), PARAMS, strict=True))


def thorough() -> list[tuple[bytes, dict[str, Any]]]:
    return list(itertools.product([*drawings(), *photographs()], PARAMS))


@pytest.mark.parametrize("cases", [quick, pytest.param(thorough, marks=pytest.mark.slow)])
def test_answers_are_those_of_the_api(
    call: Call,
    plain_service: Service,
    shipped_bundle: Bundle,
    cases: Callable[[], list[tuple[bytes, dict[str, Any]]]],
) -> None:
    card = shipped_bundle.card
    names = [
        f"{method}/{layers}"
        for method in card.methods
        for layers in ("last", "last6")
        if method is not Method.CAM or layers == "last"
    ]
    requests, compared, equal = cases(), 0, 0
    for photo, params in requests:
        answer = compare(plain_service, photo, names, params)
        size = answer["image"]["width"], answer["image"]["height"]
        inputs = [
            {
                "heatmap": entry["heatmap"],
                "foreground": answer["foreground"],
                "weight": card.fused[Method(method)][layers].foreground,
                "rule": entry["explanation"]["rule"],
                "threshold": entry["explanation"]["threshold"],
                "size": card.input.size,
                "photo": size,
                "boxes": [part["box"] for part in entry["localization"]["all"]],
            }
            for entry, (method, _, layers) in zip(
                answer["explanations"], (name.partition("/") for name in names), strict=True
            )
        ]
        for entry, own in zip(answer["explanations"], call(LOCATED, inputs), strict=True):
            explanation, localization = entry["explanation"], entry["localization"]
            compared += 1
            equal += own["box"] == explanation["box"]
            assert own["peak"] == explanation["peak"]
            # A processor that rounds differently may move an edge by a pixel of the input.
            if own["box"] is not None:
                step = np.tile(size, 2) / card.input.size
                assert (np.abs(np.subtract(own["box"], explanation["box"])) < 1.01 * step).all()
            ious = [part["iou"] for part in localization["all"]]
            assert [part["iou"] for part in own["figures"]] == pytest.approx(ious, abs=0.02)
            best = own["figures"][int(np.argmax(ious))]
            assert best["energy_in_box"] == pytest.approx(localization["energy_in_box"], abs=1e-6)
            assert best["peak_in_box"] == localization["peak_in_box"]
            if own["box"] == explanation["box"]:
                assert best["iou"] == pytest.approx(localization["iou"], abs=1e-12)
    assert compared == len(requests) * len(names)
    assert equal >= 0.99 * compared


def compare(service: Service, photo: bytes, methods: list[str], params: dict[str, Any]) -> Answer:
    """The answer by all methods, with two boxes of the request."""
    boxes = ["10,10,80,70", "0.5,30.5,250,1000"]
    query = {"heatmap": "true", "overlay": "false", "method": methods, "box": boxes}
    headers = {"Content-Type": "image/jpeg"}
    response = httpx.post(
        f"{service.url}/compare",
        content=photo,
        headers=headers,
        params=query | params,
        timeout=LONG,
    )
    assert response.status_code == 200, response.text[:500]
    answer: Answer = response.json()
    return answer


def test_a_slider_finds_what_the_curve_has(call: Call, plain_service: Service) -> None:
    """At 49 thresholds, without a request for each."""
    headers = {"Content-Type": "image/jpeg"}
    for rule in Rule:
        query = {"heatmap": "true", "overlay": "false", "rule": rule.value}
        more = {"box": "40,40,300,300", "curve": "true", "layers": "last6"}
        answer = httpx.post(
            f"{plain_service.url}/gradcam",
            content=encode(picture(480, 360)),
            headers=headers,
            params=query | more,
            timeout=LONG,
        ).json()
        curve = answer["localization"]["curve"]
        model = httpx.get(f"{plain_service.url}/model", timeout=LONG).json()
        common = {
            "heatmap": answer["heatmap"],
            "foreground": answer["foreground"],
            "weight": model["fused"]["gradcam"]["last6"]["foreground"],
            "rule": rule.value,
            "size": model["input"]["size"],
            "photo": [480, 360],
            "boxes": [[40, 40, 300, 300]],
        }
        found = call(LOCATED, [common | {"threshold": level} for level in curve["thresholds"]])
        ious = [own["figures"][0]["iou"] for own in found]
        assert len(set(ious)) > 10
        assert ious == pytest.approx(curve["ious"], abs=0.01)


# -- colours


def test_colours_in_the_browser(call: Call) -> None:
    tables = call(
        """const { COLORMAPS } = await import("/static/colormaps.js");
        return Object.fromEntries(Object.entries(COLORMAPS).map(([name, text]) =>
            [name, [...atob(text)].map((letter) => letter.charCodeAt(0))]));"""
    )
    assert tables == {name: table.ravel().tolist() for name, table in COLORMAPS.items()}
