"""One HTTP exchange on the server's side: send the response, wait while the client is connected, disconnect."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from neuralbox_async.testing._http_errors import HTTPError
from neuralbox_async.testing._responses import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async.testing._faults import CloseMode
    from neuralbox_async.testing._received_request import ReceivedRequest

# l_onoff = 1, l_linger = 0: closing discards unsent data and resets the connection.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class DisconnectedError(Exception):
    """The connection is closed, by the client or by the server: no response can be sent."""


class Exchange:
    """One request and its response. *common_headers* returns the headers of every response."""

    def __init__(
        self, request: web.BaseRequest, received: ReceivedRequest, common_headers: Callable[[], dict[str, str]]
    ) -> None:
        self.request = request
        self.received = received
        self._common_headers = common_headers
        self._disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def mark_disconnected(self) -> None:
        """Record that the client disconnected, unless the server has closed the connection."""
        if not self._disconnected.done():
            self.received.disconnected = True
            self._disconnected.set_result(None)

    async def sleep(self, seconds: float | None) -> None:
        """Wait for *seconds*, None indefinitely, while the client is connected.

        Raises:
            DisconnectedError: as soon as the connection is closed.
        """
        if seconds != 0 and not self._disconnected.done():
            # asyncio.wait does not cancel the future on timeout.
            await asyncio.wait([self._disconnected], timeout=seconds)
        if self._disconnected.done():
            raise DisconnectedError

    def disconnect(self, how: CloseMode) -> NoReturn:
        """Close the connection from the server's side, by a reset or an orderly end.

        Raises:
            DisconnectedError: always.
        """
        transport = self.request.transport
        if transport is not None and not self._disconnected.done():
            self._disconnected.set_result(None)
            _close(transport, how)
        raise DisconnectedError

    async def read_body(self, max_size: int) -> bytes:
        """Return the body of the request.

        Raises:
            HTTPError: 413 if the body is larger than *max_size* bytes.
        """
        body = bytearray()
        # Not `request.read()`: its limit is an argument of the request's constructor, which aiohttp calls.
        async for chunk in self.request.content.iter_any():
            body += chunk
            if len(body) > max_size:
                raise HTTPError(413)
        return bytes(body)

    async def send(
        self, status: int, body: bytes | str | Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Send a response. A *body* of text or bytes is sent unchanged, a mapping as JSON."""
        payload = body.encode() if isinstance(body, str) else body
        if not isinstance(payload, bytes):
            payload = encode_json(payload)
        response = web.Response(
            status=status,
            body=payload,
            headers={"Content-Type": "application/json", **self._common_headers(), **(headers or {})},
        )
        # Sent here and not after the handler has returned, so that a disconnect during the write is recorded.
        await self._prepare(response)
        await response.write_eof()
        return response

    async def start_stream(self) -> web.StreamResponse:
        """Send the headers of a stream of server-sent events."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **self._common_headers()}
        )
        await self._prepare(response)
        return response

    async def _prepare(self, response: web.StreamResponse) -> None:
        await self.sleep(0)
        self.received.response_status = response.status
        await response.prepare(self.request)


def _close(transport: asyncio.Transport, how: CloseMode) -> None:
    if how == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
