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
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import aiohttp.abc
from aiohttp.http import StreamWriter
import anyio
import attrs

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
    from collections.abc import AsyncGenerator, Callable, Mapping

    from neuralbox_async._options import ConnectionOptions
    from neuralbox_async._seam import Response

# Seconds. Common servers close idle connections after 5, and a POST on a closed one cannot be repeated.
_KEEP_ALIVE = 4.0
_LARGE_BODY = 1024 * 1024  # bytes above which aiohttp wants to write a body in pieces
_READ_SIZE = 64 * 1024
_SMALL_BODY = 16 * 1024
_ALONE = 2  # the first of a burst is alone, too
_CLOSING_TIME = 2.0
_CLOSED = "the client is closed"


@attrs.define(eq=False)
class _Session:
    """aiohttp's session of one loop, what is read through it, and the generator that closes it when the loop ends."""

    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    connector: _Connector
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
        _delivery.set(delivery)
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
            session.connector.sending -= 1
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
            raise ClientClosedError(_CLOSED)
        loop = asyncio.get_running_loop()
        connector = _new_connector(self._options, partial(_new_socket, self._sockets))
        session = _Session(loop, _new_http_session(self._options, connector), connector, set())
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

_delivery: ContextVar[Delivery] = ContextVar("neuralbox_delivery")


def _new_connector(options: ConnectionOptions, socket_factory: Any) -> _Connector:
    connector = _Connector(
        limit=options.max_connections,
        resolver=_Resolver(options.connect_timeout),
        socket_factory=socket_factory,
        keepalive_timeout=_KEEP_ALIVE if options.reuse_connections else None,
        force_close=not options.reuse_connections,
    )
    if options.proxy is not None:
        connector.proxy_timeout = options.connect_timeout
    return connector


def _new_http_session(options: ConnectionOptions, connector: _Connector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        # The deadline is the client's own: aiohttp's total kills healthy streams and can swallow a cancellation.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout, ceil_threshold=math.inf),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        read_bufsize=_READ_SIZE,
        request_class=_Request,
    )


class _Request(aiohttp.ClientRequest):
    """
    Writes the body of a request that is the only one at once, where aiohttp makes a task of it: a tenth of a call.

    With others on their way that would be dearer: tasks write one after the other, and the server is woken once for all.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        body, protocol, connector = self._body, conn.protocol, self.session.connector
        if (
            type(body) is not aiohttp.BytesPayload
            or body.size > _SMALL_BODY
            or not isinstance(connector, _Connector)
            or connector.alone < _ALONE
            or protocol is None
            or protocol.writing_paused
        ):
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        self.response = self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self.session,
            stream_writer=writer,
        )
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await self.write_bytes(writer, conn)  # waits for nothing: that much always fits into the socket's buffer
        return self.response


class _Connector(aiohttp.TCPConnector):
    """Notes when a connection takes the request; before that nothing has left the machine."""

    # aiohttp's own way to learn it, a TraceConfig, costs 16 us a call.

    proxy_timeout: float | None = None
    sending = 0  # requests whose answers have not begun
    alone = 0  # how many in a row, the last included, were the only one

    def begin(self) -> None:
        """Note that a request begins."""
        self.sending += 1
        self.alone = self.alone + 1 if self.sending == 1 else 0

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        delivery = _delivery.get()
        delivery.stage = "connecting"
        connect = super().connect if self.proxy_timeout is None else self._connect_to_proxy
        try:
            connection = await connect(*args, **kwargs)
            while connection.protocol is not None and connection.protocol.should_close:
                # Something came while it was idle (a gateway's 408, say): it would be taken for our answer.
                connection.close()
                connection = await connect(*args, **kwargs)
        except asyncio.CancelledError:
            # A connector that closes cancels those who wait for a connection, as if their callers had been.
            if self.closed and not _is_cancelled():
                raise aiohttp.ClientConnectionError(_CLOSED) from None
            raise
        delivery.stage = "sent"
        _read_less_at_a_time(connection.transport)
        return connection

    async def _connect_to_proxy(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        # The wait for a proxy's answer to CONNECT has no other clock.
        async with asyncio.timeout(self.proxy_timeout):
            return await super().connect(*args, **kwargs)


def _read_less_at_a_time(transport: Any) -> None:
    # For each read asyncio has memory for 256 KiB allocated, which the allocator takes from the system and gives back:
    # a tenth of a call. (uvloop reads otherwise, and has no such attribute.)
    if getattr(transport, "max_size", 0) > _READ_SIZE:
        transport.max_size = _READ_SIZE


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Resolver(aiohttp.abc.AbstractResolver):
    """
    Looks names up, each in a daemon thread of its own.

    A look-up that is stuck cannot be ended. In the default executor, and in anyio's threads, it would delay the end of
    the program by as long as it takes.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        with anyio.fail_after(self._timeout):
            found = await _in_daemon_thread(partial(_look_up, host, port, family))
        return [
            aiohttp.abc.ResolveResult(
                hostname=host, host=at[0], port=at[1], family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, at in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _in_daemon_thread(function: Callable[[], list[Any]]) -> list[Any]:
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any], error: Exception | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result: list[Any] = []
        failure: Exception | None = None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it is raised where the outcome is awaited
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="neuralbox-resolver", daemon=True).start()
    return await outcome


def _look_up(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(
        host, port, family=socket.AddressFamily(family), type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )


def _new_socket(made: weakref.WeakSet[socket.socket], address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    connection = socket.socket(family, kind, protocol)
    connection.setblocking(False)  # noqa: FBT003 - the standard library's
    _keep_alive(connection)
    made.add(connection)
    return connection


def _keep_alive(connection: socket.socket) -> None:
    # A peer that vanished without a word is noticed after 60 + 5 * 60 s, even by a call without a timeout.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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
                raise ResponseError(msg, body=self.received[:_READ_SIZE], status=self.status, headers=self.headers)
        return self.received[:limit]

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        if self._failure is not None:
            raise self._failure
        self._watch()
        patience = self._patience = self._patience or _Patience(self)
        patience.begin(deadline)
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

    def _watch(self) -> None:
        """
        Have the reader woken when the connection is lost.

        aiohttp does so itself, but for a malformed chunk: then it closes the connection and forgets the reader.
        """
        connection = self._raw.connection
        if self._lost is not None or connection is None or connection.protocol is None:
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

    def begin(self, ends_at: float) -> None:
        """Note that the reader begins to wait, until *ends_at*."""
        self.ends_at = ends_at
        if ends_at < self.moment:
            self.unset()
            self.moment = ends_at
            self.set()

    def ring(self) -> None:
        self.moment = math.inf
        if self.ends_at <= now():
            self._response.close_late()
        else:
            self.begin(self.ends_at)


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
