import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from app.bundle import ModelCard
from app.engines import Batch, Cut
from app.service import Service
from tests.app.conftest import (
    ENDPOINTS,
    JPEG,
    PICTURED,
    Arrays,
    Borrowed,
    Held,
    Painted,
    Serve,
    ask,
    encode,
    post,
    problem,
    untimed,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("params", "code", "word"),
    [
        ({"top_k": "0"}, "invalid-parameter", "top_k"),
        ({"top_k": "many"}, "invalid-parameter", "top_k"),
        ({"topk": "3"}, "invalid-parameter", "topk"),
        ({"box": "1,2,3"}, "invalid-parameter", "box"),
        ({"box": "1,2,3,x"}, "invalid-parameter", "box"),
        ({"box": "1,2,3,nan"}, "invalid-parameter", "box"),
        ({"box": "1,2,inf,9"}, "invalid-parameter", "box"),
        ({"box": "30,2,3,40"}, "invalid-parameter", "box"),
        ({"box": ["1,2,3,4", ""]}, "invalid-parameter", "box"),
        ({"box": ["1,2,3,4"] * 101}, "invalid-parameter", "box"),
        ({"box": ["1,2,3,4", "320,0,400,100"]}, "box-outside-image", "320 x 240"),
        ({"threshold": "0"}, "invalid-parameter", "threshold"),
        ({"threshold": "1.01"}, "invalid-parameter", "threshold"),
        ({"threshold": "nan"}, "invalid-parameter", "threshold"),
        ({"alpha": "-0.1"}, "invalid-parameter", "alpha"),
        ({"size": "2000"}, "invalid-parameter", "size"),
        ({"colormap": "beige"}, "invalid-parameter", "colormap"),
        ({"overlay": "perhaps"}, "invalid-parameter", "overlay"),
        ({"target": "tabby"}, "unknown-target", "tabby"),
        ({"target": "-1"}, "unknown-target", "-1"),
        ({"target": "10000"}, "unknown-target", "10000"),
        ({"versus": "n00000000"}, "unknown-target", "n00000000"),
        ({"target": "3", "versus": "3"}, "invalid-parameter", "versus"),
        ({"rule": "magic"}, "invalid-parameter", "rule"),
        ({"curve": "perhaps"}, "invalid-parameter", "curve"),
        ({"heatmap": "numbers"}, "invalid-parameter", "heatmap"),
        ({"photo": "jpeg"}, "invalid-parameter", "photo"),
        ({"mask": "png"}, "invalid-parameter", "mask"),
        ({"space": "input"}, "invalid-parameter", "space"),
        ({"mask": "true", "overlay": "false"}, "invalid-parameter", "`overlay=false` for none"),
        ({"space": "photo"}, "invalid-parameter", "Send `heatmap=true` or `mask=true`"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", PICTURED)
async def test_a_parameter_that_cannot_be_right(
    client: httpx.AsyncClient, path: str, params: dict[str, Any], code: str, word: str
) -> None:
    assert word in problem(await post(client, path, **params), 400, code)


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"method": "cam"}, "method"),
        ({"layers": "conv1"}, "conv1"),
        ({"layers": ","}, "layers"),
    ],
)
async def test_a_method_or_layer_that_there_is_not(
    client: httpx.AsyncClient, params: dict[str, Any], word: str
) -> None:
    response = await post(client, "/gradcam", **params)
    assert word in problem(response, 400, "invalid-parameter")


KINDS = "cam, gradcam, gradcampp, layercam or hirescam"


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["scorecam"], f"`method` must be {KINDS}, with layers as in gradcam/last6."),
        (["gradcam", "GradCAM/last"], f"`method 2` must be {KINDS}"),
        (["gradcam/"], f"`method` must be {KINDS}"),
        ([""], f"`method` must be {KINDS}"),
        (["layercam/conv1"], "does not expose 'conv1'. Its layers are conv"),
        (["gradcam/last,last6"], "does not expose 'last', 'last6'. Its layers are conv"),
        (["gradcam/last,last6"], "; or `last` or `last6`, each by itself."),
        (["cam/last6"], "CAM has the last layer alone: `last`."),
        (["gradcam"] * 13, "`method` may be given 12 times at most."),
        (
            ["gradcam"] * 7,
            "an overlay shows 6 explanations at most. For more, send `overlay=false`.",
        ),
    ],
)
async def test_methods_that_cannot_be_compared(
    client: httpx.AsyncClient, methods: list[str], words: str
) -> None:
    response = await post(client, "/compare", method=methods)
    assert words in problem(response, 400, "invalid-parameter")


