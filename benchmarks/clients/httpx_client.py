"""httpx without an SDK, asynchronous and blocking."""

from __future__ import annotations

import importlib
import json
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Address, OnText


def _options(httpx: Any, connections: int) -> dict[str, Any]:
    return {
        "headers": {"Authorization": f"Bearer {KEY}"},
        "limits": httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        "timeout": 60.0,  # its default of 5 s includes the wait for a connection
    }


class Async:
    """`AsyncClient`; `response.json()` and `aiter_lines`."""

    def __init__(self, address: Address, connections: int) -> None:
        httpx: Any = importlib.import_module("httpx")
        self._client = httpx.AsyncClient(**_options(httpx, connections))
        self._url = address.url(f"{NEURALBOX_PATH}/generate")

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        response = await self._client.post(self._url, json={"model": model, "messages": MESSAGES})
        generation: dict[str, str] = response.json()
        return generation["id"]

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        async with self._client.stream("POST", self._url, json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        on_text(event["delta"])

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class Blocking:
    """`Client`; `response.json()` and `iter_lines`."""

    def __init__(self, address: Address, connections: int) -> None:
        httpx: Any = importlib.import_module("httpx")
        self._client = httpx.Client(**_options(httpx, connections))
        self._url = address.url(f"{NEURALBOX_PATH}/generate")

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        response = self._client.post(self._url, json={"model": model, "messages": MESSAGES})
        generation: dict[str, str] = response.json()
        return generation["id"]

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        with self._client.stream("POST", self._url, json=body) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        on_text(event["delta"])

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
