"""
The protocol of a connection, around aiohttp's: it notices bytes that nobody expects, and keeps those of a bad response.

`asyncio.BaseTransport.set_protocol` puts it there. aiohttp uses its own protocol as before, and everything reaches it.
"""

from __future__ import annotations

import asyncio
import math
import select
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEPT_BYTES = 64 * 1024  # of a response whose head has not been read
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"\r\n"


class WatchedProtocol(asyncio.Protocol):
    """
    Passes all that happens to *protocol*, aiohttp's, and closes a connection on which surplus data arrives.

    Data is surplus behind the end of a response, and while no request uses the connection. To read it as the response
    to the next request would give each caller the response of the caller before.
    """

    __slots__ = ("_body_size", "_in_use", "_kept", "_last_bytes", "_poll", "_protocol", "_surplus_from", "_transport")

    def __init__(self, protocol: Any, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._poll = _new_poll(transport)
        self._in_use = False
        self._kept: bytearray | None = None  # what arrived since the request began; None: the head has been read
        self._body_size = -1  # the bytes that arrived behind the head; negative until its end was seen
        self._surplus_from = math.inf  # the size of the body; infinite if it is not known in advance
        self._last_bytes = b""  # the last two that arrived

    @classmethod
    def of(cls, connection: aiohttp.connector.Connection) -> WatchedProtocol | None:
        """
        Return the protocol of *connection*, or None if that was kept and a request must not use it.

        What has arrived on a new connection is the response. Raises `aiohttp.ClientConnectionError` if it is closed.
        """
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            msg = "the server closed the connection at once"
            raise aiohttp.ClientConnectionError(msg)
        watched = transport.get_protocol()
        if not isinstance(watched, WatchedProtocol):
            watched = cls(protocol, transport)
            transport.set_protocol(watched)
        elif protocol.should_close or watched.has_unread_data():
            return None
        watched._begin(connection)
        return watched

    def has_unread_data(self) -> bool:
        """Return whether the socket has data, or its end, that the loop has not read yet."""
        return self._poll is not None and bool(self._poll.poll(0))

    def _begin(self, connection: aiohttp.connector.Connection) -> None:
        self._in_use, self._kept, self._body_size = True, bytearray(), -1
        connection.add_callback(self._end)

    def _end(self) -> None:
        self._in_use = False
        if self._kept is None:
            self._close_on_surplus()

    @property
    def received(self) -> bytes:
        """The first bytes of a response whose head has not been read."""
        return bytes(self._kept or b"")[:MAX_KEPT_BYTES]

    def response_began(self, headers: Mapping[str, str]) -> None:
        """Record the head of the response: aiohttp has read it. It may have released the connection already."""
        self._kept = None
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and self._body_size >= 0:
            self._surplus_from = int(length)
        else:
            self._surplus_from = math.inf
        if not self._in_use:
            self._close_on_surplus()

    def close_after_response(self) -> None:
        """Do not keep the connection."""
        self._protocol.force_close()
        if not self._in_use:
            self._transport.close()

    def _close_on_surplus(self) -> None:
        # The end of a body in chunks is not known here: but it ends with an empty line, or with a part of that.
        if self._body_size > self._surplus_from or (
            self._surplus_from == math.inf and not _END_OF_CHUNKS.endswith(self._last_bytes)
        ):
            self.close_after_response()

    # ------------------------------------------------------------------------------------------------ asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if not self._in_use:
            self.close_after_response()
            return
        self._last_bytes = data[-len(_END_OF_CHUNKS) :]
        if self._kept is not None and self._body_size < 0:
            data = self._pass_head(data, self._kept)
        if self._body_size >= 0:
            self._body_size += len(data)
        if data:
            self._protocol.data_received(data)

    def _pass_head(self, data: bytes, kept: bytearray) -> bytes:
        """
        Pass on the head of the response, if it ends in *data*, and return the rest.

        aiohttp's parser returns no response of which anything is malformed. So it gets the head alone: then a stray
        byte behind the body costs nothing, and a malformed chunk costs only what follows it.
        """
        if len(kept) < MAX_KEPT_BYTES:
            kept += data
        while (end := data.find(_END_OF_HEAD) + len(_END_OF_HEAD)) >= len(_END_OF_HEAD):
            head, data = data[:end], data[end:]
            self._protocol.data_received(head)
            if head[9:10] != b"1":  # not the interim response "HTTP/1.1 103 Early Hints"
                self._body_size = 0
                break
        return data

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _new_poll(transport: asyncio.Transport) -> Any:
    # `select.select` fails for descriptors above 1023. Windows, which has no `poll`, goes without.
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(select, "poll"):
        return None
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return poll