@pytest.mark.parametrize(
    ("targets", "methods", "words"),
    [
        (["1", "2", "3", "4", "5"], [], "`target` may be given 4 times at most."),
        (["1", ""], [], "`target 2` must not be empty"),
        (["1", "2"], ["gradcam"] * 7, "2 classes by 7 methods are 14 explanations, and 12 are"),
        (
            ["1", "2", "3"],
            [],
            "3 classes by 3 methods are 9 explanations, and an overlay shows 6 explanations",
        ),
        (["1", "2", " 1 "], [], "`target`: '1' and ' 1 ' name the same class."),
    ],
)
async def test_targets_that_cannot_be_compared(
    client: httpx.AsyncClient, targets: list[str], methods: list[str], words: str
) -> None:
    response = await post(client, "/compare", target=targets, method=methods)
    assert words in problem(response, 400, "invalid-parameter")


@pytest.mark.parametrize("path", ["/cam", "/gradcam"])
async def test_one_target_is_explained_alone(client: httpx.AsyncClient, path: str) -> None:
    response = await post(client, path, target=["1", "2"])
    detail = problem(response, 400, "invalid-parameter")
    assert detail == "`target` is given more than once."


@pytest.mark.parametrize("params", [{"heatmap": "true"}, {"photo": "true", "overlay": "false"}])
@pytest.mark.parametrize("path", PICTURED)
async def test_a_picture_alone_has_no_place_for_numbers(
    client: httpx.AsyncClient, path: str, params: dict[str, Any]
) -> None:
    response = await post(client, path, headers={"Accept": "image/png"}, **params)
    detail = problem(response, 406, "not-acceptable")
    assert detail.startswith("This endpoint returns application/json. With `heatmap` or `photo`")
    response = await post(client, path, headers={"Accept": "image/*, */*;q=0.1"}, **params)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/predict", {"box": "1,2,3,4"}),
        ("/predict", {"rule": "heatmap"}),
        ("/predict", {"curve": "true"}),
        ("/cam", {"method": "gradcam"}),
        ("/cam", {"layers": "last"}),
        ("/compare", {"layers": "last"}),
        ("/predict", {"heatmap": "true"}),
        ("/predict", {"photo": "true"}),
        ("/predict", {"mask": "true"}),
        ("/predict", {"space": "photo"}),
    ],
)
async def test_each_endpoint_has_its_own_parameters(
    client: httpx.AsyncClient, path: str, params: dict[str, Any]
) -> None:
    detail = problem(await post(client, path, **params), 400, "invalid-parameter")
    assert f"`{next(iter(params))}`: there is no such parameter" in detail


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/predict/", "/predict"),
        ("/predcit", "/predict"),
        ("/v1/predict", "/predict"),
        ("/api/Predict/", "/predict"),
        ("/Grad-CAM", "/gradcam"),
        ("/v2/models/predit", "/predict"),
        ("/ready", "/readyz"),
        ("/predict/photo.jpg", "/predict"),
        ("/docs/nothing", "/docs"),
        ("/static/", None),
        ("/nowhere", None),
        ("/" + "predict/" * 1000, None),
    ],
)
async def test_a_wrong_path_gets_the_right_one(
    client: httpx.AsyncClient, path: str, near: str | None
) -> None:
    for response in (await client.get(path), await client.post(path)):
        if response.status_code == 405:  # of files
            continue
        detail = problem(response, 404, "not-found")
        if near:
            assert detail == f"There is no such path. Did you mean `{near}`?"
        else:
            assert "There are " in detail
            assert "`/predict`, `/cam`, `/gradcam`, `/compare`" in detail
            assert detail.count("`/model`") == 1


