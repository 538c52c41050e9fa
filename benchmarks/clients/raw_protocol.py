"""A bare `asyncio.Protocol` that knows this server and checks nothing: the least that an event costs in a loop."""

from __future__ import annotations

import asyncio
import json
from typing import cast

from benchmarks.clients.adapter import Take
from benchmarks.clients.raw_socket import request_for

_DELTA = b'data: {"type":"content_delta"'


class _Reader(asyncio.Protocol):
    """Hands each piece of one stream to *take*, as it comes; segments end where events end, as this server sends."""

    def __init__(self, request: bytes, take: Take) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request, self._take = request, take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            if line.startswith(_DELTA):
                self._take(json.loads(line[6:])["delta"])
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.done.set_result(None)


class RawProtocol:
    """Streams only, each over a connection of its own."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - as the others are made
        self._port = port

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        loop = asyncio.get_running_loop()
        request = request_for(model, stream=True)
        transport, reader = await loop.create_connection(lambda: _Reader(request, take), "127.0.0.1", self._port)
        await reader.done
        transport.close()

    async def aclose(self) -> None:
        """Close nothing: each stream has closed its own."""
