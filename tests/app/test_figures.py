import itertools
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Label, ModelCard
from tests.app.conftest import (
    EXPLAIN,
    Borrowed,
    Painted,
    Serve,
    ask,
    encode,
    overlay,
    picture,
    pixels,
    post,
)

pytestmark = pytest.mark.anyio


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Written anew, on purpose."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return across * down / (sum(areas) - across * down)


# -- figures, from maps painted by hand: the size of each is that of a 7 x 7 layer

BLOCK = np.zeros((7, 7), np.float32)
BLOCK[2:5, 1:3] = 1
# On a photo of 280 x 210 a cell is 40 x 30 pixels; half of the maximum lies on the cells' edges.
BLOCK_BOX = [40.0, 60.0, 120.0, 150.0]
PHOTO = encode(picture(280, 210))


@pytest.mark.parametrize(("path", "output"), [("/cam", "cam"), ("/gradcam", "gradcam")])
async def test_figures_follow_from_the_map(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, path: str, output: str
) -> None:
    boxes = ["0,0,80,75", "40,60,120,150", "-50,-3.5,500,1000", "200,10,210,20"]
    async with serve(engine=Painted(engine, uncalibrated, {output: BLOCK})) as client:
        answer = await ask(client, path, PHOTO, box=boxes, threshold=0.5)
    assert answer["explanation"]["status"] == "ok"
    assert answer["explanation"]["rule"] == "heatmap"
    assert answer["explanation"]["threshold"] == 0.5
    assert answer["explanation"]["box"] == BLOCK_BOX
    assert answer["explanation"]["peak"] == [60.0, 75.0]
    clipped = [
        [0, 0, 80, 75],
        [40, 60, 120, 150],
        [0, 0, 280, 210],
        [200, 10, 210, 20],
    ]
    localization = answer["localization"]
    assert [entry["box"] for entry in localization["all"]] == clipped
    assert [entry["iou"] for entry in localization["all"]] == pytest.approx(
        [iou(box, BLOCK_BOX) for box in clipped]
    )
    assert localization["box"] == [40, 60, 120, 150]
    assert localization["iou"] == 1
    assert localization["peak_in_box"] is True
    # Bilinear resizing spills over each edge of the block.
    assert 0.7 < localization["energy_in_box"] < 1


