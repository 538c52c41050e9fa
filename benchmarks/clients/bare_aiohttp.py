"""aiohttp and nothing else: what somebody writes who needs no SDK; ratios of asynchronous clients are to this."""

from __future__ import annotations

import json

import aiohttp

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Take, base_url

_DEFAULT_LIMIT = 100


class BareAiohttp:
    """`session.post(json=...)` and `response.json()`; for streams, lines and `json.loads`."""

    def __init__(self, port: int, connections: int) -> None:
        self._url = base_url(port, f"{NEURALBOX_PATH}/generate")
        # Above its default of 100 it would queue.
        connector = aiohttp.TCPConnector(limit=max(_DEFAULT_LIMIT, connections))
        self._session = aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"})

    async def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        async with self._session.post(self._url, json={"model": model, "messages": MESSAGES}) as response:
            answer: dict[str, str] = await response.json()
            return answer["id"]

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        async with self._session.post(self._url, json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        take(event["delta"])

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