async def test_a_path_is_suggested_under_the_prefix_and_where_it_is_served(serve: Serve) -> None:
    async with serve(root_path="/dogs", docs=False) as client:
        for path in ("/dogs/predict/", "/predict/"):
            detail = problem(await client.get(path), 404, "not-found")
            assert detail.endswith("Did you mean `/dogs/predict`?")
        detail = problem(await client.get("/dogs/docs"), 404, "not-found")
        assert "`/dogs/cam`" in detail
        assert "docs`" not in detail


async def test_verbs_that_do_not_exist(client: httpx.AsyncClient) -> None:
    for path in ENDPOINTS:
        for method in ("GET", "DELETE"):
            response = await client.request(method, path)
            detail = problem(response, 405, "method-not-allowed")
            assert detail.startswith("Use POST or PUT. Send the photo as the body")
            assert "curl -T photo.jpg" in detail
            assert response.headers["Allow"] == "POST, PUT"
    files = await client.post("/static/app.js")
    problem(files, 405, "method-not-allowed")
    assert files.headers["Allow"] == "GET, HEAD"
    for path in ("/livez", "/readyz", "/model", "/"):
        response = await client.post(path)
        detail = problem(response, 405, "method-not-allowed")
        assert detail == "Use GET or HEAD."
        assert response.headers["Allow"] == "GET, HEAD"


async def test_no_more_requests_than_places(
    serve: Serve, make_service: Callable[..., Service], engine: Borrowed
) -> None:
    held = Held(engine)
    service = make_service(engine=held, max_pending=len(ENDPOINTS))
    async with serve(service) as client:
        requests = [asyncio.create_task(post(client, path)) for path in ENDPOINTS]
        assert await asyncio.to_thread(held.busy.wait, 20)
        for _ in range(10_000):
            if service.admission.admitted == len(ENDPOINTS):
                break
            await asyncio.sleep(0.001)
        for path in ENDPOINTS:
            refused = await post(client, path)
            assert problem(refused, 429, "queue-full").endswith(" Try again in 1 s.")
            assert int(refused.headers["Retry-After"]) >= 1
        assert (await client.get("/readyz")).status_code == 200
        held.go.set()
        assert {response.status_code for response in await asyncio.gather(*requests)} == {200}
        # Each request after the other gets a place again, bad ones included.
        for _ in range(2):
            assert (await post(client, "/predict")).status_code == 200
            problem(await post(client, "/predict", b"?"), 415, "unsupported-media-type")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_no_answer_past_the_deadline(
    serve: Serve, make_service: Callable[..., Service], engine: Borrowed, path: str
) -> None:
    held = Held(engine)
    async with serve(make_service(engine=held, deadline_s=0.5)) as client:
        problem(await post(client, path), 504, "deadline-exceeded")
        held.go.set()


async def test_nothing_is_served_before_the_start_and_after_the_stop(
    serve: Serve, make_service: Callable[..., Service]
) -> None:
    service = make_service()
    assert not service.model.ready
    async with serve(service) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        transport = client._transport
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ENDPOINTS:
            response = await post(client, path)
            problem(response, 503, "not-ready")
            assert int(response.headers["Retry-After"]) >= 1
        for path in ("/readyz", "/model"):
            problem(await client.get(path), 503, "not-ready")
        assert (await client.get("/livez")).json() == {"status": "alive"}


async def test_cam_needs_a_head_that_has_it(serve: Serve, card: ModelCard) -> None:
    async with serve(card=card.replace(head="other")) as client:
        for headers in ({}, {"Accept": "image/png"}):
            detail = problem(await post(client, "/cam", headers=headers), 409, "method-unavailable")
            assert "/gradcam" in detail
        for path in ("/predict", "/gradcam", "/compare"):
            assert (await post(client, path)).status_code == 200
        methods = (await client.get("/model")).json()["methods"]
        assert methods == ["gradcam", "gradcampp", "layercam", "hirescam"]


