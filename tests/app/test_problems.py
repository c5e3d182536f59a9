import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from app.bundle import ModelCard
from app.engines import Batch, Cut
from app.explainer import Explainer
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
    picture,
    post,
    problem,
    untimed,
)

pytestmark = pytest.mark.anyio

WRONG_TYPE, NO = "unsupported-media-type", "not-acceptable"

LONG = 20.0
"""Seconds; a test that comes near it has failed."""

# -- problems


def huge_png(width: int = 20_000, height: int = 10_000) -> bytes:
    """A header that promises 200 megapixels, and hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        ]
    )


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


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/predict", {"box": "1,2,3,4"}),
        ("/predict", {"rule": "heatmap"}),
        ("/predict", {"curve": "true"}),
        ("/cam", {"method": "gradcam"}),
        ("/cam", {"layers": "last"}),
        ("/compare", {"method": "gradcam"}),
        ("/compare", {"layers": "last"}),
    ],
)
async def test_each_endpoint_has_its_own_parameters(
    client: httpx.AsyncClient, path: str, params: dict[str, Any]
) -> None:
    detail = problem(await post(client, path, **params), 400, "invalid-parameter")
    assert f"`{next(iter(params))}`: there is no such parameter" in detail


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (JPEG, "text/plain", 415, "unsupported-media-type"),
        (JPEG, "", 415, "unsupported-media-type"),
        (JPEG, "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (encode(picture(), "GIF"), "image/gif", 415, "unsupported-media-type"),
        (b"not an image", "image/jpeg", 415, "unsupported-media-type"),
        (JPEG[: len(JPEG) // 2], "image/jpeg", 422, "undecodable-image"),
        (JPEG[:20], "image/jpeg", 422, "undecodable-image"),
        (encode(picture(), "PNG")[:-2000], "image/png", 422, "undecodable-image"),
        (huge_png(), "image/png", 413, "too-many-pixels"),
        (b"", "image/jpeg", 400, "missing-image"),
        (b"", "text/plain", 400, "missing-image"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "missing-image"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "invalid-parameter"),
        (b"--x\r\n", "multipart/form-data", 400, "invalid-parameter"),
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_body_that_cannot_be_used(
    client: httpx.AsyncClient,
    path: str,
    content: bytes,
    content_type: str,
    status: int,
    code: str,
) -> None:
    problem(await post(client, path, content, content_type=content_type), status, code)


@pytest.mark.parametrize(
    "files", [{"photo": ("a.jpg", JPEG)}, {"file": (None, JPEG)}, {"file": ("a.jpg", b"")}]
)
async def test_multipart_without_an_image(client: httpx.AsyncClient, files: dict[str, Any]) -> None:
    problem(await client.post("/cam", files=files), 400, "missing-image")


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}, {"Content-Length": "00"}])
async def test_no_body_is_no_image(
    client: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    request = client.build_request("POST", path)
    del request.headers["Content-Length"]
    request.headers.update(headers)
    assert "Content-Type" not in request.headers
    assert "Send a photo: " in problem(await client.send(request), 400, "missing-image")


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=x"])
async def test_an_announced_body_may_be_empty(client: httpx.AsyncClient, content_type: str) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    response = await post(client, "/predict", nothing(), content_type=content_type)
    problem(response, 400, "missing-image")


async def test_an_unused_body_is_not_read(serve: Serve) -> None:
    """What is refused by its header alone is refused before its first byte."""
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(1000)

    async with serve(max_bytes=10_000) as client:
        announced = await post(client, "/cam", body(), headers={"Content-Length": "10001"})
        problem(announced, 413, "too-many-bytes")
        problem(await post(client, "/cam", body(), content_type="text/plain"), 415, WRONG_TYPE)
        problem(await post(client, "/cam", body(), colour="red"), 400, "invalid-parameter")
        problem(await post(client, "/predict", body(), headers={"Accept": "image/png"}), 406, NO)
        assert read == 0
        problem(await post(client, "/cam", body()), 413, "too-many-bytes")
        # The chunk that goes over the limit is the last.
        assert read == 11


async def test_a_multipart_file_is_counted_as_it_comes(serve: Serve) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            read += 1
            yield bytes(1000)

    async with serve(max_bytes=10_000) as client:
        response = await post(
            client, "/cam", body(), content_type="multipart/form-data; boundary=x"
        )
        problem(response, 413, "too-many-bytes")
        assert read == 10
        exact = await post(client, "/predict", JPEG + bytes(10_000 - len(JPEG)))
        assert exact.status_code == 200


async def test_paths_and_verbs_that_do_not_exist(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nowhere"), 404, "not-found")
    for path in ENDPOINTS:
        response = await client.get(path)
        problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == "POST"
    for path in ("/livez", "/readyz", "/model", "/"):
        response = await client.post(path)
        problem(response, 405, "method-not-allowed")
        assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


async def stalled(begun: asyncio.Event) -> AsyncIterator[bytes]:
    """A body that never ends."""
    begun.set()
    yield JPEG[:100]
    await asyncio.Event().wait()


async def test_no_more_requests_than_places(serve: Serve, engine: Borrowed) -> None:
    held = Held(engine)
    async with serve(engine=held, max_pending=len(ENDPOINTS)) as client:
        requests = [asyncio.create_task(post(client, path)) for path in ENDPOINTS]
        assert await asyncio.to_thread(held.busy.wait, 20)
        await asyncio.sleep(0.1)  # for the others to take their places
        for path in ENDPOINTS:
            refused = await post(client, path)
            problem(refused, 429, "queue-full")
            assert int(refused.headers["Retry-After"]) >= 1
        assert (await client.get("/readyz")).status_code == 200
        held.go.set()
        assert {response.status_code for response in await asyncio.gather(*requests)} == {200}
        # Each request after the other gets a place again, bad ones included.
        for _ in range(2):
            assert (await post(client, "/predict")).status_code == 200
            problem(await post(client, "/predict", b"?"), 415, WRONG_TYPE)


async def test_clients_that_send_nothing_take_no_place(serve: Serve) -> None:
    async with serve(max_pending=1) as client:
        begun = [asyncio.Event() for _ in range(5)]
        idle = [asyncio.create_task(post(client, "/cam", stalled(event))) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))
        assert (await post(client, "/predict")).status_code == 200
        for request in idle:
            request.cancel()
        await asyncio.gather(*idle, return_exceptions=True)


async def test_bodies_take_no_more_memory_than_there_is_for_them(serve: Serve) -> None:
    async with serve(max_pending_bytes=len(JPEG) + 150) as client:
        begun = [asyncio.Event() for _ in range(2)]
        idle = [asyncio.create_task(post(client, "/cam", stalled(event))) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))  # 100 bytes each
        problem(await post(client, "/predict"), 429, "queue-full")
        for request in idle:
            request.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        for _ in range(3):  # what was held is given back, each time
            assert (await post(client, "/predict")).status_code == 200


async def test_charset_that_is_none(client: httpx.AsyncClient) -> None:
    content_type = "multipart/form-data; boundary=x; charset=undefined"
    response = await post(client, "/predict", b"--x--\r\n", content_type=content_type)
    assert "charset" in problem(response, 400, "invalid-parameter")


async def stalled_field() -> AsyncIterator[bytes]:
    """The same, within a multipart field."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    await asyncio.Event().wait()


