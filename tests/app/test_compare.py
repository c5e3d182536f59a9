"""`/compare` beside `/cam` and `/gradcam`: one call of the model, and the same figures."""

import asyncio
import base64
from functools import partial
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.bundle import Fused, Label, Method, ModelCard
from app.engines import Batch, Cut
from tests.app.conftest import (
    JPEG,
    LONG,
    Answer,
    Arrays,
    Borrowed,
    Held,
    Painted,
    Serve,
    ask,
    encode,
    overlay,
    picture,
    pixels,
    post,
    problem,
)
from tests.app.exposition import scrape

pytestmark = pytest.mark.anyio

SINGLE: list[tuple[str, dict[str, Any]]] = [
    ("/cam", {}),
    ("/gradcam", {}),
    ("/gradcam", {"layers": "last6"}),
]
"""What the panels are, left to right."""


def entry(answer: Answer) -> Answer:
    """What `/compare` has of an answer of `/cam` or `/gradcam`."""
    return {name: answer[name] for name in ("target", "explanation", "localization", "heatmap")}


class Deep(Borrowed):
    """Runs what has every output, whatever is asked: cuts differ in their last digits."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.cuts: list[Cut] = []

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        self.cuts.append(cut)
        return super().run(Cut.EXPLAIN_DEEP, batch)


@pytest.fixture
def fused(uncalibrated: ModelCard) -> ModelCard:
    """The shipped model with rules for what is compared, each another."""
    rules = {
        Method.CAM: {"last": Fused(foreground=0.25, threshold=0.3)},
        Method.GRADCAM: {
            "last": Fused(foreground=0.5, threshold=0.4),
            "last6": Fused(foreground=0.75, threshold=0.5),
        },
    }
    return uncalibrated.replace(fused=rules)


def panels(drawn: npt.NDArray[np.uint8], count: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Cut a row of pictures with white between."""
    gap = max(2, width // 64)
    assert drawn.shape[1] == count * width + (count - 1) * gap
    lefts = [place * (width + gap) for place in range(count)]
    for left in lefts[1:]:
        assert (drawn[:, left - gap : left] == 255).all()
    return [drawn[:, left : left + width] for left in lefts]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"rule": "heatmap"},
        {"rule": "fused", "threshold": 0.6},
        {"box": ["20,30,200,220", "5,5,60,60", "-9,-9,500,500"], "curve": True},
        {"rule": "heatmap", "box": "20,30,200,220", "curve": True, "target": "3", "versus": "5"},
        {"size": 200, "colormap": "viridis", "alpha": 0.7, "target": "2", "top_k": 2},
        {"size": 200, "heatmap": True, "photo": True, "versus": "4"},
    ],
    ids=str,
)
async def test_each_panel_is_what_is_answered_alone(
    serve: Serve, engine: Borrowed, fused: ModelCard, params: dict[str, Any]
) -> None:
    async with serve(engine=Deep(engine), card=fused) as client:
        together = await ask(client, "/compare", **params)
        alone = [await ask(client, path, **params, **more) for path, more in SINGLE]
    assert together["explanations"] == [entry(answer) for answer in alone]
    for answer in alone:
        for name in ("foreground", "photo"):
            assert together[name] == answer[name]
            assert (answer[name] is not None) == (params.get("heatmap", False))
        for name in ("model", "image", "predictions", "confidence", "target"):
            assert together[name] == answer[name]
    drawing = together["overlay"]
    drawn = overlay(together)
    assert drawing["media_type"] == "image/png"
    assert drawn.shape == (drawing["height"], drawing["width"], 3)
    pictures = panels(drawn, 3, alone[0]["overlay"]["width"])
    for panel, answer in zip(pictures, alone, strict=True):
        np.testing.assert_array_equal(panel, overlay(answer))


