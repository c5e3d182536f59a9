"""Heatmaps as NumPy files, at the photo's size, and as masks."""

import base64
import io
import tracemalloc
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app import answers, overlay
from app.answers import NPY, Form
from app.bundle import Method, ModelCard, Rule
from app.errors import RequestError
from app.evidence import Evidence, MethodAtLayers
from app.heatmaps import Heatmap
from app.schemas import CompareQuery, GradcamQuery, ImageInfo
from app.settings import Settings
from tests.app.conftest import (
    EXPLAIN,
    PICTURED,
    Answer,
    Borrowed,
    Painted,
    Serve,
    ask,
    encode,
    picture,
    pixels,
    post,
    problem,
)
from tests.app.conftest import overlay as overlay_of
from tests.app.test_heatmaps import bilinear

pytestmark = pytest.mark.anyio

Map = npt.NDArray[np.float32]

RNG = np.random.default_rng(11)
LATE, CAM = RNG.normal(size=(2, 7, 7))
FOREGROUND = np.abs(RNG.normal(size=(7, 7)))
MAPS: dict[str, npt.ArrayLike] = {"gradcam": LATE, "cam": CAM, "foreground": FOREGROUND}
SIZE = 480, 360
EXIF = Image.Exif()
EXIF[0x0112] = 6  # to be turned a quarter clockwise
PHOTO = encode(picture(360, 480), exif=EXIF)
"""Upright, 480 x 360."""

ONE: dict[str, dict[str, Any]] = {"/cam": {}, "/gradcam": {}, "/compare": {"method": "gradcam"}}
"""Parameters for heatmaps of one size."""


async def load(
    client: httpx.AsyncClient, path: str, photo: bytes = PHOTO, **params: Any
) -> tuple[Map, httpx.Headers]:
    """The array of a NumPy file, and the answer's headers."""
    response = await post(client, path, photo, headers={"Accept": NPY}, **params)
    assert response.status_code == 200, response.text[:500]
    assert response.headers["content-type"] == NPY
    assert response.content.startswith(b"\x93NUMPY\x01\x00")
    values: Map = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert (values.dtype.str, values.flags.c_contiguous) == ("<f4", True)
    return values, response.headers


def numbers(heatmap: Answer) -> Map:
    data = np.frombuffer(base64.b64decode(heatmap["data"]), "<f4")
    return data.reshape(heatmap["height"], heatmap["width"])


