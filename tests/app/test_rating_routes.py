import asyncio
import json
import resource
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.rating_routes import MAX_BYTES, MAX_PENDING
from app.ratings import Ratings
from tests.app.conftest import Serve, post, problem

pytestmark = pytest.mark.anyio

RATING: dict[str, Any] = {
    "digest": "0123456789abcdef" * 4,
    "methods": ["cam/last", "gradcam/last6"],
    "answer": "first",
    "misses": ["gradcam/last6"],
    "rater": "0f" * 16,
}


async def test_rate_and_summarize(serve: Serve, tmp_path: Path) -> None:
    async with serve(ratings=tmp_path / "ratings.sqlite") as client:
        empty = (await client.get("/ratings/summary")).json()
        assert (empty["ratings"], empty["pairs"], empty["methods"]) == (0, [], [])
        for answer, rater in (("first", "a"), ("second", "b"), ("first", "c"), ("same", "d")):
            body = RATING | {"answer": answer, "rater": rater * 32}
            response = await client.post("/ratings", json=body)
            assert (response.status_code, response.content) == (204, b"")
        summary = (await client.get("/ratings/summary")).json()
        model = (await client.get("/model")).json()
        schema = (await client.get("/openapi.json")).json()
    assert model["ratings"] is True
    assert summary["model"] == {"name": model["name"], "version": model["version"]}
    assert (summary["ratings"], summary["raters"]) == (4, 4)
    (pair,) = summary["pairs"]
    assert (pair["methods"], pair["wins"], pair["same"]) == (RATING["methods"], [2, 1], 1)
    assert pair["win_rate"] == pytest.approx(2 / 3)
    assert [score["misses"] for score in summary["methods"]] == [0, 4]
    assert "507" in schema["paths"]["/ratings"]["post"]["responses"]
    assert "/ratings/summary" in schema["paths"]