async def test_a_body_that_does_not_end_is_given_up(serve: Serve) -> None:
    bodies = {
        "image/jpeg": stalled(asyncio.Event()),
        "multipart/form-data; boundary=x": stalled_field(),
    }
    async with serve(max_pending=1, deadline_s=0.2) as client:
        for content_type, body in bodies.items():
            late = post(client, "/cam", body, content_type=content_type)
            problem(await asyncio.wait_for(late, LONG), 504, "deadline-exceeded")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_no_answer_past_the_deadline(serve: Serve, path: str) -> None:
    async with serve(deadline_s=1e-4) as client:
        problem(await post(client, path), 504, "deadline-exceeded")


async def test_nothing_is_served_before_the_start_and_after_the_stop(
    serve: Serve, make_explainer: Callable[..., Explainer]
) -> None:
    explainer = make_explainer()
    assert not explainer.ready
    async with serve(explainer) as client:
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


def form(*fields: tuple[str, str | None]) -> bytes:
    """A multipart body of (name, filename) fields, each with the photo in it."""
    parts = []
    for name, filename in fields:
        suffix = f'; filename="{filename}"' if filename else ""
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
        parts.append(head.encode() + JPEG + b"\r\n")
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ([("file", "a.jpg"), ("top_k", None)], "top_k"),
        ([("file", "a.jpg"), ("other", "b.jpg")], "other"),
        ([("file", "a.jpg"), ("file", "b.jpg")], "several"),
    ],
)
async def test_a_form_holds_one_photo_and_nothing_else(
    client: httpx.AsyncClient, fields: list[tuple[str, str | None]], word: str
) -> None:
    content_type = "multipart/form-data; boundary=x"
    response = await post(client, "/predict", form(*fields), content_type=content_type)
    assert word in problem(response, 400, "invalid-parameter")
    alone = await post(client, "/predict", form(fields[0]), content_type=content_type)
    assert alone.status_code == 200


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("top_k=1&top_k=2", "`top_k` is given more than once."),
        ("topk=1", "`topk`: there is no such parameter; /docs lists them"),
        ("method=scorecam", "'gradcam', 'gradcampp', 'layercam' or 'hirescam'"),
        ("box=1,2,3", "`box.0`: a box is four numbers"),
        ("threshold=nan", "`threshold`: Input should be a finite number"),
        ("versus=cat", "`versus`: the model has no class 'cat'"),
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
