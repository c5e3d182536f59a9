"""The service in this process, for one photo at several endpoints."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.main import create_app
from app.settings import Settings

Answer = TypeVar("Answer")

__all__ = ["get_model", "post_photo"]


def post_photo(model: Path, photo: bytes, *targets: str) -> list[httpx.Response]:
    """What the service with that model version answers at each path and query to a PNG."""
    headers = {"content-type": "image/png"}

    async def responses(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(target, content=photo, headers=headers) for target in targets]

    return asyncio.run(_served(model, responses))


def get_model(model: Path) -> dict[str, Any]:
    """What the service with that model version answers at `GET /model`."""

    async def card(client: httpx.AsyncClient) -> dict[str, Any]:
        response = await client.get("/model")
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    return asyncio.run(_served(model, card))


async def _served(model: Path, use: Callable[[httpx.AsyncClient], Awaitable[Answer]]) -> Answer:
    """Use the service while it runs."""
    app = create_app(Settings(model=model, engine="openvino", precision="float32"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        return await use(client)
