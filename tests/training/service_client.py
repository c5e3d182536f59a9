"""Requests to the service, run within this process."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.main import create_app
from app.settings import Settings

Result = TypeVar("Result")

__all__ = ["get_model", "post_photo"]


def post_photo(model: Path, photo: bytes, *targets: str) -> list[httpx.Response]:
    """The service's response to a PNG at each target (path and query).

    Args:
        model: the model version's directory.
        photo: the PNG.
        targets: for example `/cam?top_k=1`.
    """
    headers = {"content-type": "image/png"}

    async def responses(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(target, content=photo, headers=headers) for target in targets]

    return asyncio.run(_served(model, responses))


def get_model(model: Path) -> dict[str, Any]:
    """The JSON of `GET /model`, for the model version in that directory."""

    async def get(client: httpx.AsyncClient) -> dict[str, Any]:
        response = await client.get("/model")
        response.raise_for_status()
        card: dict[str, Any] = response.json()
        return card

    return asyncio.run(_served(model, get))


async def _served(model: Path, use: Callable[[httpx.AsyncClient], Awaitable[Result]]) -> Result:
    """Start the service, and pass a client for it to `use`."""
    # Small, so that it starts quickly.
    settings = Settings(
        model=model, engine="openvino", precision="float32", max_batch=1, decoders=1
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        return await use(client)
