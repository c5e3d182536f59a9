import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from app.bundle import Method, Rule
from app.schemas import (
    MAX_OVERLAY_SIZE,
    CamQuery,
    CompareQuery,
    EvidenceQuery,
    GradcamQuery,
    PredictQuery,
    Problem,
)
from app.settings import Settings
from tests.app import cost

pytestmark = pytest.mark.anyio

EXPLAINED: list[type[EvidenceQuery]] = [CamQuery, GradcamQuery, CompareQuery]
QUERIES: list[type[PredictQuery]] = [PredictQuery, *EXPLAINED]


def boxes(*texts: str) -> list[tuple[float, float, float, float]]:
    return CamQuery.model_validate({"box": list(texts)}).box


class TestBox:
    @pytest.mark.parametrize(
        ("text", "box"),
        [
            ("1,2,3,4", (1, 2, 3, 4)),
            (" 1 , 2.5 ,3, 4e2 ", (1, 2.5, 3, 400)),
            ("-10,-20,5,6", (-10, -20, 5, 6)),
        ],
    )
    def test_four_numbers(self, text: str, box: tuple[float, ...]) -> None:
        assert boxes(text) == [box]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ",,,",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,3,",
            "1;2;3;4",
            "a,b,c,d",
            "1,2,3,0x10",
            "[1,2,3,4]",
            "nan,2,3,4",
            "1,2,3,NaN",
            "1,2,inf,4",
            "-Infinity,2,3,4",
            "1,2,3,1e999",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValidationError, match="four numbers"):
            boxes(text)

    @pytest.mark.parametrize("text", ["1" * 32_000 + "x", "1" * 32_000, "1," * 16_000])
    def test_what_is_no_box_costs_little_however_long_it_is(self, text: str) -> None:
        def refuse() -> None:
            with pytest.raises(ValidationError, match="four numbers"):
                boxes(text)
            with pytest.raises(ValidationError, match="a box is"):
                boxes(*[text] * 4)

        assert cost.megapixels(refuse) < 5

    @pytest.mark.parametrize("text", ["3,2,1,4", "1,4,3,2", "3,4,1,2", "1,2,1,4", "1,2,3,2"])
    def test_edges_reversed_or_equal_are_refused(self, text: str) -> None:
        with pytest.raises(ValidationError, match="xmin < xmax and ymin < ymax"):
            boxes(text)

    def test_one_bad_box_among_good_ones_is_told_by_its_place(self) -> None:
        with pytest.raises(ValidationError) as caught:
            boxes("1,2,3,4", "1,2,3", "5,6,7,8")
        assert [fault["loc"] for fault in caught.value.errors()] == [("box", 1)]

    def test_order_is_kept(self) -> None:
        assert boxes("5,6,7,8", "1,2,3,4") == [(5, 6, 7, 8), (1, 2, 3, 4)]

    def test_a_hundred_and_no_more(self) -> None:
        assert len(boxes(*["1,2,3,4"] * 100)) == 100
        with pytest.raises(ValidationError, match="100"):
            boxes(*["1,2,3,4"] * 101)

    @given(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4))
    def test_every_float_comes_through_exactly(
        self, edges: tuple[float, float, float, float]
    ) -> None:
        text = ",".join(map(repr, edges))
        if edges[0] < edges[2] and edges[1] < edges[3]:
            assert boxes(text) == [edges]
        else:
            with pytest.raises(ValidationError):
                boxes(text)


