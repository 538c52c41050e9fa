"""OpenAI's SDK, asynchronous and blocking, as its documentation uses it."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, OPENAI_PATH, Address, OnText


class Async:
    """`AsyncOpenAI`."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - the SDK's limit is 1,000
        openai: Any = importlib.import_module("openai")
        self._client = openai.AsyncOpenAI(api_key=KEY, base_url=address.url(OPENAI_PATH))

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str((await self._client.chat.completions.create(model=model, messages=MESSAGES)).id)

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        stream = await self._client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        async for chunk in stream:
            if text := chunk.choices[0].delta.content:
                on_text(text)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class Blocking:
    """`OpenAI`."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - the SDK's limit is 1,000
        openai: Any = importlib.import_module("openai")
        self._client = openai.OpenAI(api_key=KEY, base_url=address.url(OPENAI_PATH))

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str(self._client.chat.completions.create(model=model, messages=MESSAGES).id)

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        for chunk in self._client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            if text := chunk.choices[0].delta.content:
                on_text(text)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
