"""OpenAI's SDK, asynchronous and blocking, as its own documents use it."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, OPENAI_PATH, Take, base_url


class Async:
    """`AsyncOpenAI`."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - its own limit is 1,000
        openai: Any = importlib.import_module("openai")
        self._client = openai.AsyncOpenAI(api_key=KEY, base_url=base_url(port, OPENAI_PATH))

    async def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str((await self._client.chat.completions.create(model=model, messages=MESSAGES)).id)

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        stream = await self._client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        async for chunk in stream:
            if text := chunk.choices[0].delta.content:
                take(text)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class Blocking:
    """`OpenAI`."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - its own limit is 1,000
        openai: Any = importlib.import_module("openai")
        self._client = openai.OpenAI(api_key=KEY, base_url=base_url(port, OPENAI_PATH))

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str(self._client.chat.completions.create(model=model, messages=MESSAGES).id)

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        for chunk in self._client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            if text := chunk.choices[0].delta.content:
                take(text)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
