"""Ways of sending a photo, and bodies that are refused."""

import asyncio
import base64
import quopri
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app import bodies
from tests.app.conftest import (
    ENDPOINTS,
    JPEG,
    LONG,
    Serve,
    ask,
    encode,
    picture,
    post,
    problem,
    untimed,
)

pytestmark = pytest.mark.anyio

TINY = encode(picture(32, 32))
WRONG_TYPE, NO = "unsupported-media-type", "not-acceptable"

EXPLAINED = {
    "target",
    "explanation",
    "localization",
    "heatmap",
    "foreground",
    "overlay",
    "photo",
}
UNSPECIFIC = ("application/octet-stream", *bodies.UNSPECIFIC)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_every_way_of_sending_the_photo_gives_the_same_answer(
    client: httpx.AsyncClient, path: str
) -> None:
    params: dict[str, Any] = (
        {"top_k": 3} if path == "/predict" else {"top_k": 3, "box": "10,20,200,220"}
    )
    multipart = await client.post(path, files={"file": ("a.jpg", JPEG)}, params=params)
    assert multipart.status_code == 200
    put = await client.put(path, content=JPEG, params=params)
    assert untimed(put.json()) == untimed(multipart.json())
    raw = [
        await ask(client, path, content_type=content_type, **params)
        for content_type in ("image/jpeg", "IMAGE/x-anything; q=1", *UNSPECIFIC)
    ]
    expected = untimed(multipart.json())
    assert [untimed(answer) for answer in raw] == [expected] * 6
    assert (
        set(expected)
        == {"model", "image", "predictions", "confidence"}
        | (
            {
                "/predict": set(),
                "/cam": EXPLAINED,
                "/gradcam": EXPLAINED,
                "/compare": {"target", "explanations", "foreground", "overlay", "photo"},
            }[path]
        )
    )
    for part in expected.get("explanations", []):
        assert set(part) == {"target", "explanation", "localization", "heatmap"}
    assert expected["image"] == {"width": 320, "height": 240}
    assert all(time >= 0 for time in multipart.json()["timings_ms"].values())


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
async def test_other_formats_are_taken_whatever_the_content_type_says(
    client: httpx.AsyncClient, format: str
) -> None:
    lossless = encode(picture(), format, lossless=True)
    answer = await ask(client, "/predict", lossless, content_type="image/jpeg")
    assert answer["image"] == {"width": 320, "height": 240}


