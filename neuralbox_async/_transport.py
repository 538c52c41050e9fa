"""
aiohttp behind the seam `Transport`: the only I/O, and the only place that knows aiohttp.

aiohttp's errors become ours here, each with what is known of whether the request left the machine. A session belongs to
its event loop, so there is one per loop, made when the first request needs it and closed when that loop ends.

This module is loaded with the first call: aiohttp takes longer to load than all else together.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import socket
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import aiohttp
import anyio
import attrs

from neuralbox_async._connections import (
    CLOSED,
    READ_SIZE,
    Connector,
    current_delivery,
    new_connector,
    new_http_session,
    new_socket,
)
from neuralbox_async._errors import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    NeuralBoxError,
    ResponseError,
    StreamStateError,
)
from neuralbox_async._seam import Alarm, Delivery, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from neuralbox_async._options import ConnectionOptions
    from neuralbox_async._seam import Response

_LARGE_BODY = 1024 * 1024  # bytes above which aiohttp wants to write a body in pieces
_CLOSING_TIME = 2.0


@attrs.define(eq=False)
class _Session:
    """aiohttp's session of one loop, what is read through it, and the generator that closes it when the loop ends."""

    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    connector: Connector
    responses: set[_AiohttpResponse]  # those whose body is not read yet
    keeper: AsyncGenerator[None] | None = None


