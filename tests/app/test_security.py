import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.main import create_app
from app.security import ANSWER, EXPOSED, OPEN, PAGE
from app.service import Service
from app.settings import Settings
from tests.app.conftest import ENDPOINTS, Serve, post, problem

pytestmark = pytest.mark.anyio

KEYS = ("correct-horse-battery-staple", "Q0FNIGFuZCBHcmFkLUNBTQ==")
OTHER = "https://other.example"
ORIGIN = "https://dogs.example"


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


@pytest.fixture
async def locked(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key; of the keys, one is in a file."""
    keys = [(SecretStr(key),) for key in KEYS]
    async with serve(
        api_keys=keys[0], api_keys_file=keys[1], cors_origins=(ORIGIN,), trusted_hosts=("test",)
    ) as client:
        yield client


# -- keys


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
async def test_without_a_key_nothing_is_told(locked: httpx.AsyncClient, method: str) -> None:
    for path in (*ENDPOINTS, "/model", "/metrics", "/nowhere", "/livez/", "/static"):
        response = await locked.request(method, path)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        if method != "HEAD":
            assert "Authorization: Bearer" in problem(response, 401, "unauthorized")


async def test_two_keys_at_once_are_refused(locked: httpx.AsyncClient) -> None:
    """A proxy in front might have looked at the other one."""
    headers = [("Authorization", f"Bearer {key}") for key in (KEYS[0], KEYS[0])]
    detail = problem(await locked.get("/model", headers=headers), 401, "unauthorized")
    assert "more than one" in detail


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_each_key_opens(locked: httpx.AsyncClient, key: str, scheme: str) -> None:
    assert (await locked.get("/model", headers=bearer(key, scheme))).status_code == 200
    answer = await post(locked, "/predict", headers=bearer(key, scheme))
    assert answer.status_code == 200
    problem(await locked.get("/nowhere", headers=bearer(key, scheme)), 404, "not-found")


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {KEYS[0]}x",
        f"Bearer {KEYS[0][:-1]}",
        f"Bearer {KEYS[0].upper()}",
        f"Bearer {KEYS[0]},{KEYS[1]}",
        f"Bearer {KEYS[0]} {KEYS[1]}",
        "Bearer ",
        "Bearer",
        "",
        KEYS[0],
        f"Basic {KEYS[1]}",
        f"Bearer{KEYS[0]}",
        "Bearer **********",
        b"Bearer \xff\xfe\xe9",
        f"Bearer {'x' * 8000}",
    ],
    ids=str,
)
async def test_no_other_value_opens(locked: httpx.AsyncClient, value: str | bytes) -> None:
    octets = value.encode() if isinstance(value, str) else value
    response = await locked.get("/model", headers={b"Authorization": octets})
    detail = problem(response, 401, "unauthorized")
    assert not any(key in detail for key in KEYS)


@pytest.mark.parametrize("where", ["query", "cookie", "x-api-key"])
async def test_a_key_belongs_in_its_header(locked: httpx.AsyncClient, where: str) -> None:
    """Queries are logged by proxies, and cookies are sent for other people's pages."""
    headers = {"cookie": {"Cookie": f"key={KEYS[0]}"}, "x-api-key": {"X-API-Key": KEYS[0]}}
    params = {"key": KEYS[0]} if where == "query" else {}
    response = await locked.get("/model", headers=headers.get(where, {}), params=params)
    problem(response, 401, "unauthorized")


async def test_a_refusal_reads_nothing_of_the_body(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(api_keys=(SecretStr(KEYS[0]),))
    app = create_app(service.settings, service)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        pytest.fail("the body was read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg"), (b"authorization", b"Bearer wrong")],
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 401


async def test_page_documentation_and_probes_are_open(locked: httpx.AsyncClient) -> None:
    paths = [path.replace("/static/*", "/static/app.js") for path in OPEN]
    paths = [path.replace("/docs/*", "/docs/swagger-ui.css") for path in paths]
    answers = [await locked.get(path) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(OPEN)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../model",
        "/static/%2e%2e/model",
        "/docs/../predict",
        "/docs%2f..%2fmodel",
        "/model%0a",
    ],
)
async def test_no_path_leads_around_the_keys(locked: httpx.AsyncClient, path: str) -> None:
    """The address as it is, not as httpx would make it."""
    url = httpx.URL("http://test").copy_with(raw_path=path.encode())
    for method in ("GET", "POST", "PUT"):
        response = await locked.send(httpx.Request(method, url))
        assert response.status_code in (401, 404, 405), path