@pytest.mark.parametrize("content_type", UNSPECIFIC)
@pytest.mark.parametrize("size", [1, 63, 100_000])
async def test_a_photo_with_a_content_type_that_says_nothing(
    client: httpx.AsyncClient, content_type: str, size: int
) -> None:
    """However its bytes arrive, and though it is shorter than what is looked at."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(TINY), size):
            yield TINY[start : start + size]

    answer = await post(client, "/predict", chunks(), content_type=content_type)
    assert answer.status_code == 200
    assert answer.json()["image"] == {"width": 32, "height": 32}


@pytest.mark.parametrize("content_type", bodies.UNSPECIFIC)
@pytest.mark.parametrize("text", [b"file=photo.jpg", b'{"file": "photo.jpg"}', b"x" * 100_000])
async def test_text_with_a_content_type_that_says_nothing(
    client: httpx.AsyncClient, content_type: str, text: bytes
) -> None:
    response = await post(client, "/predict", text, content_type=content_type)
    detail = problem(response, 415, WRONG_TYPE)
    assert "The body is text" in detail
    assert "multipart/form-data in the field `file`" in detail


async def test_a_photo_that_curl_has_stripped(client: httpx.AsyncClient) -> None:
    content_type = "application/x-www-form-urlencoded"
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    photo = encode(Image.fromarray(noise))
    stripped = photo.translate(None, b"\0\r\n")
    response = await post(client, "/predict", stripped, content_type=content_type)
    assert "`--data-binary`" in problem(response, 422, "undecodable-image")
    response = await post(client, "/predict", photo, content_type=content_type)
    assert response.status_code == 200


async def test_a_long_text_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"top_k=5&"

    form = "application/x-www-form-urlencoded"
    problem(await post(client, "/predict", body(), content_type=form), 415, WRONG_TYPE)
    assert read == 8  # 64 bytes


async def test_another_file_with_a_content_type_that_says_nothing_is_named(
    client: httpx.AsyncClient,
) -> None:
    for file, name in ((b"%PDF-1.7\n\0", "a PDF document"), (b"/9j/4AAQSkZJRg", "in Base64")):
        response = await post(client, "/predict", file, content_type="")
        assert f"{name}" in problem(response, 415, WRONG_TYPE)


async def test_the_name_of_a_file_in_place_of_the_file(client: httpx.AsyncClient) -> None:
    """As `curl -F file=photo.jpg` sends it."""
    response = await client.post("/predict", files={"file": (None, b"photo.jpg")})
    assert "-F file=@photo.jpg" in problem(response, 415, WRONG_TYPE)
    response = await client.post("/predict", files={"file": ("a.txt", b"some text")})
    assert "The file is text" in problem(response, 415, WRONG_TYPE)


# -- refused


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
    ("content", "content_type", "status", "code"),
    [
        (JPEG, "application/json", 415, "unsupported-media-type"),
        (JPEG, "video/mp4", 415, "unsupported-media-type"),
        (JPEG, "text/html", 415, "unsupported-media-type"),
        (encode(picture(), "PPM"), "image/x-portable-pixmap", 415, "unsupported-media-type"),
        (b"not an image", "image/jpeg", 415, "unsupported-media-type"),
        (JPEG[: len(JPEG) // 2], "image/jpeg", 422, "undecodable-image"),
        (JPEG[:20], "image/jpeg", 422, "undecodable-image"),
        (encode(picture(), "PNG")[:-2000], "image/png", 422, "undecodable-image"),
        (huge_png(), "image/png", 413, "too-many-pixels"),
        (b"", "image/jpeg", 400, "missing-image"),
        (b"", "text/plain", 400, "missing-image"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "missing-image"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "malformed-request"),
        (b"--x\r\n", "multipart/form-data", 400, "malformed-request"),
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
    ("files", "words"),
    [
        ({"photo": ("a.jpg", JPEG)}, "no field `file`. Its fields are: photo."),
        ({"file": ("a.jpg", b"")}, "no bytes"),
        ({"file": (None, b"")}, "no bytes"),
    ],
)
async def test_multipart_without_an_image(
    client: httpx.AsyncClient, files: dict[str, Any], words: str
) -> None:
    assert words in problem(await client.post("/cam", files=files), 400, "missing-image")


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
        ([("file", "a.jpg"), ("größe", None)], "größe"),
        ([("file", "a.jpg"), ("", None)], "without a name"),
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


DISPOSITION = b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
PLAIN = b"multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (PLAIN, b"--x\r\n" + DISPOSITION + b"\r\n" + JPEG + b"\r\n--x--"),
        (
            b'multipart/form-data; boundary="x"',
            b"--x\r\nContent-Disposition: form-data; name=file; filename=a.jpg; "
            b"filename*=utf-8''a.jpg\r\n\r\n" + JPEG + b"\r\n--x--\r\n",
        ),
        (
            PLAIN,
            b"--x\r\n"
            + DISPOSITION
            + b"Content-Length: %d\r\n\r\n" % len(JPEG)
            + JPEG
            + b"\r\n--x--\r\n",
        ),
        (
            PLAIN,
            b"--x\r\n"
            + DISPOSITION.replace(b"a.jpg", b"\xe9t\xe9.jpg")
            + b"\r\n"
            + JPEG
            + b"\r\n--x--\r\n",
        ),
        (
            PLAIN,
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + JPEG + b"\r\n--x--",
        ),
        (PLAIN, b"A preamble.\r\n--x\r\n" + DISPOSITION + b"\r\n" + JPEG + b"\r\n--x--\r\nmore"),
        (
            b'multipart/form-data; charset=undefined; boundary="x y:z"',
            b"--x y:z\r\n" + DISPOSITION + b"\r\n" + JPEG + b"\r\n--x y:z--\r\n",
        ),
        (
            PLAIN,
            b'--x\r\ncontent-disposition: form-data;\r\n\tname="file"\r\n\r\n'
            + JPEG
            + b"\r\n--x--",
        ),
        (
            PLAIN,
            b"--x\r\n"
            + DISPOSITION
            + b"Content-Transfer-Encoding: BASE64\r\n\r\n"
            + base64.encodebytes(JPEG)
            + b"\r\n--x--",
        ),
        (
            PLAIN,
            b"--x\r\n"
            + DISPOSITION
            + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
            + quopri.encodestring(JPEG)
            + b"\r\n--x--",
        ),
        (
            PLAIN,
            b"--x\r\n"
            + DISPOSITION
            + b"Content-Transfer-Encoding: binary\r\n\r\n"
            + JPEG
            + b"\r\n--x--",
        ),
    ],
    ids=[
        "plain",
        ".NET",
        "OkHttp",
        "Latin-1",
        "no filename",
        "preamble",
        "quoted",
        "folded",
        "base64",
        "quoted-printable",
        "8bit",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_multipart_as_clients_write_it(
    client: httpx.AsyncClient, content_type: bytes, body: bytes, size: int
) -> None:
    """However the bytes are cut, the photo comes out."""
    if size == 1:
        body = body.replace(JPEG, TINY).replace(base64.encodebytes(JPEG), base64.encodebytes(TINY))
        body = body.replace(quopri.encodestring(JPEG), quopri.encodestring(TINY))
        body = body.replace(b"%d" % len(JPEG), b"%d" % len(TINY))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    raw = await ask(client, "/predict", TINY if size == 1 else JPEG)
    response = await post(client, "/predict", chunks(), content_type=content_type.decode())
    assert response.status_code == 200, response.text
    assert untimed(response.json()) == untimed(raw)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--x\r\n" + DISPOSITION + b"\r\n" + JPEG, "ends before its last boundary"),
        (b"--x\r\n" + DISPOSITION + b"\r\n", "ends before its last boundary"),
        (b"--x\r\n" + DISPOSITION, "is cut off"),
        (b"--y\r\n" + DISPOSITION + b"\r\n" + JPEG + b"\r\n--y--", "does not occur"),
        (b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG + b"\r\n--x--", "Content-Disposition"),
        (b"--x\r\n\xff: \xff\r\n\r\n" + JPEG + b"\r\n--x--", "of the form `Name: value`"),
        (b"--x\r\n" + b"A: b\r\n" * 17, "exceeds 16 fields"),
        (b"--x\r\nA: " + b"b" * 4095, "one of them 4096 bytes"),
        (b"--x\r\n" + DISPOSITION + b" b\r\n" * 33, "all 32 folded lines"),
        (b"--x\r\n" + DISPOSITION + b"Content-Length: 1\r\n\r\n12\r\n--x--", "Content-Length"),
        (b"--x\r\n" + DISPOSITION.replace(b"a.jpg", b"a\nb") + b"\r\n1\r\n--x--", "with CRLF"),
        (b"--x\n" + DISPOSITION + b"\r\n" + JPEG + b"\r\n--x--", "end with CRLF"),
        (b"--x\r\n" + (DISPOSITION + b"\r\n\r\n--x\r\n") * 20, "more than 16 parts"),
        (
            b"--x\r\n" + DISPOSITION + b"Content-Transfer-Encoding: zip\r\n\r\n1\r\n--x--",
            "Encoding is 'zip'",
        ),
        (
            b"--x\r\n" + DISPOSITION + b"Content-Transfer-Encoding: base64\r\n\r\n1\r\n--x--",
            "not base64",
        ),
    ],
)
async def test_what_is_wrong_with_a_form_is_said(
    client: httpx.AsyncClient, body: bytes, words: str
) -> None:
    response = await post(client, "/predict", body, content_type=PLAIN.decode())
    is_form = "more than" in words or "zip" in words  # but not one that is taken
    code = "invalid-parameter" if is_form else "malformed-request"
    assert words in problem(response, 400, code)


async def test_folded_lines_are_not_read_without_end(client: httpx.AsyncClient) -> None:
    """Each is as much work as all before it in its field."""
    sent = 0

    async def lines() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--x\r\n" + DISPOSITION
        for _ in range(1000):
            sent += 1
            yield b"A: b\r\n" if sent % 8 == 1 else b" b\r\n"

    response = await post(client, "/predict", lines(), content_type=PLAIN.decode())
    assert "folded" in problem(response, 400, "malformed-request")
    assert bodies.MAX_FOLDS < sent < 2 * bodies.MAX_FOLDS


@pytest.mark.parametrize("boundary", ["", "boundary=", "boundary=" + 300 * "x", "boundary=\xe9"])
async def test_a_boundary_that_is_none(client: httpx.AsyncClient, boundary: str) -> None:
    headers = [(b"content-type", f"multipart/form-data; {boundary}".encode("latin-1"))]
    response = await client.post("/predict", content=b"--x--", headers=headers)
    assert "boundary" in problem(response, 400, "malformed-request")


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Length": "0"},
        {"Content-Length": "00"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
)
async def test_no_body_is_no_image(
    client: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    request = client.build_request("POST", path)
    del request.headers["Content-Length"]
    assert "Content-Type" not in request.headers
    request.headers.update(headers)
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
        refused = await post(client, "/cam", body(), content_type="application/json")
        problem(refused, 415, WRONG_TYPE)
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


async def stalled(begun: asyncio.Event) -> AsyncIterator[bytes]:
    """A body that never ends."""
    begun.set()
    yield JPEG[:100]
    await asyncio.Event().wait()


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
    room = len(JPEG) + 150
    async with serve(max_bytes=room, max_pending_bytes=room) as client:
        begun = [asyncio.Event() for _ in range(2)]
        idle = [asyncio.create_task(post(client, "/cam", stalled(event))) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))  # 100 bytes each
        problem(await post(client, "/predict"), 429, "queue-full")
        for request in idle:
            request.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        for _ in range(3):  # what was held is given back, each time
            assert (await post(client, "/predict")).status_code == 200


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
            problem(await asyncio.wait_for(late, LONG), 408, "request-timeout")
