"""A bare `asyncio.Protocol` that relies on this server and checks nothing: the minimum cost of an event in a loop."""

from __future__ import annotations

import asyncio
import json
from typing import cast

from benchmarks.clients.adapter import HOST, Address, OnText
from benchmarks.clients.raw_socket import request_bytes

_DELTA = b'data: {"type":"content_delta"'


class _Reader(asyncio.Protocol):
    """Passes each piece of text of one stream to *on_text*. Each TCP segment of a live stream ends with an event."""

    def __init__(self, request: bytes, on_text: OnText) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request, self._on_text = request, on_text

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            if line.startswith(_DELTA):
                self._on_text(json.loads(line[6:])["delta"])
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.done.set_result(None)


class RawProtocol:
    """Streams only, each over a connection of its own."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - the same signature for all clients
        self._address = address

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        loop = asyncio.get_running_loop()
        request = request_bytes(model, stream=True)
        transport, reader = await loop.create_connection(
            lambda: _Reader(request, on_text), HOST, self._address.port, ssl=self._address.ssl_context
        )
        await reader.done
        transport.close()

    async def aclose(self) -> None:
        """Do nothing: each stream closes its own connection."""
