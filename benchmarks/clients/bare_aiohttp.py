"""aiohttp without an SDK: the baseline of the asynchronous clients."""

from __future__ import annotations

import json

import aiohttp

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Address, OnText

_DEFAULT_LIMIT = 100


class BareAiohttp:
    """Use `session.post(json=...)` and `response.json()`; for streams, iterate over lines and use `json.loads`."""

    def __init__(self, address: Address, connections: int) -> None:
        self._url = address.url(f"{NEURALBOX_PATH}/generate")
        # With its default of 100 connections it would queue.
        connector = aiohttp.TCPConnector(limit=max(_DEFAULT_LIMIT, connections), ssl=address.ssl_context or True)
        self._session = aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"})

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        async with self._session.post(self._url, json={"model": model, "messages": MESSAGES}) as response:
            generation: dict[str, str] = await response.json()
            return generation["id"]

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        async with self._session.post(self._url, json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        on_text(event["delta"])

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
