"""The service in this process, for one photo at several endpoints."""

import asyncio
from pathlib import Path

import httpx

from app.main import create_app
from app.settings import Settings

__all__ = ["ask"]


def ask(model: Path, photo: bytes, *targets: str) -> list[httpx.Response]:
    """What the service with that model version answers at each path and query to a PNG."""

    async def responses() -> list[httpx.Response]:
        app = create_app(Settings(model=model, engine="openvino", precision="float32"))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            headers = {"content-type": "image/png"}
            return [await client.post(target, content=photo, headers=headers) for target in targets]

    return asyncio.run(responses())