async def test_order_and_layers(client: httpx.AsyncClient, card: ModelCard) -> None:
    answer = await ask(client, "/compare", overlay="false")
    explanations = [entry["explanation"] for entry in answer["explanations"]]
    assert [(entry["method"], entry["layers"]) for entry in explanations] == [
        ("cam", card.layer_names[-1:]),
        ("gradcam", card.layer_names[-1:]),
        ("gradcam", card.layer_names),
    ]
    assert answer["overlay"] is None
    assert [entry["localization"] for entry in answer["explanations"]] == [None] * 3
    assert set(answer["timings_ms"]) == {"decode", "queue", "inference", "render"}


async def test_the_model_is_called_once(serve: Serve, engine: Borrowed) -> None:
    listening = Deep(engine)
    async with serve(engine=listening) as client:
        await ask(client, "/compare")
        await ask(client, "/compare", method=["hirescam", "layercam/last6", "gradcam/last6"])
        await ask(client, "/compare", method=["cam", "gradcampp/last", "layercam"])
    assert listening.cuts == [Cut.EXPLAIN_DEEP, Cut.EXPLAIN_DEEP, Cut.EXPLAIN]


async def test_methods_come_in_the_order_of_the_request(
    serve: Serve, engine: Borrowed, fused: ModelCard
) -> None:
    late = ",".join(fused.layer_names[-2:])
    alone: list[tuple[str, dict[str, Any]]] = [
        ("/gradcam", {"method": "layercam", "layers": "last6"}),
        ("/cam", {}),
        ("/gradcam", {"method": "hirescam", "layers": late}),
        ("/gradcam", {"layers": "last6"}),
        ("/gradcam", {"method": "layercam", "layers": "last6"}),
        ("/gradcam", {"method": "gradcampp"}),
    ]
    methods = ["layercam/last6", "cam", f"hirescam/{late}", "gradcam/last6", "layercam/last6"]
    common: dict[str, Any] = {"box": "20,30,200,220", "size": 100, "heatmap": True}
    async with serve(engine=Deep(engine), card=fused) as client:
        together = await ask(client, "/compare", method=[*methods, "gradcampp/last"], **common)
        answers = [await ask(client, path, **params, **common) for path, params in alone]
    assert together["explanations"] == [entry(answer) for answer in answers]
    pictures = panels(overlay(together), 6, 100)
    for panel, answer in zip(pictures, answers, strict=True):
        np.testing.assert_array_equal(panel, overlay(answer))


async def test_twelve_methods_without_a_picture(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "/compare", method=["gradcam"] * 12, overlay="false")
    assert len(answer["explanations"]) == 12


async def test_cam_is_refused_without_a_head_for_it(
    serve: Serve, engine: Borrowed, fused: ModelCard
) -> None:
    async with serve(engine=Deep(engine), card=fused.replace(head="other")) as client:
        response = await post(client, "/compare", method=["gradcam", "cam"])
        assert "/gradcam" in problem(response, 409, "method-unavailable")


async def test_without_a_head_for_cam_there_are_two(
    serve: Serve, engine: Borrowed, fused: ModelCard
) -> None:
    other = fused.replace(head="other")
    async with serve(engine=Deep(engine), card=other) as client:
        together = await ask(client, "/compare")
        alone = [await ask(client, path, **more) for path, more in SINGLE[1:]]
        bare = await post(client, "/compare", headers={"Accept": "image/png"})
    assert [entry["explanation"] for entry in together["explanations"]] == [
        answer["explanation"] for answer in alone
    ]
    pictures = panels(overlay(together), 2, 320)
    for panel, answer in zip(pictures, alone, strict=True):
        np.testing.assert_array_equal(panel, overlay(answer))
    assert bare.headers["BreedCAM-Status"] == "ok; ok"


async def test_gradcam_of_the_last_layer_is_cam_after_a_relu(
    client: httpx.AsyncClient, card: ModelCard
) -> None:
    """With this head gradcam == relu(cam) / (h * w), so that their greatest values coincide."""
    photo = encode(picture(seed=1))
    peaks = set()
    for label in card.labels[::12]:
        params: dict[str, Any] = {"target": str(label.index), "overlay": "false"}
        answer = await ask(client, "/compare", photo, **params)
        cam, gradcam, _ = [entry["explanation"] for entry in answer["explanations"]]
        assert gradcam["status"] == cam["status"]
        assert gradcam["peak"] == cam["peak"]
        peaks.add(tuple(cam["peak"] or ()))
    assert len(peaks) > 1