@pytest.mark.parametrize("path", PICTURED)
async def test_a_rule_needs_to_be_calibrated(
    serve: Serve, engine: Borrowed, uncalibrated: ModelCard, calibrated: ModelCard, path: str
) -> None:
    async with serve(card=uncalibrated) as client:
        for headers in ({}, {"Accept": "image/png"}):
            response = await post(client, path, rule="fused", headers=headers)
            assert "`heatmap`" in problem(response, 409, "method-unavailable")
        assert (await post(client, path, rule="heatmap")).status_code == 200
    async with serve(engine=Painted(engine, calibrated)) as client:
        assert (await post(client, path, rule="fused")).status_code == 200
        names = ",".join(calibrated.layer_names[:2])
        one_by_one = await post(client, "/gradcam", rule="fused", layers=names)
        assert "gradcam at these layers" in problem(one_by_one, 409, "method-unavailable")


class Fragile(Borrowed):
    """Fails on magenta photos."""

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        if (batch.image == (255, 0, 255)).all(axis=(1, 2, 3)).any():
            raise RuntimeError("secret: /srv/engine.py went wrong")
        return super().run(cut, batch)


@pytest.mark.parametrize("path", ["/cam", "/compare"])
async def test_a_photo_that_the_model_fails_on_fails_alone(
    serve: Serve, engine: Borrowed, path: str
) -> None:
    magenta = encode(Image.new("RGB", (64, 64), (255, 0, 255)), "PNG")
    photos = [JPEG, magenta, JPEG]
    async with serve(engine=Fragile(engine), max_batch=3, batch_wait_ms=1000) as client:
        good, bad, other = await asyncio.gather(*(post(client, path, photo) for photo in photos))
        assert "secret" not in problem(bad, 500, "engine-failed")
        assert untimed(good.json()) == untimed(other.json())
        assert (await client.get("/readyz")).status_code == 200


# -- ids


@pytest.mark.parametrize("offered", ["abc-123", "a.b:c_D", "x" * 64])
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, offered: str) -> None:
    headers = {"X-Request-ID": offered}
    assert (await client.get("/livez", headers=headers)).headers["X-Request-ID"] == offered
    response = await client.get("/nowhere", headers=headers)
    problem(response, 404, "not-found")
    assert response.json()["request_id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 65, "a b", "<script>", "é", "a\r\nX-Evil: 1"])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, offered: str) -> None:
    headers = {b"X-Request-ID": offered.encode("latin-1")}
    first, second = [(await client.get("/livez", headers=headers)).headers for _ in range(2)]
    assert offered != first["X-Request-ID"] != second["X-Request-ID"] != offered
    assert "X-Evil" not in first


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("top_k=1&top_k=2", "`top_k` is given more than once."),
        ("topk=1", "`topk`: there is no such parameter. Did you mean `top_k`? There are `top_k`, "),
        ("method=scorecam", "'gradcam', 'gradcampp', 'layercam' or 'hirescam'"),
        ("box=1,2,3", "`box`: a box is four numbers"),
        ("box=3,2,1,4&box=1,2,3,4", "`box 1`: a box needs xmin < xmax and ymin < ymax."),
        ("box=1&box=2&box=3&box=4", "`box`: a box is one parameter: box=xmin,ymin,xmax,ymax."),
        ("threshold=nan", "`threshold` must be a finite number."),
        ("versus=cat", "`versus`: the model has no class 'cat'"),
        ("target=beagel", "no class 'beagel'; near: beagle. GET /model"),
    ],
)
async def test_details_are_in_plain_words(client: httpx.AsyncClient, query: str, word: str) -> None:
    headers = {"Content-Type": "image/jpeg"}
    response = await client.post(f"/gradcam?{query}", content=JPEG, headers=headers)
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert word in detail
    assert "Method." not in detail


@pytest.mark.parametrize("path", PICTURED)
async def test_versus_the_likeliest_class_itself(client: httpx.AsyncClient, path: str) -> None:
    likeliest = (await ask(client, "/predict"))["predictions"][0]["label"]
    response = await post(client, path, versus=likeliest)
    assert "likeliest" in problem(response, 400, "invalid-parameter")


async def test_a_slash_too_many_is_another_path(client: httpx.AsyncClient) -> None:
    problem(await post(client, "/predict/"), 404, "not-found")