class TestBounds:
    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            ("top_k", {"1": 1, "1000": 1000}, ["0", "1001", "-1", "2.5", "five", ""]),
            ("threshold", {"1e-9": 1e-9, "1": 1}, ["0", "-0.1", "1.01", "nan", "inf", "half"]),
            ("alpha", {"0": 0, "1": 1, "0.3": 0.3}, ["-0.01", "1.01", "nan"]),
            ("size", {"16": 16, "1024": MAX_OVERLAY_SIZE}, ["15", "1025", "nan", "99.5"]),
            ("colormap", {"jet": "jet", "viridis": "viridis"}, ["Jet", "rainbow", ""]),
            ("overlay", {"true": True, "false": False, "0": False}, ["maybe", ""]),
            ("rule", {"heatmap": Rule.HEATMAP, "fused": Rule.FUSED}, ["", "Fused", "cam"]),
            ("curve", {"true": True, "false": False, "0": False}, ["maybe", ""]),
            ("heatmap", {"true": True, "false": False, "0": False}, ["maybe", ""]),
            ("photo", {"true": True, "false": False, "0": False}, ["maybe", ""]),
            ("mask", {"true": True, "false": False, "0": False}, ["maybe", ""]),
            ("space", {"layer": "layer", "photo": "photo"}, ["", "Photo", "input"]),
            ("versus", {"pug": "pug"}, [""]),
        ],
    )
    def test_what_explains(self, name: str, good: dict[str, Any], bad: list[str]) -> None:
        for kind in EXPLAINED:
            for text, value in good.items():
                assert getattr(kind.model_validate({name: text}), name) == value
            for text in bad:
                with pytest.raises(ValidationError, match=name):
                    kind.model_validate({name: text})

    @pytest.mark.parametrize("kind", [CamQuery, GradcamQuery])
    def test_one_target(self, kind: type[CamQuery]) -> None:
        assert kind.model_validate({"target": "golden retriever"}).target == "golden retriever"
        for bad in ("", "a" * 101, ["6", "7"]):
            with pytest.raises(ValidationError, match="target"):
                kind.model_validate({"target": bad})

    def test_targets_of_compare(self) -> None:
        four = ["6", "golden retriever", "a" * 100, "pug"]
        assert CompareQuery.model_validate({"target": four}).target == four
        for bad in ([""], ["6", "a" * 101], [*four, "7"]):
            with pytest.raises(ValidationError, match="target"):
                CompareQuery.model_validate({"target": bad})

    @pytest.mark.parametrize("method", ["gradcam", "gradcampp", "layercam", "hirescam"])
    def test_methods_of_gradcam(self, method: str) -> None:
        assert GradcamQuery.model_validate({"method": method}).method == Method(method)

    @pytest.mark.parametrize("method", ["cam", "scorecam", "", "GRADCAM"])
    def test_other_methods_are_refused(self, method: str) -> None:
        with pytest.raises(ValidationError, match="method"):
            GradcamQuery.model_validate({"method": method})

    def test_no_layers_at_all_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="layers"):
            GradcamQuery.model_validate({"layers": ""})

    def test_defaults(self) -> None:
        assert PredictQuery.model_validate({}).top_k == 5
        query = GradcamQuery.model_validate({})
        assert (query.method, query.layers) == (Method.GRADCAM, "last")
        assert (query.target, query.versus, query.threshold, query.size) == (None,) * 4
        assert (query.box, query.overlay, query.rule, query.curve) == ([], True, None, False)
        assert (query.heatmap, query.photo, query.mask) == (False, False, False)
        assert query.space == "layer"
        compare = CompareQuery.model_validate({})
        assert (compare.method, compare.target) == ([], [])
        cam = CamQuery.model_validate({})
        assert (cam.method, cam.layers) == (Method.CAM, "last")

    @pytest.mark.parametrize("kind", QUERIES)
    def test_an_unknown_parameter_is_refused(self, kind: type[BaseModel]) -> None:
        with pytest.raises(ValidationError, match="topk"):
            kind.model_validate({"topk": "3"})

    @pytest.mark.parametrize(
        ("kind", "name"), [(CamQuery, "method"), (CamQuery, "layers"), (CompareQuery, "layers")]
    )
    def test_what_cam_and_compare_do_not_have(self, kind: type[BaseModel], name: str) -> None:
        with pytest.raises(ValidationError, match=name):
            kind.model_validate({name: "last"})

    @pytest.mark.parametrize(
        ("text", "method"),
        [
            ("cam", (Method.CAM, "last")),
            ("gradcampp", (Method.GRADCAMPP, "last")),
            ("gradcam/last6", (Method.GRADCAM, "last6")),
            ("layercam/a/b,c", (Method.LAYERCAM, "a/b,c")),
        ],
    )
    def test_methods_of_compare(self, text: str, method: tuple[Method, str]) -> None:
        assert CompareQuery.model_validate({"method": ["hirescam", text]}).method == [
            (Method.HIRESCAM, "last"),
            method,
        ]

    @pytest.mark.parametrize("name", ["target", "box", "alpha", "overlay", "rule", "curve"])
    def test_predict_explains_nothing(self, name: str) -> None:
        with pytest.raises(ValidationError, match=name):
            PredictQuery.model_validate({name: "1"})

    def test_the_default_overlay_is_never_larger_than_a_request_may_ask(self) -> None:
        assert Settings(overlay_size=MAX_OVERLAY_SIZE).overlay_size == MAX_OVERLAY_SIZE
        with pytest.raises(ValidationError):
            Settings(overlay_size=MAX_OVERLAY_SIZE + 1)