async def test_the_best_box_is_the_one_that_energy_and_peak_are_of(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    async with serve(engine=Painted(engine, uncalibrated, {"gradcam": BLOCK})) as client:
        away = await ask(client, "/gradcam", PHOTO, box=["200,10,210,20", "160,10,210,20"])
        whole = await ask(client, "/gradcam", PHOTO, box=["200,10,210,20", "0,0,280,210"])
    assert away["localization"]["box"] == [200, 10, 210, 20]
    assert away["localization"]["iou"] == 0
    assert away["localization"]["energy_in_box"] == 0
    assert away["localization"]["peak_in_box"] is False
    assert whole["localization"]["box"] == [0, 0, 280, 210]
    assert whole["localization"]["energy_in_box"] == pytest.approx(1)
    assert whole["localization"]["peak_in_box"] is True


async def test_energy_is_counted_in_the_heatmap(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    # The block lies across the middle, so that each half of the photo has half of it.
    async with serve(engine=Painted(engine, uncalibrated, {"gradcam": BLOCK})) as client:
        answer = await ask(client, "/gradcam", PHOTO, box="0,0,280,105")
    assert answer["localization"]["energy_in_box"] == pytest.approx(0.5)


async def test_cam_counts_from_its_least_value_and_gradcam_from_zero(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    # Beside the block: 0.2 of the maximum from zero, 0.6 of the way from the least.
    signed = np.where(BLOCK > 0, 1.0, -1.0)
    signed[2:5, 3:6] = 0.2
    async with serve(engine=Painted(engine, uncalibrated, default=signed)) as client:
        cam, gradcam = [
            (await ask(client, path, PHOTO, threshold=0.5))["explanation"]["box"]
            for path in EXPLAIN
        ]
    assert gradcam[2] == pytest.approx(120, abs=20)
    assert cam[2] == pytest.approx(240, abs=20)


async def test_layers_are_fused(serve: Serve, engine: Borrowed, uncalibrated: ModelCard) -> None:
    early = uncalibrated.layers[0]
    corner = np.zeros((early.height, early.width), np.float32)
    corner[0, 0] = 5
    painted = Painted(engine, uncalibrated, {"gradcam": BLOCK, f"gradcam_{early.name}": corner})
    async with serve(engine=painted) as client:
        alone = await ask(client, "/gradcam", PHOTO, layers=early.name, threshold=0.5)
        names = f"{uncalibrated.layers[-1].name},{early.name}"
        both = await ask(client, "/gradcam", PHOTO, layers=names)
        energy = await ask(client, "/gradcam", PHOTO, layers=names, box="0,0,30,22")
    assert alone["explanation"]["peak"] == [10, 7.5]
    assert alone["explanation"]["box"][:2] == [0, 0]
    # By hand: each map divided by its maximum, at 14 x 14, halved and summed.
    fused = np.zeros((14, 14))
    fused[0, 0] = 0.5
    block = cv2.resize(BLOCK, (14, 14), interpolation=cv2.INTER_LINEAR)
    fused += block / 2
    row, column = np.unravel_index(np.argmax(fused), fused.shape)
    assert both["explanation"]["layers"] == [early.name, uncalibrated.layers[-1].name]
    assert both["explanation"]["peak"] == [(column + 0.5) * 20, (row + 0.5) * 15]
    whole = fused / fused.max()
    corner_share = whole[0, 0] / whole.sum()
    assert energy["localization"]["energy_in_box"] == pytest.approx(corner_share, abs=0.02)
    assert iou(both["explanation"]["box"], BLOCK_BOX) > 0.3


async def test_a_higher_threshold_gives_a_smaller_box(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    rows, columns = np.mgrid[:7, :7]
    cone = np.maximum(0, 3.5 - np.hypot(rows - 3, columns - 3))
    async with serve(engine=Painted(engine, uncalibrated, {"gradcam": cone})) as client:
        boxes = [
            (await ask(client, "/gradcam", PHOTO, threshold=threshold))["explanation"]["box"]
            for threshold in (0.05, 0.3, 0.6, 0.9)
        ]
    for outer, inner in itertools.pairwise(boxes):
        assert outer[0] < inner[0] < inner[2] < outer[2]
        assert outer[1] < inner[1] < inner[3] < outer[3]


@pytest.mark.parametrize(
    ("path", "layers", "value", "status"),
    [
        ("/gradcam", "last", 0.0, "empty"),
        ("/gradcam", "last", 2.5, "constant"),
        ("/gradcam", "last", np.nan, "nonfinite"),
        ("/gradcam", "last6", np.inf, "nonfinite"),
        ("/gradcam", "last6", 0.0, "empty"),
        ("/cam", "last", -1.0, "empty"),
        ("/cam", "last", 2.5, "constant"),
        ("/cam", "last", -np.inf, "nonfinite"),
    ],
)
async def test_without_evidence_there_is_no_box(
    serve: Serve,
    engine: Borrowed,
    uncalibrated: ModelCard,
    path: str,
    layers: str,
    value: float,
    status: str,
) -> None:
    params: dict[str, Any] = {} if path == "/cam" else {"layers": layers}
    async with serve(engine=Painted(engine, uncalibrated, default=value)) as client:
        answer = await ask(client, path, PHOTO, box=["1,2,30,40", "5,6,7,8"], **params)
        bare = await post(client, path, PHOTO, headers={"Accept": "image/png"}, **params)
    assert answer["explanation"]["status"] == status
    assert answer["explanation"]["box"] is None
    assert answer["explanation"]["peak"] is None
    localization = answer["localization"]
    assert [entry["iou"] for entry in localization["all"]] == [0, 0]
    assert (localization["iou"], localization["energy_in_box"], localization["peak_in_box"]) == (
        0,
        0,
        False,
    )
    assert "BreedCAM-Box" not in bare.headers
    assert np.array_equal(pixels(bare.content), pixels(PHOTO))


async def test_a_header_holds_any_label(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    names = ("São Miguel", "柴犬 100 %", "plain; old, dog", 'a "b" \\ <c>')
    spelt = ("S%C3%A3o Miguel", "%E6%9F%B4%E7%8A%AC 100 %25", *names[2:])
    labels = tuple(Label(index=index, name=name) for index, name in enumerate(names))
    painted = Painted(engine, uncalibrated.replace(labels=labels))
    async with serve(engine=painted) as client:
        for name, spelling in zip(names, spelt, strict=True):
            bare = await post(client, "/cam", target=name, headers={"Accept": "image/png"})
            assert bare.status_code == 200
            assert bare.headers["BreedCAM-Target"] == spelling
            assert unquote(spelling) == name


# -- the overlay


@pytest.mark.parametrize("path", EXPLAIN)
async def test_the_bare_picture_is_the_one_in_the_json(
    client: httpx.AsyncClient, path: str
) -> None:
    params: dict[str, Any] = {
        "box": ["10,20,200,220", "-9,-9,320,240"],
        "colormap": "viridis",
        "size": 200,
    }
    answer = await ask(client, path, **params)
    bare = await post(client, path, headers={"Accept": "image/png"}, **params)
    assert bare.status_code == 200
    assert bare.headers["content-type"] == "image/png"
    assert answer["overlay"]["media_type"] == "image/png"
    assert (answer["overlay"]["width"], answer["overlay"]["height"]) == (200, 150)
    drawn = pixels(bare.content)
    assert drawn.shape == (150, 200, 3)
    assert np.array_equal(drawn, overlay(answer))
    assert bare.headers["BreedCAM-Target"] == answer["target"]["label"]
    assert float(bare.headers["BreedCAM-Probability"]) == pytest.approx(
        answer["target"]["probability"], abs=1e-6
    )
    box = [float(edge) for edge in bare.headers["BreedCAM-Box"].split(",")]
    assert box == pytest.approx(answer["explanation"]["box"], rel=1e-4)
    localization = answer["localization"]
    assert float(bare.headers["BreedCAM-IoU"]) == pytest.approx(localization["iou"], abs=1e-6)
    for entry in localization["all"]:
        assert entry["iou"] == pytest.approx(iou(entry["box"], answer["explanation"]["box"]))
    assert localization["iou"] == max(entry["iou"] for entry in localization["all"])


async def test_alpha_weighs_photo_and_colours(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    other = encode(picture(280, 210, seed=1))

    async with serve(engine=Painted(engine, uncalibrated, {"gradcam": BLOCK})) as client:

        async def draw(photo: bytes, **params: Any) -> npt.NDArray[np.uint8]:
            return overlay(await ask(client, "/gradcam", photo, **params))

        assert np.array_equal(
            await draw(PHOTO, alpha=0, colormap="jet"), await draw(PHOTO, alpha=0, colormap="hot")
        )
        assert np.array_equal(await draw(PHOTO, alpha=1), await draw(other, alpha=1))
        assert not np.array_equal(
            await draw(PHOTO, alpha=1, colormap="jet"), await draw(PHOTO, alpha=1, colormap="hot")
        )
        half, none, full = [await draw(PHOTO, alpha=alpha) for alpha in (0.5, 0, 1)]
    assert np.abs(half - (none / 2 + full / 2)).max() <= 1


@pytest.mark.parametrize(
    ("photo", "size", "expected"),
    [
        ((640, 480), None, (512, 384)),
        ((480, 640), 64, (48, 64)),
        ((90, 60), 1024, (90, 60)),
        ((1500, 750), 1024, (1024, 512)),
        ((1600, 1200), 1024, (1024, 768)),
        ((2047, 1500), 1024, (1024, 750)),
        # Decoded at a reduced scale, still told and drawn in the photo's own proportions.
        ((3000, 1500), 1024, (1024, 512)),
        ((700, 1), 100, (100, 1)),
    ],
)
async def test_the_size_of_the_overlay_is_bounded(
    client: httpx.AsyncClient,
    photo: tuple[int, int],
    size: int | None,
    expected: tuple[int, int],
) -> None:
    params = {} if size is None else {"size": size}
    answer = await ask(client, "/cam", encode(picture(*photo)), **params)
    assert (answer["image"]["width"], answer["image"]["height"]) == photo
    drawing = answer["overlay"]
    assert (drawing["width"], drawing["height"]) == expected
    assert overlay(answer).shape == (*expected[::-1], 3)


async def test_given_boxes_are_drawn_in_white_and_the_found_one_in_green(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    async with serve(engine=Painted(engine, uncalibrated, {"gradcam": BLOCK})) as client:
        drawn = overlay(
            await ask(client, "/gradcam", PHOTO, box="150,20,250,190", alpha=0, threshold=0.5)
        )
    assert drawn[100, 150].tolist() == [255, 255, 255]
    assert drawn[20, 200].tolist() == [255, 255, 255]
    assert drawn[100, 249].tolist() == [255, 255, 255]
    assert drawn[105, 40].tolist() == [64, 255, 64]