async def test_a_rating_counts_for_the_version_that_it_names(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    async with serve(ratings=path) as client:
        served = (await post(client, "/cam")).json()["model"]
        before = served | {"version": served["version"] + 1}
        for model in (None, served, before, before | {"version": 2**63 - 1}):
            body = RATING | ({} if model is None else {"model": model})
            assert (await client.post("/ratings", json=body)).status_code == 204
        summary = (await client.get("/ratings/summary")).json()
    assert (summary["model"], summary["ratings"]) == (served, 1)  # none named: the same one
    ratings = Ratings.open_to_read(path)
    assert ratings.summary(before["name"], before["version"]).ratings == 1
    ratings.close()


async def test_without_a_file_there_are_no_ratings(client: httpx.AsyncClient) -> None:
    problem(await client.post("/ratings", json=RATING), 404, "not-found")
    problem(await client.get("/ratings/summary"), 404, "not-found")
    assert (await client.get("/model")).json()["ratings"] is False
    assert "/ratings" not in (await client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": "12"}, "digest"),
        ({"digest": "A" * 64}, "digest"),
        ({"methods": ["cam/last"]}, "methods"),
        ({"methods": ["cam/last", "cam/last"]}, "two different"),
        ({"methods": ["cam/last6", "gradcam/last"]}, "`methods 1` must be"),
        ({"methods": ["gradcam/last", "cam/last6"]}, "`methods 2` must be"),
        ({"answer": "third"}, "answer"),
        ({"misses": ["both"]}, "`misses` must be"),
        ({"misses": ["layercam/last"]}, "`misses` must be among `methods`"),
        ({"rater": "me@example.org"}, "rater"),
        ({"photo": "x"}, "photo"),
        ({"model": "dogs"}, "`model`: Input should be an object"),
        ({"model": {"name": "dogs"}}, "`model.version` is missing"),
        ({"model": {"name": "", "version": 1}}, "`model.name` must not be empty"),
        ({"model": {"name": "dogs", "version": 0}}, "`model.version` must be at least 1"),
        ({"model": {"name": "dogs", "version": 2**63}}, "`model.version` must be at most"),
    ],
)
async def test_what_cannot_be_right(
    serve: Serve, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    async with serve(ratings=tmp_path / "ratings.sqlite") as client:
        detail = problem(
            await client.post("/ratings", json=RATING | changes), 400, "invalid-parameter"
        )
        assert words in detail
        assert (await client.get("/ratings/summary")).json()["ratings"] == 0


async def test_bodies_that_are_no_rating(serve: Serve, tmp_path: Path) -> None:
    async with serve(ratings=tmp_path / "ratings.sqlite") as client:

        async def post(content: bytes, content_type: str = "application/json") -> httpx.Response:
            headers = {"Content-Type": content_type}
            return await client.post("/ratings", content=content, headers=headers)

        for content in (b"", b"{", b"[]", b"\xff"):
            problem(await post(content), 400, "malformed-request")
        problem(await post(b" " * (MAX_BYTES + 1)), 413, "too-many-bytes")
        problem(
            await post(json.dumps(RATING).encode(), "text/plain"), 415, "unsupported-media-type"
        )
        detail = problem(await client.get("/ratings"), 405, "method-not-allowed")
        assert "photo" not in detail


async def test_there_are_no_parameters(serve: Serve, tmp_path: Path) -> None:
    async with serve(ratings=tmp_path / "ratings.sqlite") as client:
        for response in (
            await client.post("/ratings?answer=first", json=RATING),
            await client.get("/ratings/summary?answer=first"),
        ):
            detail = problem(response, 400, "invalid-parameter")
            assert detail == "`answer`: there is no such parameter."
        assert (await client.get("/ratings/summary")).json()["ratings"] == 0


async def test_keys_apply(serve: Serve, tmp_path: Path) -> None:
    key = "0123456789abcdef"
    path = tmp_path / "ratings.sqlite"
    async with serve(ratings=path, api_keys=(SecretStr(key),)) as client:
        problem(await client.post("/ratings", json=RATING), 401, "unauthorized")
        problem(await client.get("/ratings/summary"), 401, "unauthorized")
        headers = {"Authorization": f"Bearer {key}"}
        response = await client.post("/ratings", json=RATING, headers=headers)
        assert response.status_code == 204


async def test_photos_do_not_keep_ratings_out(
    serve: Serve, make_service: Any, tmp_path: Path
) -> None:
    service = make_service(ratings=tmp_path / "ratings.sqlite", max_pending=1)
    async with serve(service) as client:
        with service.admission.admit(), service.admission.hold_bytes() as take:
            await take(service.settings.max_pending_bytes)
            problem(await post(client, "/predict"), 429, "queue-full")
            assert (await client.post("/ratings", json=RATING)).status_code == 204
            assert (await client.get("/ratings/summary")).json()["ratings"] == 1


async def test_ratings_do_not_keep_photos_out(
    serve: Serve, make_service: Any, tmp_path: Path
) -> None:
    path = tmp_path / "ratings.sqlite"
    async with serve(make_service(ratings=path, max_pending=1)) as client:
        rival = sqlite3.connect(path, isolation_level=None)
        rival.execute("BEGIN IMMEDIATE")  # so that ratings wait
        ratings = [
            asyncio.create_task(client.post("/ratings", json=RATING | {"digest": f"{number:064x}"}))
            for number in range(MAX_PENDING + 1)
        ]
        refused, waiting = await asyncio.wait(ratings, return_when=asyncio.FIRST_COMPLETED)
        (response,) = [task.result() for task in refused]
        problem(response, 429, "queue-full")
        assert response.headers["Retry-After"] == "1"
        problem(await client.get("/ratings/summary"), 429, "queue-full")
        assert (await post(client, "/predict")).status_code == 200
        assert not any(task.done() for task in waiting)
        rival.execute("ROLLBACK")
        rival.close()
        assert {(await task).status_code for task in waiting} == {204}
        assert (await client.get("/ratings/summary")).json()["ratings"] == MAX_PENDING


async def test_a_failed_write_is_a_507(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with serve(ratings=path) as client:
        confirmed = 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a quota does
        try:
            while True:
                body = RATING | {"digest": f"{confirmed:064x}"}
                response = await client.post("/ratings", json=body)
                if response.status_code != 204:
                    break
                confirmed += 1
                assert confirmed < 1000
            assert (await post(client, "/predict")).status_code == 200
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        problem(response, 507, "storage-full")
        assert 0 < confirmed == (await client.get("/ratings/summary")).json()["ratings"]
        assert (await client.post("/ratings", json=body)).status_code == 204
        assert (await client.get("/ratings/summary")).json()["ratings"] == confirmed + 1


async def test_a_locked_file_does_not_block_the_event_loop(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    async with serve(ratings=path) as client:
        rival = sqlite3.connect(path, isolation_level=None)
        rival.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(client.post("/ratings", json=RATING))
        for _ in range(3):
            assert (await client.get("/livez")).status_code == 200
        assert not waiting.done()
        rival.execute("ROLLBACK")
        rival.close()
        assert (await waiting).status_code == 204
