"""One request being served: what can be sent back, waits that end when the client goes, and ways to hang up on it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

from neuralbox_async.testing._bodies import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async.testing._faults import HangUp
    from neuralbox_async.testing._received import ReceivedRequest

# l_onoff = 1, l_linger = 0: closing throws away what was not sent, and resets the connection.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ClientGoneError(Exception):
    """The client has closed the connection, or the server has on purpose: nobody is left to answer."""


class Exchange:
    """One request and its answer. *headers* returns what every answer carries."""

    def __init__(
        self, request: web.BaseRequest, received: ReceivedRequest, headers: Callable[[], dict[str, str]]
    ) -> None:
        self.request = request
        self.received = received
        self._headers = headers
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lose(self) -> None:
        """Take note that the connection is lost, unless the server itself has closed it."""
        if not self._gone.done():
            self.received.disconnected = True
            self._gone.set_result(None)

    async def idle(self, seconds: float | None) -> None:
        """Wait for *seconds*, None for ever, while the client is there.

        Raises:
            ClientGoneError: as soon as it is not.
        """
        if seconds != 0 and not self._gone.done():
            # asyncio.wait leaves the future alone when the time is up.
            await asyncio.wait([self._gone], timeout=seconds)
        if self._gone.done():
            raise ClientGoneError

    def hang_up(self, how: HangUp) -> ClientGoneError:
        """Close the connection from this side, by a reset or an orderly end, and return what to raise."""
        transport = self.request.transport
        if transport is not None and not self._gone.done():
            self._gone.set_result(None)
            _close(transport, how)
        return ClientGoneError()

    async def send(
        self, status: int, body: bytes | str | Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Answer with *body*: text and bytes go out as they are, anything else as JSON."""
        payload = body.encode() if isinstance(body, str) else body
        if not isinstance(payload, bytes):
            payload = dump(payload)
        response = web.Response(
            status=status,
            body=payload,
            headers={"Content-Type": "application/json", **self._headers(), **(headers or {})},
        )
        # Sent here and not after the handler has returned, so that the record is right about a client that left.
        await self._prepare(response)
        await response.write_eof()
        return response

    async def start_stream(self) -> web.StreamResponse:
        """Send the head of a stream of server-sent events."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **self._headers()}
        )
        await self._prepare(response)
        return response

    async def _prepare(self, response: web.StreamResponse) -> None:
        await self.idle(0)
        self.received.answered = response.status
        await response.prepare(self.request)


def _close(transport: asyncio.Transport, how: HangUp) -> None:
    if how == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
