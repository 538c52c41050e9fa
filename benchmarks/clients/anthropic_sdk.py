"""Anthropic's SDK, asynchronous and blocking, as its own documents use it."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, Take, base_url

_MAX_TOKENS = 1024  # it wants to be told


class Async:
    """`AsyncAnthropic`; streams as plain events, its cheaper way."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - its own limit is 1,000
        anthropic: Any = importlib.import_module("anthropic")
        self._messages = (client := anthropic.AsyncAnthropic(api_key=KEY, base_url=base_url(port))).messages
        self.aclose = client.close

    async def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str((await self._messages.create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS)).id)

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        create = self._messages.create
        async for event in await create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS, stream=True):
            if event.type == "content_block_delta":
                take(event.delta.text)


class Blocking:
    """`Anthropic`; streams as plain events, its cheaper way."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - its own limit is 1,000
        anthropic: Any = importlib.import_module("anthropic")
        self._messages = (client := anthropic.Anthropic(api_key=KEY, base_url=base_url(port))).messages
        self.close = client.close

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str(self._messages.create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS).id)

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        create = self._messages.create
        for event in create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS, stream=True):
            if event.type == "content_block_delta":
                take(event.delta.text)
