"""aiohttp's sessions, connections and requests as we have them: how names are looked up and bodies are written."""

from __future__ import annotations

import asyncio
import inspect
import math
import socket
import threading
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import aiohttp.abc
import anyio
from aiohttp.http import StreamWriter

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from neuralbox_async._options import ConnectionOptions
    from neuralbox_async._seam import Delivery

READ_SIZE = 64 * 1024  # bytes
CLOSED = "the client is closed"
# Seconds. Common servers close idle connections after 5, and a POST on a closed one cannot be repeated.
_KEEP_ALIVE = 4.0
_SMALL = 16 * 1024  # bytes of head and body that always fit into a socket's buffer
_ALONE = 2  # the first of a burst is alone, too

# How far the attempt of the running task got: aiohttp hands nothing from a request to the connector.
current_delivery: ContextVar[Delivery] = ContextVar("neuralbox_delivery")


def new_connector(options: ConnectionOptions, socket_factory: Any) -> Connector:
    """Return a connector that has its sockets made by *socket_factory*."""
    connector = Connector(
        limit=options.max_connections,
        resolver=_Resolver(options.connect_timeout),
        socket_factory=socket_factory,
        keepalive_timeout=_KEEP_ALIVE if options.reuse_connections else None,
        force_close=not options.reuse_connections,
    )
    if options.proxy is not None:
        connector.proxy_timeout = options.connect_timeout
    return connector


def new_http_session(options: ConnectionOptions, connector: Connector) -> aiohttp.ClientSession:
    """Return a session that does no more than is needed here."""
    # As aiohttp would make it, where a request says more than `Request` knows of.
    plain = options.proxy is None and options.reuse_connections and _makes_responses_as_known()
    return aiohttp.ClientSession(
        connector=connector,
        # The deadline is the client's own: aiohttp's total kills healthy streams and can swallow a cancellation.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout, ceil_threshold=math.inf),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        read_bufsize=READ_SIZE,
        request_class=Request if plain else aiohttp.ClientRequest,
    )


class Request(aiohttp.ClientRequest):
    """
    Writes what is small without a task of its own: a tenth of a call.

    At once where requests come one by one; those that come together are written together, in the loop's next round, as
    aiohttp's tasks would do it: one after the other, interrupted by answers, they wake the server for each.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        body, protocol, connector = self._body, conn.protocol, self.session.connector
        if (
            type(body) is not aiohttp.BytesPayload
            or (body.size or 0) + sum(map(len, self.headers.values())) > _SMALL
            or self._continue is not None  # "Expect: 100-continue", which takes two steps
            or not isinstance(connector, Connector)
            or protocol is None
            or protocol.writing_paused
        ):
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        response = self.response_class(
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
        if connector.alone >= _ALONE:
            await self.write_bytes(writer, conn)  # waits for nothing
        else:
            connector.write_soon(partial(self._write_now, writer, conn), self.loop)
        return response

    def _write_now(self, writer: StreamWriter, conn: aiohttp.connector.Connection) -> None:
        if conn.protocol is None:
            return  # nobody waits for the answer any more
        try:
            self.write_bytes(writer, conn).send(None)
        except StopIteration:
            return  # it is written
        except Exception:  # noqa: BLE001, S110 - whatever it is, the reader is told by the connection that closes
            pass
        except BaseException:  # a signal's handler raised
            conn.close()
            raise
        conn.close()


def _makes_responses_as_known() -> bool:
    facts = {"writer", "continue100", "timer", "request_info", "traces", "loop", "session", "stream_writer"}
    return set(inspect.signature(aiohttp.ClientResponse).parameters) == {"method", "url", *facts}


class Connector(aiohttp.TCPConnector):
    """
    Notes when a connection takes the request; before that nothing has left the machine.

    Counts those on their way, and writes what comes together.
    """

    # aiohttp's own way to learn of a connection, a TraceConfig, costs 16 us a call.

    proxy_timeout: float | None = None
    sending = 0  # requests whose answers have not begun
    alone = 0  # how many in a row, the last included, were the only one

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] - of aiohttp's options
        self._unwritten: deque[Callable[[], None]] = deque()

    def begin(self) -> None:
        """Note that a request begins."""
        self.sending += 1
        self.alone = self.alone + 1 if self.sending == 1 else 0

    def end(self) -> None:
        """Note that its answer began, or never will."""
        self.sending -= 1

    def write_soon(self, write: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call *write* in the next round of *loop*, together with those of others."""
        if not self._unwritten:
            loop.call_soon(self._write_all, loop)
        self._unwritten.append(write)

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._unwritten:
                self._unwritten.popleft()()
        finally:
            if self._unwritten:  # a signal's handler raised
                loop.call_soon(self._write_all, loop)

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        delivery = current_delivery.get()
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
                raise aiohttp.ClientConnectionError(CLOSED) from None
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
    if getattr(transport, "max_size", 0) > READ_SIZE:
        transport.max_size = READ_SIZE


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


def new_socket(made: weakref.WeakSet[socket.socket], address: tuple[Any, ...]) -> socket.socket:
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