# -- the picture alone


async def test_headers_hold_the_figures_of_all_three(
    serve: Serve, engine: Borrowed, fused: ModelCard
) -> None:
    params: dict[str, Any] = {"box": "20,30,200,220"}
    async with serve(engine=engine, card=fused) as client:
        answer = await ask(client, "/compare", **params)
        bare = await post(client, "/compare", headers={"Accept": "image/png"}, **params)
    assert bare.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels(bare.content), overlay(answer))
    assert bare.headers["BreedCAM-Target"] == answer["target"]["label"]
    assert float(bare.headers["BreedCAM-Probability"]) == pytest.approx(
        answer["target"]["probability"], abs=1e-6
    )
    assert bare.headers["BreedCAM-Rule"] == "fused; fused; fused"
    assert bare.headers["BreedCAM-Status"] == "ok; ok; ok"
    assert "BreedCAM-Confidence" not in bare.headers
    explanations = answer["explanations"]
    for name, expected in [
        ("BreedCAM-Box", [entry["explanation"]["box"] for entry in explanations]),
        ("BreedCAM-IoU", [[entry["localization"]["iou"]] for entry in explanations]),
    ]:
        parsed = [part.split(",") for part in bare.headers[name].split("; ")]
        assert [[float(number) for number in part] for part in parsed] == [
            pytest.approx(numbers, abs=1e-4) for numbers in expected
        ]


BLOCK = np.zeros((7, 7), np.float32)
BLOCK[2:5, 1:3] = 1


@pytest.mark.parametrize(
    ("seen", "status", "box"),
    [
        ("cam", "ok; empty; empty", "40,60,120,150; ;"),
        ("gradcam", "empty; ok; ok", "; 40,60,120,150; 40,60,120,150"),
    ],
)
async def test_what_one_panel_lacks_is_left_empty_in_its_place(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, seen: str, status: str, box: str
) -> None:
    photo = encode(picture(280, 210))
    async with serve(engine=Painted(engine, uncalibrated, {seen: BLOCK})) as client:
        bare = await post(client, "/compare", photo, threshold=0.5, headers={"Accept": "image/png"})
        answer = await ask(client, "/compare", photo, threshold=0.5, box="40,60,120,150")
    assert bare.headers["BreedCAM-Status"] == status
    assert bare.headers["BreedCAM-Rule"] == "heatmap; heatmap; heatmap"
    # HTTP allows no space at a header's end.
    [raw] = [value for name, value in bare.headers.raw if name.lower() == b"breedcam-box"]
    assert raw.decode() == box
    assert "BreedCAM-IoU" not in bare.headers
    for entry, expected in zip(answer["explanations"], status.split("; "), strict=True):
        assert entry["explanation"]["status"] == expected
        assert entry["localization"]["iou"] == (1 if expected == "ok" else 0)