async def test_openapi_declares_what_needs_a_key(
    locked: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for _ in range(2):  # the document is made once, and kept
        document = (await locked.get("/openapi.json")).json()
        assert document["components"]["securitySchemes"] == {
            "key": {"type": "http", "scheme": "bearer"}
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                needs_key = path not in ("/livez", "/readyz")
                assert ("security" in operation) == needs_key
                assert ("401" in operation["responses"]) == needs_key
    text = (await client.get("/openapi.json")).text
    assert "securitySchemes" not in text
    assert '"401"' not in text


async def test_openapi_declares_what_depends_on_the_host(serve: Serve) -> None:
    async with serve() as client:
        assert '"421"' not in (await client.get("/openapi.json")).text
    async with serve(trusted_hosts=("test",)) as client:
        document = (await client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("421" in operation["responses"]) == (path not in ("/livez", "/readyz"))
            assert "security" not in operation


async def test_keys_show_up_nowhere(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREEDCAM_API_KEYS", ",".join(KEYS))
    settings = Settings()
    caplog.set_level("DEBUG")
    async with serve(api_keys=settings.api_keys) as client:
        texts = [
            (await client.get("/model", headers=bearer(KEYS[0]))).text,
            (await client.get("/model", headers=bearer(KEYS[0], "Basic"))).text,
            (await client.get("/openapi.json")).text,
        ]
    texts += [caplog.text, repr(settings), str(settings), settings.model_dump_json()]
    assert "GET /model 401" in caplog.text
    assert not any(key in text for key in KEYS for text in texts)


# -- other origins


async def test_a_preflight_needs_no_key(locked: httpx.AsyncClient) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-request-id",
    }
    answer = await locked.options("/gradcam", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "x-request-id"} <= set(allowed)
    assert {"POST", "PUT"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert "Access-Control-Allow-Credentials" not in answer.headers

    refused = await locked.options("/gradcam", headers=headers | {"Origin": OTHER})
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize("origin", [ORIGIN, OTHER, "null", f"{ORIGIN}.evil.example", None])
async def test_every_answer_tells_the_named_origin_alone(
    serve: Serve,
    make_service: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    origin: str | None,
) -> None:
    """Errors too: without these headers a browser hides even their status."""
    service = make_service(
        api_keys=(SecretStr(KEYS[0]),),
        cors_origins=(ORIGIN,),
        trusted_hosts=("test",),
        max_bytes=9999,
    )
    headers = bearer(KEYS[0]) | ({"Origin": origin} if origin else {})
    async with serve(service) as client:
        answers = [
            await post(client, "/predict", headers=headers),
            await post(client, "/predict", headers=headers | bearer("wrong")),
            await post(client, "/predict", bytes(10_000), headers=headers),
            await post(client, "/predict", b"?", headers=headers),
            await client.get("/nowhere", headers=headers),
            await client.get("/model", headers=headers | {"Host": "evil.example"}),
            await client.get("/livez", headers=headers),
            await client.get("/static/app.js", headers=headers),
        ]
        monkeypatch.setattr(service.explainer, "_decode", lambda *_: 1 / 0)
        answers.append(await post(client, "/predict", headers=headers))
    assert [answer.status_code for answer in answers] == [
        200,
        401,
        413,
        415,
        404,
        421,
        200,
        200,
        500,
    ]
    for answer in answers:
        expected = ORIGIN if origin == ORIGIN else None
        assert answer.headers.get("Access-Control-Allow-Origin") == expected
        assert "Origin" in answer.headers["Vary"]
        assert answer.headers.get_list("X-Request-ID") != []


async def test_the_headers_of_answers_can_be_read(locked: httpx.AsyncClient) -> None:
    headers = bearer(KEYS[0]) | {"Origin": ORIGIN, "Accept": "image/png"}
    answer = await post(locked, "/gradcam", headers=headers, box="10,10,200,200")
    exposed = set(answer.headers["Access-Control-Expose-Headers"].lower().split(", "))
    own = {name for name in answer.headers if name.startswith("breedcam-")}
    assert len(own) == 7
    assert own | {"x-request-id", "retry-after"} <= exposed
    assert exposed == {name.lower() for name in EXPOSED}


async def test_any_origin_may_be_named(serve: Serve) -> None:
    async with serve(cors_origins=("*",)) as client:
        answer = await client.get("/model", headers={"Origin": OTHER})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_no_origin_is_named_by_default(client: httpx.AsyncClient) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answers = [
        await client.options("/predict", headers=headers),
        await client.get("/model", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [405, 200]
    for answer in answers:
        assert not any(name.startswith("access-control-") for name in answer.headers)


# -- hosts


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("dogs.example", True),
        ("DOGS.example:8000", True),
        ("dogs.example.", True),
        ("a.pets.example", True),
        ("a.b.pets.example:80", True),
        ("pets.example", False),
        ("evilpets.example", False),
        ("[::1]:8000", True),
        ("[::2]", False),
        ("::1", False),
        ("127.0.0.1", False),
        ("evil.example", False),
        ("dogs.example.evil.example", False),
        ("evil.example:80@dogs.example", False),
        ("dogs.example@evil.example", False),
        ("evil.example/.pets.example", False),
        ("evil.example#.pets.example", False),
        ("dogs.example:80:80", False),
        ("", False),
    ],
)
async def test_hosts_that_are_named_are_answered(serve: Serve, host: str, trusted: bool) -> None:
    async with serve(trusted_hosts=("dogs.example", "*.pets.example", "[::1]")) as client:
        answer = await client.get("/model", headers={"Host": host})
        if trusted:
            assert answer.status_code == 200
        else:
            detail = problem(answer, 421, "unknown-host")
            assert "example" not in detail
        for probe in ("/livez", "/readyz"):  # orchestrators probe by address
            assert (await client.get(probe, headers={"Host": host})).status_code == 200


async def test_any_host_is_answered_by_default(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez", headers={"Host": "a@b/c"})).status_code == 200
    assert (await client.get("/model", headers={"Host": "evil.example"})).status_code == 200


# -- headers


async def test_every_answer_has_its_headers(
    serve: Serve, make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(root_path="/pets")
    async with serve(service) as client:
        answers = [
            await client.get("/model"),
            await client.get("/livez"),
            await client.get("/nowhere"),
            await client.get("/pets"),
            await client.get("/openapi.json"),
            await post(client, "/gradcam"),
            await post(client, "/gradcam", headers={"Accept": "image/webp"}),
            await post(client, "/predict", b"?"),
        ]
        monkeypatch.setattr(service.explainer, "_decode", lambda *_: 1 / 0)
        answers.append(await post(client, "/predict"))
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 404, 308, 200, 200, 200, 415, 500]
    for answer in answers:
        for name, value in ANSWER.items():
            assert answer.headers.get_list(name) == [value]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_has_headers_of_its_own(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(PAGE["Content-Security-Policy"])
    assert "unsafe" not in policy
    for name in PAGE.keys() - {"Content-Security-Policy"}:
        assert answer.headers.get_list(name) == [PAGE[name]]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_at_docs_names_another_host(client: httpx.AsyncClient) -> None:
    html = (await client.get("/docs")).text
    links = re.findall(r'(?:src|href)="(.+?)"', html)
    assert len(links) == 3
    for link in links:
        file = await client.get(f"/{link}")
        assert file.status_code == 200
        assert file.headers["Cache-Control"] == "no-cache"


# -- what can be turned off


async def test_the_documentation_can_be_turned_off(
    serve: Serve, make_service: Callable[..., Service]
) -> None:
    async with serve(docs=False) as client:
        for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json"):
            problem(await client.get(path), 404, "not-found")
        assert (await client.get("/")).status_code == 200
        assert (await post(client, "/predict")).status_code == 200


# -- behind a proxy


@pytest.mark.parametrize("prefix", ["", "/pets", "/pets/pets"])
async def test_a_prefix_may_be_stripped_or_not(serve: Serve, prefix: str) -> None:
    async with serve(root_path="/pets", api_keys=(SecretStr(KEYS[0]),)) as client:
        problem(await client.get(f"{prefix}/model"), 401, "unauthorized")
        answers = [
            await client.get(f"{prefix}/model", headers=bearer(KEYS[0])),
            await client.get(f"{prefix}/static/app.js"),
            await client.get(f"{prefix}/livez"),
            await client.get(f"{prefix}/openapi.json"),
        ]
        if prefix == "/pets/pets":  # a prefix is stripped once
            assert [answer.status_code for answer in answers] == [404, 401, 401, 401]
            return
        assert [answer.status_code for answer in answers] == [200] * 4
        assert answers[-1].json()["servers"] == [{"url": "/pets"}]
        redirect = await client.get("/pets")
        assert redirect.status_code == 308
        assert str(redirect.next_request and redirect.next_request.url) == "http://test/pets/"
        problem(await client.get("/petshop", headers=bearer(KEYS[0])), 404, "not-found")


async def test_without_a_prefix_there_is_none(client: httpx.AsyncClient) -> None:
    problem(await client.get("/pets/livez"), 404, "not-found")
    assert "servers" not in (await client.get("/openapi.json")).json()