class AiohttpTransport:
    """A `Transport` on aiohttp: for asyncio (uvloop included), for any number of loops, in any number of threads."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._inherited: list[object] = []
        self.closed = False

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, delivery: Delivery
    ) -> Response:
        session = self._sessions.get(asyncio.get_running_loop()) or await self._open_session()
        proxy_headers = self._options.proxy_headers
        if proxy_headers and url.startswith("http:"):
            headers = {**headers, **proxy_headers}  # aiohttp sends them with CONNECT only
        current_delivery.set(delivery)
        session.connector.begin()
        try:
            raw = await session.http.request(
                method,
                url,
                data=io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body,
                headers=headers,
                allow_redirects=False,
                proxy=self._options.proxy,
                proxy_headers=proxy_headers,
                ssl=self._options.ssl_context or True,
            )
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise self._translated(error, delivery) from error.with_traceback(None)
        finally:
            session.connector.end()
        delivery.stage = "sent"
        return _AiohttpResponse(raw, session.responses)

    async def aclose(self) -> None:
        with self._lock:
            self.closed = True
            sessions, self._sessions = self._sessions, {}
        here = asyncio.get_running_loop()
        for loop, session in sessions.items():
            if loop is here:
                with anyio.move_on_after(_CLOSING_TIME, shield=True):
                    await _close_session(session)
            elif not loop.is_closed():
                with suppress(RuntimeError):  # it may close between the question and the call
                    loop.call_soon_threadsafe(_close_from_its_loop, session)

    def forget_inherited(self) -> None:
        """
        In a forked child: give up all sessions of the parent without touching the parent's connections.

        Closing them here would tell the server, and the parent's epoll, so their descriptors are made to point at a
        dead socket, and the objects are kept for ever. Synchronous; only right after a fork.
        """
        self._lock = threading.Lock()
        self._inherited.append(self._sessions)
        self._sessions = {}
        ours, theirs = socket.socketpair()
        theirs.close()
        for inherited in list(self._sockets):
            if inherited.fileno() >= 0:
                os.dup2(ours.fileno(), inherited.fileno())
        ours.close()
        self._sockets = weakref.WeakSet()

    async def _open_session(self) -> _Session:
        if self.closed:
            raise ClientClosedError(CLOSED)
        loop = asyncio.get_running_loop()
        connector = new_connector(self._options, partial(new_socket, self._sockets))
        session = _Session(loop, new_http_session(self._options, connector), connector, set())
        # A generator that has begun is closed by its loop when that ends (asyncio.run, anyio.run, pytest-asyncio do
        # that), and with it the session: no warning, no task of ours, in however many loops one client is used.
        # It holds no reference back: a client that is dropped is then freed at once, which closes this as well.
        session.keeper = _keep(session.http, session.responses)
        await anext(session.keeper)
        with self._lock:
            for dead in [other for other in self._sessions if other.is_closed()]:
                del self._sessions[dead]
            self._sessions[loop] = session
        return session

    def _translated(self, error: Exception, delivery: Delivery) -> NeuralBoxError:
        return ClientClosedError.when("during", sent=delivery.sent) if self.closed else translated(error, delivery)


# ------------------------------------------------------------------------------------------------- sessions of a loop


async def _keep(http: aiohttp.ClientSession, responses: set[_AiohttpResponse]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await _close(http, responses)


async def _close(http: aiohttp.ClientSession, responses: set[_AiohttpResponse]) -> None:
    # The session alone would leave their readers waiting for ever.
    for response in list(responses):
        response.close_under_reader()
    await http.close()


async def _close_session(session: _Session) -> None:
    await _close(session.http, session.responses)
    if session.keeper is not None:
        # Nothing is left to await, so that it ends at once, and cannot be met half-way by a loop that ends; unless it
        # is being closed by that already.
        with suppress(StopIteration, RuntimeError):
            session.keeper.aclose().send(None)


def _close_from_its_loop(session: _Session) -> None:
    task = session.loop.create_task(_close_session(session))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


# ---------------------------------------------------------------------------------------------------------- responses


class _AiohttpResponse:
    def __init__(self, raw: aiohttp.ClientResponse, unread: set[_AiohttpResponse]) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self._raw = raw
        self._unread = unread
        self._closed: str | None = None  # by whom: "us", "deadline", "client"
        self._failure: NeuralBoxError | None = None
        self._received: list[bytes] = []
        self._lost: asyncio.Future[None] | None = None
        self._patience: _Patience | None = None
        unread.add(self)

    @property
    def received(self) -> bytes:
        return self._received[0] if len(self._received) == 1 else b"".join(self._received)

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        content = self._raw.content
        if content.is_eof() and content.exception() is None and content.total_bytes <= limit:
            # The usual case: it came together with its head.
            self._received.append(content.read_nowait())
            if content.at_eof():
                self._end()
                return self.received
        size = sum(map(len, self._received))
        while chunk := await self.read_chunk():
            self._received.append(chunk)
            size += len(chunk)
            if size > limit:
                self.close()
                if truncate:
                    break
                msg = f"the response body is larger than {limit:,} bytes (max_response_bytes)"
                raise ResponseError(msg, body=self.received[:READ_SIZE], status=self.status, headers=self.headers)
        return self.received[:limit]

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._lost is None:
            self._watch()
        patience = self._patience or self._new_patience()
        patience.ends_at = deadline
        if deadline < patience.moment:
            patience.ring_at(deadline)
        try:
            chunk = await self._raw.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._failure = self._translated(error)
            self._raw.close()
            self._end()
            if chunk := self._salvaged():
                return chunk
            raise self._failure from error.with_traceback(None)
        finally:
            patience.ends_at = math.inf
        if not chunk:
            self._end()
        return chunk

    def _new_patience(self) -> _Patience:
        self._patience = patience = _Patience(self)
        return patience

    def _watch(self) -> None:
        """
        Have the reader woken when the connection is lost.

        aiohttp does so itself, but for a malformed chunk: then it closes the connection and forgets the reader.
        """
        connection = self._raw.connection
        if connection is None or connection.protocol is None:
            return
        self._lost = connection.protocol.closed
        if self._lost is None:
            self._wake_reader()
            return
        if self._lost not in _watched:
            _watched.add(self._lost)
            self._lost.add_done_callback(_look_at)
        self._lost.add_done_callback(self._wake_reader)

    def _wake_reader(self, _lost: object = None) -> None:
        content = self._raw.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed in the middle of the body"))

    def _end(self) -> None:
        """Let go: the body has been read, or never will be."""
        self._unread.discard(self)
        if self._patience is not None:
            self._patience.unset()
            self._patience = None
        if self._lost is not None:
            self._lost.remove_done_callback(self._wake_reader)

    def _salvaged(self) -> bytes:
        # aiohttp raises a connection's failure before the bytes that had arrived, which have been paid for.
        content = self._raw.content
        content.set_exception(cast("BaseException", None))
        return content.read_nowait()

    def _translated(self, error: Exception) -> NeuralBoxError:
        if self._closed == "deadline":
            return APITimeoutError("no data came in time", phase="stall", request_sent=True)
        if self._closed == "client":
            return ClientClosedError.when("during")
        if self._closed == "us":
            return StreamStateError.closed()
        return translated(error, _SENT)

    def close(self) -> None:
        self._close_by("us")

    def close_late(self) -> None:
        """Close because nothing came in time."""
        self._close_by("deadline")

    def close_under_reader(self) -> None:
        """Close because the client closes."""
        self._close_by("client")

    def _close_by(self, who: str) -> None:
        # A connection that was switched to another protocol is kept although there is no body.
        if self._closed is None and (not self._raw.content.at_eof() or self._raw.connection is not None):
            self._closed = who
            self._raw.close()
        self._end()


class _Patience(Alarm):
    """Closes the connection under a reader that waits beyond *ends_at*."""

    # Set once for many waits: when it rings, and the reader has meanwhile begun another wait, it is set again. An alarm
    # for each wait takes 5 % of an event of a live stream, a scope that cancels the reader 15 to 60 %.
    __slots__ = ("_response", "ends_at")

    def __init__(self, response: _AiohttpResponse) -> None:
        super().__init__(math.inf)
        self._response = response
        self.ends_at = math.inf

    def ring_at(self, moment: float) -> None:
        """Set it to *moment*, which is before the one that it is set to."""
        self.unset()
        self.moment = moment
        self.set()

    def ring(self) -> None:
        self.moment = math.inf
        if self.ends_at <= now():
            self._response.close_late()
        else:
            self.ring_at(self.ends_at)


_watched: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()


def _look_at(lost: asyncio.Future[None]) -> None:
    if not lost.cancelled():
        lost.exception()  # asyncio complains of exceptions that nobody has looked at


_SENT = Delivery()
_SENT.stage = "sent"


# ------------------------------------------------------------------------------------------------------------- errors


def translated(error: Exception, delivery: Delivery) -> APIConnectionError:  # noqa: PLR0911 - a table
    """Return our error for one that aiohttp raised: what happened, whether it was sent, whether repeating can help."""
    reason = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientHttpProxyError():
            retryable = error.status >= 500
            return APIConnectionError(f"the proxy refused: {error.status} {error.message}", retryable=retryable)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return APIConnectionError(f"no trusted connection: {reason}", retryable=False)
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError(os_error=TimeoutError()) if (
            not delivery.sent
        ):
            return APITimeoutError("no connection in time", phase="connect")
        case aiohttp.ClientConnectorError():
            return APIConnectionError(f"no connection: {reason}")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return APIConnectionError(f"no usable URL: {reason}", retryable=False)
        case aiohttp.ClientResponseError():
            # What aiohttp raises for malformed heads, with a status of 400 that is not the API's.
            # (Or as a proxy's answer to CONNECT: then nothing has been forwarded.)
            sent = delivery.stage != "connecting"
            return APIConnectionError(f"the answer is not HTTP: {error.message}", request_sent=sent)
        case _:
            pass
    # A mocked session never gets as far as a connection: then the error alone tells, and it says that something was
    # sent.
    sent = delivery.stage != "connecting"
    return APIConnectionError(f"the connection broke before the answer was complete: {reason}", request_sent=sent)