async def test_no_panel_with_evidence_has_no_header_for_boxes(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    async with serve(engine=Painted(engine, uncalibrated)) as client:
        bare = await post(client, "/compare", headers={"Accept": "image/png"})
    assert bare.headers["BreedCAM-Status"] == "empty; empty; empty"
    assert "BreedCAM-Box" not in bare.headers
    for panel in panels(pixels(bare.content), 3, 320):
        np.testing.assert_array_equal(panel, pixels(JPEG))


# -- numbers and photo


def values(heatmap: Answer) -> npt.NDArray[np.float32]:
    data = base64.b64decode(heatmap["data"])
    return np.frombuffer(data, "<f4").reshape(heatmap["height"], heatmap["width"])


@pytest.mark.parametrize("rule", ["heatmap", "fused"])
async def test_numbers_are_the_heatmap_before_it_is_resized(
    serve: Serve, engine: Borrowed, calibrated: ModelCard, rule: str
) -> None:
    rng = np.random.default_rng(7)
    late, early = rng.normal(size=(2, 7, 7)), rng.normal(size=(14, 14))
    names = calibrated.layer_names
    maps: dict[str, npt.ArrayLike] = {
        "cam": late[0],
        "gradcam": late[1],
        f"layercam_{names[0]}": early,
        "foreground": np.abs(late[0]),
        f"foreground_{names[2]}": np.zeros((14, 14)),
    }
    params: dict[str, Any] = {"heatmap": "true", "overlay": "false", "rule": rule}
    methods = ["cam", "gradcam", f"layercam/{names[0]}", "hirescam"]
    if rule == "fused":
        methods.pop(2)  # only `last` and `last6` are calibrated
    async with serve(engine=Painted(engine, calibrated, maps)) as client:
        answer = await ask(client, "/compare", method=methods, **params)
        single = await ask(client, "/gradcam", **params)
    expected = [
        (late[0] - late[0].min()) / np.ptp(late[0]),
        np.maximum(late[1], 0) / late[1].max(),
        np.maximum(early, 0) / early.max(),
        np.zeros((7, 7)),  # `empty`
    ]
    if rule == "fused":
        expected.pop(2)
    for entry, heatmap in zip(answer["explanations"], expected, strict=True):
        np.testing.assert_allclose(values(entry["heatmap"]), heatmap, atol=1e-6)
    assert answer["explanations"][-1]["explanation"]["status"] == "empty"
    assert single["heatmap"] == answer["explanations"][1]["heatmap"]
    # Of two layers, the foreground has the size of the finer one; the other has no evidence.
    foreground = values(answer["foreground"])
    assert foreground.shape == (14, 14)
    assert foreground.max() == 1
    row, column = np.unravel_index(np.argmax(np.abs(late[0])), (7, 7))
    assert np.unravel_index(np.argmax(foreground), (14, 14)) in {
        (2 * row + y, 2 * column + x) for y in (0, 1) for x in (0, 1)
    }
    assert single["foreground"] == answer["foreground"]


@pytest.mark.parametrize("path", ["/cam", "/compare"])
async def test_the_photo_is_the_overlay_without_heatmap_and_boxes(
    client: httpx.AsyncClient, path: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    photo = encode(picture(480, 360), exif=exif)
    for params, size in (({}, (360, 480)), ({"size": 120}, (90, 120))):
        one = {"method": "gradcam"} if path == "/compare" else {}
        bare = await ask(client, path, photo, alpha=0, rule="heatmap", **one, **params)
        answer = await ask(
            client, path, photo, photo="true", overlay="false", box="9,9,99,99", **params
        )
        assert bare["photo"] is None
        assert answer["overlay"] is None
        assert answer["photo"]["media_type"] == "image/jpeg"
        assert (answer["photo"]["width"], answer["photo"]["height"]) == size
        shown = pixels(base64.b64decode(answer["photo"]["data"])).astype(int)
        # All but the box around the evidence, which an overlay always has.
        difference = np.abs(shown - overlay(bare))
        assert np.median(difference) <= 2
        assert np.mean(difference > 16) < 0.15


# -- several classes

TWO = ["3", "8"]


@pytest.mark.parametrize("versus", [None, "5"])
async def test_two_classes_are_what_two_requests_give(
    client: httpx.AsyncClient, versus: str | None
) -> None:
    methods = ["gradcam", "cam", "layercam/last6"]
    params: dict[str, Any] = {"method": methods, "heatmap": "true", "box": "20,30,200,220"}
    if versus:
        params["versus"] = versus
    together = await ask(client, "/compare", target=TWO, rule="heatmap", **params)
    alone = [
        await ask(client, "/compare", target=target, rule="heatmap", **params) for target in TWO
    ]
    expected = [part for answer in alone for part in answer["explanations"]]
    assert len(together["explanations"]) == len(expected) == 6
    for part, other in zip(together["explanations"], expected, strict=True):
        np.testing.assert_allclose(values(part["heatmap"]), values(other["heatmap"]), atol=1e-5)
        assert part["target"]["class_index"] == other["target"]["class_index"]
        probabilities = [each["target"]["probability"] for each in (part, other)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
        for name in ("method", "layers", "rule", "threshold", "status", "peak"):
            assert part["explanation"][name] == other["explanation"][name]
        assert part["explanation"]["box"] == pytest.approx(other["explanation"]["box"], abs=2)
        assert part["localization"]["iou"] == pytest.approx(other["localization"]["iou"], abs=0.02)
        if versus:
            assert part["explanation"]["versus"]["class_index"] == int(versus)
    assert together["target"] == together["explanations"][0]["target"]
    targets = [part["target"]["class_index"] for part in together["explanations"]]
    assert targets == [3, 3, 3, 8, 8, 8]
    first, second = (values(together["explanations"][place]["heatmap"]) for place in (0, 3))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(
        values(together["foreground"]), values(alone[0]["foreground"]), atol=1e-5
    )
    drawn = panels(overlay(together), 6, 320)
    pairs = [panel for answer in alone for panel in panels(overlay(answer), 3, 320)]
    for panel, other in zip(drawn, pairs, strict=True):
        assert np.abs(panel.astype(int) - other).mean() < 1


@pytest.mark.parametrize(("max_batch", "calls"), [(4, [3]), (2, [2, 1]), (1, [1, 1, 1])])
async def test_classes_share_one_call_of_the_model_where_it_takes_as_many(
    serve: Serve, engine: Borrowed, card: ModelCard, max_batch: int, calls: list[int]
) -> None:
    held = Held(Painted(engine, card))
    held.go.set()
    async with serve(engine=held, card=Painted(engine, card).card, max_batch=max_batch) as client:
        answer = await ask(client, "/compare", target=["1", "2", "3"], method="cam")
    assert held.rows == calls
    targets = [part["target"]["class_index"] for part in answer["explanations"]]
    assert targets == [1, 2, 3]
    assert set(answer["timings_ms"]) == {"decode", "queue", "inference", "render"}


async def test_several_classes_need_one_place(serve: Serve, engine: Borrowed) -> None:
    async with serve(engine=engine, max_pending=1) as client:
        answer = await ask(client, "/compare", target=TWO, overlay="false")
    assert len(answer["explanations"]) == 6


async def test_every_place_has_room_for_all_of_its_classes(
    serve: Serve, engine: Borrowed, card: ModelCard
) -> None:
    held = Held(Painted(engine, card))
    async with serve(engine=held, card=Painted(engine, card).card, max_pending=3) as client:
        send = partial(ask, client, "/compare", target=["1", "2", "3", "4"], overlay="false")
        first = asyncio.create_task(send())
        assert await asyncio.to_thread(held.busy.wait, LONG)
        others = [asyncio.create_task(send()) for _ in range(2)]
        while (await scrape(client)).value("breedcam_queue_depth") < 8:
            assert not any(task.done() for task in others)
            await asyncio.sleep(0.01)
        problem(await post(client, "/compare"), 429, "queue-full")
        held.go.set()
        answers = await asyncio.gather(first, *others)
    assert [len(answer["explanations"]) for answer in answers] == [12] * 3


async def test_twelve_explanations_of_four_classes(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "/compare", target=["1", "2", "3", "4"], overlay="false")
    targets = [part["target"]["class_index"] for part in answer["explanations"]]
    assert targets == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


async def test_headers_name_each_class_once(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    names = ("a; b", "São Miguel", "c")
    labels = tuple(Label(index=index, name=name) for index, name in enumerate(names))
    painted = Painted(engine, uncalibrated.replace(labels=labels), {"cam": BLOCK})
    async with serve(engine=painted) as client:
        bare = await post(
            client,
            "/compare",
            target=["1", "0"],
            method=["cam", "gradcam"],
            headers={"Accept": "image/png"},
        )
    # The likelihoods are those of `Painted`: 1, 2 and 3 sixths.
    assert bare.headers["BreedCAM-Target"] == "S%C3%A3o Miguel; a%3B b"
    assert bare.headers["BreedCAM-Probability"] == "0.333333; 0.166667"
    assert bare.headers["BreedCAM-Status"] == "ok; empty; ok; empty"
    assert len(panels(pixels(bare.content), 4, 320)) == 4


# -- confidence, of every endpoint that answers


async def answers(client: httpx.AsyncClient) -> list[Answer]:
    paths = ("/predict", "/cam", "/gradcam", "/compare")
    return [await ask(client, path, top_k=1000) for path in paths]


async def test_probabilities_are_calibrated_everywhere(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, calibrated: ModelCard
) -> None:
    ranks = np.arange(len(calibrated.labels), 0, -1)
    for card, powers in ((uncalibrated, ranks), (calibrated, ranks**2)):
        async with serve(engine=Painted(engine, card)) as client:
            for answer in await answers(client):
                # The logits are log 1, log 2, ...; halving the temperature squares their powers.
                listed = [prediction["probability"] for prediction in answer["predictions"]]
                assert listed == pytest.approx(list(powers / powers.sum()), rel=1e-5)
                if "target" in answer:
                    assert answer["target"] == answer["predictions"][0]
            against = await ask(client, "/cam", versus="0")
            assert against["explanation"]["versus"]["probability"] == pytest.approx(
                1 / powers.sum(), rel=1e-5
            )


@pytest.mark.parametrize(("novelty", "confidence"), [(7.0, "ok"), (7.1, "low")])
async def test_confidence_is_told_everywhere(
    serve: Serve, engine: Borrowed, calibrated: ModelCard, novelty: float, confidence: str
) -> None:
    painted = Painted(engine, calibrated, {"novelty": novelty, "gradcam": BLOCK})
    async with serve(engine=painted) as client:
        assert [answer["confidence"] for answer in await answers(client)] == [confidence] * 4
        bare = await post(client, "/gradcam", headers={"Accept": "image/png"})
        row = await post(client, "/compare", headers={"Accept": "image/png"})
    assert bare.headers["BreedCAM-Confidence"] == confidence
    assert bare.headers["BreedCAM-Rule"] == "fused"
    assert row.headers["BreedCAM-Confidence"] == confidence


async def test_without_calibration_there_is_no_confidence(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    async with serve(engine=Painted(engine, uncalibrated)) as client:
        assert [answer["confidence"] for answer in await answers(client)] == [None] * 4
        bare = await post(client, "/cam", headers={"Accept": "image/png"})
    assert "BreedCAM-Confidence" not in bare.headers


# -- the rule, as a request has it


async def test_the_foreground_of_two_layers_moves_the_box_and_nothing_else(
    serve: Serve, engine: Borrowed, calibrated: ModelCard
) -> None:
    beside = np.zeros((7, 7), np.float32)
    beside[2:5, 3:6] = 1
    finer = beside.repeat(2, 0).repeat(2, 1)
    earlier, _ = calibrated.foreground_layers
    maps = {"gradcam": BLOCK, "foreground": beside, f"foreground_{earlier}": finer}
    photo = encode(picture(280, 210))
    async with serve(engine=Painted(engine, calibrated, maps)) as client:
        own = await ask(client, "/gradcam", photo, rule="heatmap", threshold=0.5)
        both = await ask(client, "/gradcam", photo)
    assert own["explanation"]["rule"] == "heatmap"
    assert own["explanation"]["box"] == [40, 60, 120, 150]
    assert (both["explanation"]["rule"], both["explanation"]["threshold"]) == ("fused", 0.4)
    # Halves that touch: 0.4 of their maximum of about a half joins them.
    assert both["explanation"]["box"] == pytest.approx([40, 60, 240, 150], abs=10)
    assert both["explanation"]["peak"] == own["explanation"]["peak"]