class TestOverHttp:
    """The same models as FastAPI reads them from a query string."""

    @pytest.fixture
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        app = FastAPI()

        @app.get("/cam")
        async def cam(query: Annotated[CamQuery, Query()]) -> Any:
            return query

        @app.get("/gradcam")
        async def gradcam(query: Annotated[GradcamQuery, Query()]) -> Any:
            return query

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as session:
            yield session

    async def test_box_is_repeatable(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/cam?box=1,2,3,4&box=5%2C6%2C7%2C8.5")
        assert answer.json()["box"] == [[1, 2, 3, 4], [5, 6, 7, 8.5]]

    async def test_one_box_is_a_list_of_one(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/gradcam?box=1,2,3,4")).json()["box"] == [[1, 2, 3, 4]]

    async def test_text_is_decoded(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/gradcam?target=golden+retriever&versus=Saint%20Bernard")
        assert (answer.json()["target"], answer.json()["versus"]) == (
            "golden retriever",
            "Saint Bernard",
        )

    @pytest.mark.parametrize(
        ("query", "place"),
        [
            ("box=1,2,3", ["query", "box", 0]),
            ("box=1,2,3,4&box=nan,2,3,4", ["query", "box", 1]),
            ("box=3,2,1,4", ["query", "box", 0]),
            ("box=", ["query", "box", 0]),
            ("boxes=1,2,3,4", ["query", "boxes"]),
            ("threshold=nan", ["query", "threshold"]),
            ("Alpha=0.5", ["query", "Alpha"]),
        ],
    )
    async def test_refusals_name_the_parameter(
        self, client: httpx.AsyncClient, query: str, place: list[str | int]
    ) -> None:
        for path in ("/cam", "/gradcam"):
            answer = await client.get(f"{path}?{query}")
            assert answer.status_code == 422  # the bare framework's; `main` makes it a 400
            assert [fault["loc"] for fault in answer.json()["detail"]] == [place]

    async def test_a_box_is_documented_as_text(self, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        parameters = document["paths"]["/cam"]["get"]["parameters"]
        [box] = [parameter for parameter in parameters if parameter["name"] == "box"]
        assert box["schema"]["type"] == "array"
        assert box["schema"]["items"].keys() == {"type", "pattern"}
        pattern = box["schema"]["items"]["pattern"]
        assert re.search(pattern, " 1 , 2.5 ,-3., +.4e2 ")
        for text in ("1,2,3", "1,2,3,4,5", "1,2,3,nan", "1_0,2,3,4", "1,2,3,4x", "1,2,3,"):
            assert not re.search(pattern, text)


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    problem = Problem(type="urn:x", title="T", status=400, detail="D", request_id="i")
    assert json.loads(problem.model_dump_json()) == {
        "type": "urn:x",
        "title": "T",
        "status": 400,
        "detail": "D",
        "request_id": "i",
    }
