"""
The protocol of a connection, around aiohttp's: it notices bytes that nobody expects, and keeps those of a bad response.

`asyncio.BaseTransport.set_protocol` puts it there. aiohttp uses its own protocol as before, and everything reaches it.
"""

from __future__ import annotations

import asyncio
import math
import re
import select
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER_SIZE = 256 * 1024  # bytes that are received at a time; as many as asyncio's own
MAX_KEPT_BYTES = 64 * 1024  # of a response whose head has not been read
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"\r\n\r\n"  # of the last chunk, or of the trailer fields behind it
_CONTENT_LENGTH = re.compile(
    rb"\r\ncontent-length:[ \t]*([0-9]{1,18}(?:[ \t]*,[ \t]*[0-9]{1,18})*)[ \t]*(?=\r\n)", re.IGNORECASE
)


class WatchedProtocol(asyncio.Protocol):
    """
    Passes all that happens to *protocol*, aiohttp's, and closes a connection on which surplus data arrives.

    Data is surplus behind the end of a response, and while no request uses the connection. To read it as the response
    to the next request would give each caller the response of the caller before.
    """

    __slots__ = (
        "_connection",
        "_head_start",
        "_in_head",
        "_is_kept",
        "_kept",
        "_last_bytes",
        "_left",
        "_poll",
        "_protocol",
        "_transport",
    )

    def __init__(self, protocol: Any, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._poll = _new_poll(transport)
        self._connection: aiohttp.connector.Connection | None = None  # of the last request; released at its end
        self._is_kept = False  # the last request was not the first one
        # Of the response to it:
        self._kept: bytearray | None = None  # what arrived, until aiohttp has read the head
        self._head_start = 0  # in what is kept, behind interim responses
        self._in_head = True  # until its end has arrived
        self._left = math.inf  # bytes of the body that are missing; negative: surplus; infinite: the head does not say
        self._last_bytes = b""  # of the body, as many as end its chunks

    @classmethod
    def of(cls, connection: aiohttp.connector.Connection, buffer: memoryview) -> WatchedProtocol | None:
        """
        Return the protocol of *connection*, or None if that was kept and a request must not use it.

        What has arrived on a new connection is the response. Raises `aiohttp.ClientConnectionError` if it is closed.
        *buffer*: see `_BufferedProtocol`.
        """
        protocol, transport = connection.protocol, connection.transport
        watched = None if transport is None else transport.get_protocol()
        if isinstance(watched, WatchedProtocol):
            if not watched.may_be_reused():
                return None
        elif protocol is None or transport is None or transport.is_closing():
            msg = "the server closed the connection immediately"
            raise aiohttp.ClientConnectionError(msg)
        else:
            is_tls = transport.get_extra_info("sslcontext") is not None
            watched = cls(protocol, transport) if is_tls else _BufferedProtocol(protocol, transport, buffer)
            transport.set_protocol(watched)
        watched.begin_response(connection)
        return watched

    def begin_response(self, connection: aiohttp.connector.Connection) -> None:
        """Expect the response to a request that *connection* sends."""
        self._connection, self._kept = connection, bytearray()
        self._head_start, self._in_head = 0, True
        self._left, self._last_bytes = math.inf, _END_OF_CHUNKS

    def may_be_reused(self) -> bool:
        """Return whether no more arrived than the response to the last request. aiohttp has checked that it is open."""
        self._is_kept = True
        return not (self._has_surplus() or self._has_unread_data())

    def is_unused(self) -> bool:
        """Return whether nothing has arrived since the connection was taken, unless it is new."""
        return not self._is_kept or not (self._kept or self._has_unread_data())

    @property
    def received(self) -> bytes:
        """The first bytes of a response whose head has not been read."""
        return bytes(self._kept or b"")[:MAX_KEPT_BYTES]

    def response_began(self) -> None:
        """Forget the bytes of the response: aiohttp has read its head."""
        self._kept = None

    def close_after_response(self) -> None:
        """Do not keep the connection."""
        self._protocol.force_close()
        if not self._in_use():
            self._transport.close()

    def _in_use(self) -> bool:
        return self._connection is not None and self._connection.protocol is not None

    def _has_surplus(self) -> bool:
        """Return whether more arrived than the last response, whose end aiohttp has read."""
        if self._in_head:  # it arrived before the request, or its head has no end that is known here
            return True
        return self._left < 0 or (self._left == math.inf and self._last_bytes != _END_OF_CHUNKS)

    def _has_unread_data(self) -> bool:
        """Return whether the socket has data, or its end, that the loop has not read yet."""
        return self._poll is not None and bool(self._poll())

    # ------------------------------------------------------------------------------------------------ asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or connection.protocol is None:  # it is not in use
            self.close_after_response()
            return
        if self._in_head:
            if self._is_whole(data):
                self._in_head, self._left = False, 0
                self._protocol.data_received(data)
                return
            data = self._pass_head(data)
        if data:
            self._left -= len(data)
            self._last_bytes = data[-4:] if len(data) >= 4 else (self._last_bytes + data)[-4:]
            self._protocol.data_received(data)

    def _is_whole(self, data: bytes) -> bool:
        """Return whether the first *data*, which is kept, is a whole response and nothing else: the usual case."""
        kept = self._kept
        if kept is None or kept:
            return False
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        lengths = _CONTENT_LENGTH.findall(data, 0, end)
        # Not the interim response "HTTP/1.1 103 Early Hints".
        if len(lengths) != 1 or not lengths[0].isdigit() or data[9:10] == b"1":
            return False
        if len(data) - end != int(lengths[0]):
            return False
        kept += data
        return True

    def _pass_head(self, data: bytes) -> bytes:
        """
        Pass on the head of the response, if it ends in *data*, and return the rest.

        aiohttp's parser returns no response of which anything is malformed. So it gets the head alone: then a stray
        byte behind the body costs nothing, and a malformed chunk costs only what follows it.
        """
        kept = self._kept
        if kept is None or len(kept) >= MAX_KEPT_BYTES:  # its lines end in LF alone, or it is too large
            return data
        before = passed = len(kept)
        kept += data
        while self._in_head and (found := kept.find(_END_OF_HEAD, max(self._head_start, passed - 3))) >= 0:
            end = found + len(_END_OF_HEAD)
            head = bytes(kept[self._head_start : end]).lstrip()  # an empty line before it is allowed
            if head[9:10] != b"1":  # not the interim response "HTTP/1.1 103 Early Hints"
                self._in_head = False
                if lengths := _CONTENT_LENGTH.findall(head):
                    self._left = int(lengths[0].partition(b",")[0])
                    if (len(lengths) > 1 or b"," in lengths[0]) and passed <= self._head_start:
                        self._protocol.data_received(_with_one_length(head, lengths))
                        self._head_start = passed = end
                        break
                if self._left == len(kept) - end:  # all of it has arrived, and nothing else
                    self._left = len(kept) - passed
                    break
            self._protocol.data_received(bytes(kept[passed:end]))
            self._head_start = passed = end
        return data[passed - before :]

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _BufferedProtocol(WatchedProtocol, asyncio.BufferedProtocol):
    """
    Does the same on a connection without TLS, and receives into *buffer*.

    All connections of an event loop share it: data is copied out of it at once. For a protocol without a buffer,
    asyncio allocates 256 KiB for each read. That costs a fifth of a call while the allocator returns such blocks to the
    system, as glibc's does until the process has freed a larger one, and next to nothing after that. With TLS a buffer
    saves nothing. uvloop has a buffer of its own, and calls `data_received`.
    """

    __slots__ = ("_buffer",)

    def __init__(self, protocol: Any, transport: asyncio.Transport, buffer: memoryview) -> None:
        super().__init__(protocol, transport)
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))


def _with_one_length(head: bytes, lengths: list[bytes]) -> bytes:
    """
    Return *head* with one Content-Length for several that are equal, as RFC 9110 allows; otherwise it is malformed.

    Gateways that are chained add one each, and aiohttp refuses the response, which is paid for.
    """
    values = {int(value) for field in lengths for value in field.split(b",")}
    if len(values) > 1:
        return head
    without = _CONTENT_LENGTH.sub(b"", head).removesuffix(_END_OF_HEAD)
    return b"%b\r\nContent-Length: %d%b" % (without, values.pop(), _END_OF_HEAD)


def _new_poll(transport: asyncio.Transport) -> Callable[[], object] | None:
    """Return a function whose result is true if the socket has data, its end or an error; None without a socket."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return None
    if not hasattr(select, "poll"):  # Windows; elsewhere `select.select` fails for descriptors above 1023
        return partial(_select, connection)
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return partial(poll.poll, 0)


def _select(connection: Any) -> bool:
    try:
        return bool(select.select([connection.fileno()], [], [], 0)[0])
    except (OSError, ValueError):  # it is closed
        return True
