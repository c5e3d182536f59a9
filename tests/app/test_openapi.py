"""The OpenAPI document, but for what `test_conformance` holds: that the service keeps to it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from pydantic import SecretStr

from app import __version__
from app.problems import MEDIA_TYPE
from app.schemas import Problem, Rating
from app.security import EXPOSED
from tests.app.conftest import PICTURED, Serve, post
from tests.examples import FILE, RATING, examples
from tests.readme import check_like

pytestmark = pytest.mark.anyio

Document = dict[str, Any]
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def document(serve: Serve, tmp_path: Path) -> Document:
    """Of a service with all that settings can add."""
    settings = {"api_keys": (SecretStr(KEY),), "trusted_hosts": ("test",)}
    async with serve(ratings=tmp_path / "ratings.sqlite", **settings) as client:
        document: Document = (await client.get("/openapi.json")).json()
        assert (await client.get("/openapi.json")).json() == document
    return document


def operations(document: Document) -> dict[str, Document]:
    """By id."""
    return {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }


def nodes(node: Any) -> Iterator[Document]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    for member in node.values() if isinstance(node, dict) else node:
        if isinstance(member, dict | list):
            yield from nodes(member)


async def test_it_is_openapi(document: Document) -> None:
    OpenAPI.model_validate(document)
    for node in nodes(document):
        if "$ref" in node:
            assert node["$ref"].startswith("#/components/")
            found: Any = document
            for part in node["$ref"].split("/")[1:]:
                found = found[part]


async def test_what_it_says_of_itself(document: Document) -> None:
    info = document["info"]
    assert (info["title"], info["version"]) == ("BreedCAM", __version__)
    assert info["license"] == {"name": "MIT", "identifier": "MIT"}
    assert "curl -T photo.jpg" in info["description"]


async def test_operations_have_plain_ids_and_tags(
    document: Document, client: httpx.AsyncClient
) -> None:
    tags = {name: " ".join(operation["tags"]) for name, operation in operations(document).items()}
    assert tags == {
        **dict.fromkeys(("predict", "cam", "gradcam", "compare"), "photos"),
        "model": "model",
        **dict.fromkeys(("livez", "readyz"), "health"),
        **dict.fromkeys(("rate", "ratings_summary"), "ratings"),
    }
    assert [tag["name"] for tag in document["tags"]] == ["photos", "model", "health", "ratings"]
    without = (await client.get("/openapi.json")).json()
    assert [tag["name"] for tag in without["tags"]] == ["photos", "model", "health"]
    assert not {"Rating", "MethodName"} & without["components"]["schemas"].keys()


async def test_nothing_is_spelt_out_twice(document: Document) -> None:
    """Generators make a class of each enumeration and each object, wherever it stands."""
    enumerations = [tuple(node["enum"]) for node in nodes(document) if "enum" in node]
    assert len(set(enumerations)) == len(enumerations) > 5
    inline = [
        node for node in nodes(document["paths"]) if node.get("type") == "object" or "$defs" in node
    ]
    assert inline == []


async def test_every_problem_is_the_same_schema_with_an_example(document: Document) -> None:
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            assert response["headers"]["X-Request-ID"] == {
                "$ref": "#/components/headers/X-Request-ID"
            }
            assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))
            assert ("WWW-Authenticate" in response["headers"]) == (status == "401")
            if status in ("200", "204"):
                continue
            assert list(response["content"]) == [MEDIA_TYPE], name
            content = response["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            example = Problem.model_validate(content["example"])
            assert example.status == int(status)
            assert example.type.startswith("urn:breedcam:error:")


async def test_problems_in_the_examples_are_answers(
    document: Document, serve: Serve, client: httpx.AsyncClient
) -> None:
    """Those that are quick to provoke."""
    answers = []
    async with serve(api_keys=(SecretStr(KEY),), trusted_hosts=("test",), max_pending=0) as full:
        for key in ("x", KEY):
            headers = {"Authorization": f"Bearer {key}"}
            answers.append(await post(full, "/predict", headers=headers))
        answers.append(await post(full, "/predict", headers={"Host": "other"}))
    answers.append(await post(client, "/predict", top_k=0))
    answers.append(await post(client, "/predict", headers={"Accept": "text/html"}))
    assert [answer.status_code for answer in answers] == [401, 429, 421, 400, 406]
    responses = operations(document)["predict"]["responses"]
    for answer in answers:
        response = responses[str(answer.status_code)]
        example = response["content"][MEDIA_TYPE]["example"]
        check_like(answer.json(), example)
        assert {name.lower() for name in response["headers"]} <= answer.headers.keys()


async def test_a_request_for_the_document_is_not_logged_as_a_problem(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Though problems are made for its examples."""
    async with serve(api_keys=(SecretStr(KEY),)) as client:
        with caplog.at_level(logging.INFO, "app.access"):
            assert (await client.get("/openapi.json")).status_code == 200
    [record] = [record for record in caplog.records if record.name == "app.access"]
    assert "error" not in record.fields  # type: ignore[attr-defined]


async def test_headers_of_pictures_are_those_that_are_sent_and_that_scripts_may_read(
    document: Document, client: httpx.AsyncClient
) -> None:
    exposed = {name for name in EXPOSED if name.startswith("BreedCAM-")}
    for path in PICTURED:
        declared = document["paths"][path]["post"]["responses"]["200"]["headers"]
        assert set(declared) == exposed | {"X-Request-ID"}
    picture = await post(client, "/cam", headers={"Accept": "image/png"}, box="0,0,200,200")
    sent = {name for name in picture.headers if name.startswith("breedcam-")}
    assert sent == {name.lower() for name in exposed}


async def test_examples_are_real(document: Document, serve: Serve, tmp_path: Path) -> None:
    """To write them anew: `python -m tests.examples`."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    async with serve(ratings=tmp_path / "ratings2.sqlite") as client:
        found = await examples(client)
    assert found.keys() == written.keys() == document["paths"].keys()
    check_like(found, written)
    assert Rating.model_validate(written["/ratings"]["request"]["value"])
    for path, methods in document["paths"].items():
        [operation] = methods.values()
        if path == "/ratings":
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"]["example"]["value"] == RATING
        else:
            content = operation["responses"]["200"]["content"]["application/json"]
            assert content["examples"]["example"] == written[path]["response"]