def enlarged(values: npt.ArrayLike, size: tuple[int, int]) -> Map:
    """To the model's input, then to the photo; by Pillow, whose convention is the same."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(
        image.resize((224, 224), Image.Resampling.BILINEAR).resize(size, Image.Resampling.BILINEAR)
    )


# -- NumPy files


@pytest.mark.parametrize("params", [{}, {"space": "photo"}, {"space": "photo", "size": 100}])
@pytest.mark.parametrize("path", EXPLAIN)
async def test_the_file_holds_the_numbers_of_the_json(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, path: str, params: dict[str, Any]
) -> None:
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        values, _ = await load(client, path, **params)
        answer = await ask(client, path, PHOTO, heatmap="true", **params)
    heatmap = answer["heatmap"]
    assert values.shape == (heatmap["height"], heatmap["width"])
    assert values.tobytes() == base64.b64decode(heatmap["data"])
    assert values.shape == {0: (7, 7), 1: SIZE[::-1], 2: (75, 100)}[len(params)]


async def test_the_file_of_the_shipped_model(client: httpx.AsyncClient, card: ModelCard) -> None:
    values, _ = await load(client, "/gradcam", layers="last6")
    answer = await ask(client, "/gradcam", PHOTO, layers="last6", heatmap="true")
    assert values.tobytes() == base64.b64decode(answer["heatmap"]["data"])
    assert values.max() == 1
    assert values.shape == max((layer.height, layer.width) for layer in card.layers[-6:])


async def test_headers_are_those_of_the_picture(
    serve: Serve, engine: Borrowed, calibrated: ModelCard
) -> None:
    params: dict[str, Any] = {"box": "20,30,200,220", "method": ["cam", "gradcam"]}
    async with serve(engine=Painted(engine, calibrated, MAPS)) as client:
        _, headers = await load(client, "/compare", target=["1", "2"], **params)
        bare = await post(
            client, "/compare", PHOTO, target=["1", "2"], headers={"Accept": "image/png"}, **params
        )
    figures = {name for name in bare.headers if name.startswith("breedcam-")}
    assert len(figures) == 7
    assert {name: headers[name] for name in figures} == {
        name: bare.headers[name] for name in figures
    }


async def test_heatmaps_of_compare_are_one_array_in_the_order_of_the_explanations(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    layer = uncalibrated.layer_names[0]
    params: dict[str, Any] = {"method": ["gradcam", "cam", "hirescam"], "target": ["4", "2"]}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        values, headers = await load(client, "/compare", **params)
        answer = await ask(client, "/compare", PHOTO, heatmap="true", **params)
        single, _ = await load(client, "/compare", method="gradcam")
        finer: dict[str, Any] = {
            "method": ["gradcam", f"gradcam/{layer}"],
            "space": "photo",
            "size": 64,
        }
        sizes, _ = await load(client, "/compare", **finer)
    assert values.shape == (6, 7, 7)
    assert headers["BreedCAM-Status"] == "ok; ok; empty; ok; ok; empty"
    for array, part in zip(values, answer["explanations"], strict=True):
        np.testing.assert_array_equal(array, numbers(part["heatmap"]))
    assert not values[2].any()
    assert single.shape == (1, 7, 7)
    np.testing.assert_array_equal(single[0], values[0])
    assert sizes.shape == (2, 48, 64)


async def test_heatmaps_of_several_sizes_are_no_array(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    headers = {"Accept": NPY}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        refused = await post(client, "/compare", b"no photo", headers=headers)
        detail = problem(refused, 400, "invalid-parameter")
        assert "of several sizes, 7 x 7, 14 x 14" in detail
        assert "`space=photo`" in detail
        values, _ = await load(client, "/compare", space="photo", size=64)
        # More of them than an overlay shows.
        seven, _ = await load(client, "/compare", method=["cam"] * 7)
    assert values.shape == (3, 48, 64)
    assert seven.shape == (7, 7, 7)


# -- at the photo's size


@pytest.mark.parametrize("size", [None, 100, 1000])
async def test_at_the_photos_size_heatmaps_are_enlarged_as_overlays_are(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, size: int | None
) -> None:
    params: dict[str, Any] = {"size": size} if size else {}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        answer = await ask(client, "/gradcam", PHOTO, heatmap="true", space="photo", **params)
    expected = {
        "heatmap": np.maximum(LATE, 0) / LATE.max(),
        "foreground": (FOREGROUND - FOREGROUND.min()) / np.ptp(FOREGROUND),
    }
    for name, layer in expected.items():
        if size == 100:  # smaller than the input: Pillow would smooth
            large = np.asarray(enlarged(layer, (224, 224)))
            oracle: npt.NDArray[Any] = bilinear(large, 100, 75)
        else:  # no larger than the photo
            oracle = enlarged(layer, SIZE)
        np.testing.assert_allclose(numbers(answer[name]), oracle, atol=1e-5)


async def test_the_overlays_colours_are_those_of_the_numbers(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    params: dict[str, Any] = {"size": 300, "rule": "heatmap"}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        values, _ = await load(client, "/gradcam", space="photo", **params)
        shown = overlay_of(await ask(client, "/gradcam", PHOTO, alpha=1, **params))
    levels = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    colours = overlay.COLORMAPS["jet"][levels, 0]
    # All but the box around the evidence.
    assert (shown == colours).all(axis=2).mean() > 0.9


# -- masks


@pytest.mark.parametrize(
    ("params", "width"),
    [
        ({}, 480),
        ({"size": 90}, 90),
        ({"space": "photo"}, 480),
        ({"space": "photo", "size": 90}, 90),
    ],
)
@pytest.mark.parametrize("path", EXPLAIN)
async def test_a_mask_is_the_heatmap_in_8_bits(
    serve: Serve,
    engine: Borrowed,
    uncalibrated: ModelCard,
    path: str,
    params: dict[str, Any],
    width: int,
) -> None:
    at_photo: dict[str, Any] = {"space": "photo", "size": width}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        values, _ = await load(client, path, **at_photo)
        # Neither colours nor boxes show.
        options: dict[str, Any] = {"mask": "true", "box": "20,30,200,220", **params}
        bare = await post(client, path, PHOTO, headers={"Accept": "image/png"}, **options)
        answer = await ask(client, path, PHOTO, alpha=0.1, colormap="hot", **options)
    mask = pixels(bare.content)
    assert mask.dtype == np.uint8
    assert bare.headers["content-type"] == "image/png"
    assert float(bare.headers["BreedCAM-IoU"]) > 0
    np.testing.assert_array_equal(mask, np.rint(values.astype(np.float64) * 255))
    drawing = answer["overlay"]
    np.testing.assert_array_equal(pixels(base64.b64decode(drawing["data"])), mask)
    assert drawing["media_type"] == "image/png"
    assert (drawing["width"], drawing["panel_width"]) == (width, width)
    assert drawing["height"] == round(width * 3 / 4)


@pytest.mark.parametrize("path", PICTURED)
async def test_a_mask_is_no_numbers(client: httpx.AsyncClient, path: str) -> None:
    refused = await post(client, path, PHOTO, headers={"Accept": NPY}, mask="true")
    assert "`mask` asks for a picture" in problem(refused, 400, "invalid-parameter")


async def test_a_mask_at_the_photos_size_is_larger_than_an_overlay(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard
) -> None:
    photo = encode(picture(1600, 1200))
    options: dict[str, Any] = {"mask": "true", "photo": "true"}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        full = await ask(client, "/gradcam", photo, space="photo", **options)
        scaled = await ask(client, "/gradcam", photo, **options)
    assert (full["overlay"]["width"], full["photo"]["width"]) == (1600, 512)
    assert (scaled["overlay"]["width"], scaled["photo"]["width"]) == (512, 512)


@pytest.mark.parametrize("media_type", overlay.MEDIA_TYPES)
async def test_masks_of_compare_stand_side_by_side(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, media_type: str
) -> None:
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        values, _ = await load(client, "/compare", space="photo", size=320)
        bare = await post(
            client, "/compare", PHOTO, mask="true", size=320, headers={"Accept": media_type}
        )
    assert bare.headers["content-type"] == media_type
    with Image.open(io.BytesIO(bare.content)) as image:
        row = np.asarray(image.convert("L")).astype(int)
    assert row.shape == (240, 3 * 320 + 2 * 5)
    difference = [
        np.abs(row[:, left : left + 320] - np.rint(array.astype(np.float64) * 255))
        for left, array in zip((0, 325, 650), values, strict=True)
    ]
    assert np.max(difference) == 0 if media_type == "image/png" else np.mean(difference) < 2


@pytest.mark.parametrize("path", PICTURED)
async def test_without_evidence_everything_is_zero(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, path: str
) -> None:
    async with serve(engine=Painted(engine, uncalibrated)) as client:
        sizes: list[dict[str, Any]] = [{}, {"space": "photo"}]
        for params in sizes:
            values, headers = await load(client, path, **ONE[path], **params)
            assert values.shape[-2:] == (SIZE[::-1] if params else (7, 7))
            assert not values.any()
            assert headers["BreedCAM-Status"] == "empty"
        mask = overlay_of(await ask(client, path, PHOTO, mask="true", **ONE[path]))
        assert mask.shape == SIZE[::-1]
        assert not mask.any()


@pytest.mark.parametrize("query", [CompareQuery(space="photo"), GradcamQuery(space="photo")])
def test_a_numpy_file_takes_no_memory_but_its_own(query: CompareQuery | GradcamQuery) -> None:
    values = RNG.random((224, 224), np.float32)
    count = 3 if isinstance(query, CompareQuery) else 1
    shown = [Evidence(Heatmap(values, "ok"), values, Rule.HEATMAP, 0.5, values)] * count
    photo = ImageInfo(width=2000, height=1500)
    tracemalloc.start()
    try:
        file = answers._npy(Form(query, NPY, Settings()), photo, shown)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.load(io.BytesIO(file)).size == count * 2000 * 1500
    assert peak < 1.01 * len(file)


# -- limits


@pytest.mark.parametrize(
    ("name", "params", "accept"),
    [
        ("MAX_VALUES", {"mask": "true"}, "image/png"),
        ("MAX_VALUES", {}, NPY),
        ("MAX_VALUES_IN_JSON", {"heatmap": "true"}, "application/json"),
    ],
)
async def test_heatmaps_at_the_photos_size_are_bounded(
    serve: Serve,
    engine: Borrowed,
    uncalibrated: ModelCard,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    params: dict[str, Any],
    accept: str,
) -> None:
    count = 2 if name == "MAX_VALUES_IN_JSON" else 1  # the foreground's, too
    monkeypatch.setattr(answers, name, count * 480 * 360)
    common: dict[str, Any] = {"headers": {"Accept": accept}, "space": "photo", **params}
    async with serve(engine=Painted(engine, uncalibrated, MAPS)) as client:
        assert (await post(client, "/gradcam", PHOTO, **common)).status_code == 200
        larger = encode(picture(481, 360))
        refused = await post(client, "/gradcam", larger, **common)
        detail = problem(refused, 400, "invalid-parameter")
        assert "of 481 x 360 would have more values than" in detail
        assert "`size`" in detail
        assert (await post(client, "/gradcam", larger, size=480, **common)).status_code == 200
        several = {"method": ["cam", "gradcam"], **common}
        response = await post(client, "/compare", PHOTO, **several)
        detail = problem(response, 400, "invalid-parameter")
        assert f"{count + 1} heatmaps" in detail


class TestForm:
    PHOTO = ImageInfo(width=6000, height=4000)

    @staticmethod
    def form(media_type: str | None = None, pending: int = 256_000_000, **query: Any) -> Form:
        settings = Settings(max_pending_bytes=pending)
        return Form(GradcamQuery.model_validate(query), media_type, settings)

    def test_an_answer_is_never_larger_than_what_is_set_aside_for_answers(self) -> None:
        photo = ImageInfo(width=2000, height=1250)
        self.form(NPY, 20_000_000, space="photo").check_size(photo, 1)
        with pytest.raises(RequestError, match="than 2500000"):
            self.form(NPY, 20_000_000, space="photo").check_size(
                ImageInfo(width=2000, height=1251), 1
            )

    def test_photos_of_telephones_fit_in_a_file_and_larger_ones_do_not(self) -> None:
        for options in ({"media_type": NPY}, {"mask": True, "media_type": "image/png"}):
            self.form(space="photo", **options).check_size(ImageInfo(width=4032, height=3024), 1)
            with pytest.raises(RequestError, match="6000 x 4000"):
                self.form(space="photo", **options).check_size(self.PHOTO, 1)

    @pytest.mark.parametrize(
        ("media_type", "width", "count", "fits"),
        [
            ("image/webp", 16_383, 1, True),
            ("image/webp", 16_384, 1, False),
            ("image/webp", 8_400, 2, False),
            ("image/jpeg", 65_500, 1, True),
            ("image/jpeg", 65_501, 1, False),
            ("image/png", 65_535, 3, True),
        ],
    )
    def test_masks_are_no_larger_than_their_format_takes(
        self, media_type: str, width: int, count: int, fits: bool
    ) -> None:
        form = self.form(media_type, space="photo", mask=True)
        photo = ImageInfo(width=width, height=1)
        if fits:
            form.check_size(photo, count)
        else:
            with pytest.raises(RequestError, match="image/png"):
                form.check_size(photo, count)

    @pytest.mark.parametrize(
        ("media_type", "query", "size"),
        [
            (None, {}, 512),
            ("image/png", {"size": 99}, 99),
            (None, {"overlay": False}, None),
            (NPY, {}, None),
            (None, {"mask": True}, None),
            (None, {"mask": True, "photo": True}, 512),
            (None, {"overlay": False, "photo": True, "size": 99}, 99),
        ],
    )
    def test_pixels_are_decoded_only_where_they_are_shown(
        self, media_type: str | None, query: dict[str, Any], size: int | None
    ) -> None:
        assert self.form(media_type, **query).decoded_size == size

    def test_sizes(self) -> None:
        assert self.form().heatmap_size(self.PHOTO) is None
        assert self.form(mask=True).mask_size(self.PHOTO) == (512, 341)
        for size, expected in ((None, (6000, 4000)), (90, (90, 60))):
            form = self.form(space="photo", mask=True, size=size)
            assert form.heatmap_size(self.PHOTO) == form.mask_size(self.PHOTO) == expected

    def test_one_array_needs_one_size(self, uncalibrated: ModelCard) -> None:
        specs = [
            MethodAtLayers.parse(uncalibrated, Method.CAM, "last"),
            MethodAtLayers.parse(uncalibrated, Method.GRADCAM, "last6"),
        ]
        for media_type in (None, "image/png"):
            self.form(media_type).check(uncalibrated, specs, targets=1)
        self.form(NPY, space="photo").check(uncalibrated, specs, targets=1)
        self.form(NPY).check(uncalibrated, specs[:1] * 2, targets=2)
        with pytest.raises(RequestError, match="7 x 7, 14 x 14"):
            self.form(NPY).check(uncalibrated, specs, targets=1)
