"""Anthropic's SDK, asynchronous and blocking, as its documentation uses it."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, Address, OnText

_MAX_TOKENS = 1024  # a required parameter


class Async:
    """`AsyncAnthropic`; streams as plain events, which is cheaper than its helper."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - the SDK's limit is 1,000
        anthropic: Any = importlib.import_module("anthropic")
        self._messages = (client := anthropic.AsyncAnthropic(api_key=KEY, base_url=address.url())).messages
        self.aclose = client.close

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str((await self._messages.create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS)).id)

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        create = self._messages.create
        async for event in await create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS, stream=True):
            if event.type == "content_block_delta":
                on_text(event.delta.text)


class Blocking:
    """`Anthropic`; streams as plain events, which is cheaper than its helper."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - the SDK's limit is 1,000
        anthropic: Any = importlib.import_module("anthropic")
        self._messages = (client := anthropic.Anthropic(api_key=KEY, base_url=address.url())).messages
        self.close = client.close

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str(self._messages.create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS).id)

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        create = self._messages.create
        for event in create(model=model, messages=MESSAGES, max_tokens=_MAX_TOKENS, stream=True):
            if event.type == "content_block_delta":
                on_text(event.delta.text)
