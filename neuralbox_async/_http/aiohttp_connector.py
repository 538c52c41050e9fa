"""aiohttp's sessions, connections and sockets, configured for this SDK."""

from __future__ import annotations

import asyncio
import math
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import attrs

from neuralbox_async._clock import clock
from neuralbox_async._http import request_writer
from neuralbox_async._http.resolver import DaemonThreadResolver
from neuralbox_async._http.transport import CLIENT_CLOSED
from neuralbox_async._http.watched_protocol import BUFFER_SIZE, WatchedProtocol
from neuralbox_async._options import check_stays_on_this_machine, refuses_other_machines
from neuralbox_async._secret import Secret

if TYPE_CHECKING:
    import weakref
    from collections.abc import Mapping, Sequence

    from yarl import URL

    from neuralbox_async._http.transport import HTTPRequest
    from neuralbox_async._options import ConnectionOptions

READ_SIZE = 64 * 1024  # bytes
# Seconds. Common servers close idle connections after 5, and a POST on a closed one cannot be retried.
_KEEP_ALIVE = 4.0

# Generous bounds: a response whose head is larger is lost, and it may be paid for.
_MAX_HEADER_BYTES = 64 * 1024  # of each field
RESPONSE_LIMITS: dict[str, Any] = {
    "read_bufsize": READ_SIZE,
    "max_line_size": _MAX_HEADER_BYTES,
    "max_field_size": _MAX_HEADER_BYTES,
    "max_headers": 1000,
}

MASK = "***"
_KEY_IS_READABLE = "plain http would show the key (allow_insecure=True lifts this)"


@attrs.define(eq=False, repr=False)
class Exchange:
    """
    The attempt of the running task, and the protocol of the connection that took it.

    *secrets*: the headers that only the connection gets. What records, traces or mocks aiohttp's sessions sees `MASK`.
    """

    request: HTTPRequest
    secrets: Mapping[str, str]
    protocol: WatchedProtocol | None = None  # None: no connection took it, or the session is a mock

    def may_write(self) -> bool:
        """Return whether the request may be written; otherwise its connection was closed, or has unexpected data."""
        if self.protocol is None or self.protocol.is_unused():
            return True
        self.request.stage = "connecting"  # it is not sent
        return False


def hide_secrets(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return *headers* with `MASK` in place of secrets, and those secrets."""
    hidden, secrets = dict(headers), dict[str, str]()
    for name, value in headers.items():
        if type(value) is Secret:
            secrets[name] = value
            hidden[name] = MASK
    return hidden, secrets


# aiohttp passes nothing from a request to the connector.
current_exchange: ContextVar[Exchange] = ContextVar("neuralbox_exchange")


def new_connector(options: ConnectionOptions, socket_factory: Any) -> Connector:
    """Return a connector whose sockets *socket_factory* makes."""
    local = refuses_other_machines()
    loopback_only = "NEURALBOX_LOOPBACK_ONLY is set" if local else _KEY_IS_READABLE if options.loopback_only else None
    connector = (LocalConnector if local else Connector)(
        limit=options.max_connections,
        resolver=DaemonThreadResolver(options.connect_timeout, loopback_only=loopback_only),
        socket_factory=socket_factory,
        keepalive_timeout=_KEEP_ALIVE if options.reuse_connections else None,
        force_close=not options.reuse_connections,
    )
    if options.proxy is not None:
        connector.proxy_timeout = options.connect_timeout
    return connector


def new_http_session(options: ConnectionOptions, connector: Connector) -> aiohttp.ClientSession:
    """Return a session with aiohttp's own timeouts, cookies and environment reading switched off."""
    return aiohttp.ClientSession(
        connector=connector,
        # The deadline is the client's own: aiohttp's total kills healthy streams and can swallow a cancellation.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout, ceil_threshold=math.inf),
        cookie_jar=NoCookies(),
        trust_env=False,
        auto_decompress=False,  # a damaged body would be lost
        **RESPONSE_LIMITS,
    )


class NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Do not even parse them: aiohttp logs malformed ones, which may echo the key."""


class Connector(aiohttp.TCPConnector):
    """Records in the `HTTPRequest` of the running task when a connection takes it: before that nothing is sent."""

    # aiohttp's own way to learn of a connection, a TraceConfig, costs 16 us a call.

    proxy_timeout: float | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] - of aiohttp's options
        self.writes = request_writer.WriteBatch()
        self._time = clock()
        self._buffer = memoryview(bytearray(BUFFER_SIZE))

    async def connect(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = current_exchange.get()
        exchange.request.stage = "connecting"
        exchange.protocol = None
        connect = super().connect if self.proxy_timeout is None else self._connect_to_proxy
        try:
            connection = await connect(req, *args, **kwargs)
            while (protocol := WatchedProtocol.of(connection, self._buffer)) is None:
                # The server closed it, or data arrived while it was idle (a gateway's 408, say), which would be read as
                # the response.
                connection.close()
                connection = await connect(req, *args, **kwargs)
            if exchange.request.deadline <= self._time():
                # The loop was blocked, or the process stopped. Sent now, the request would be billed, and cancelled.
                connection.close()
                msg = "the deadline expired before the request was sent"
                raise aiohttp.ConnectionTimeoutError(msg)
        except asyncio.CancelledError:
            # A connector that closes cancels the tasks that wait for a connection, as if their callers had done it.
            if self.closed and not _is_cancelled():
                raise aiohttp.ClientConnectionError(CLIENT_CLOSED) from None
            raise
        req.headers.update(exchange.secrets)
        if isinstance(req, request_writer.RequestWriter):
            req.batch, req.may_write = self.writes, exchange.may_write
        exchange.protocol = protocol
        exchange.request.stage = "sent"
        return connection

    async def _connect_to_proxy(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        # The wait for a proxy's response to CONNECT has no other timeout.
        with anyio.fail_after(self.proxy_timeout):
            return await super().connect(*args, **kwargs)


class LocalConnector(Connector):
    """Raises `InvalidParameterError` instead of a connection that leaves this machine."""

    # Here, not where the client is created: mocks and recorders of aiohttp open no connection.

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Any:
        check_stays_on_this_machine(str(req.url.origin()), None if req.proxy is None else str(req.proxy))
        return await super().connect(req, *args, **kwargs)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def new_socket(sockets: weakref.WeakSet[socket.socket], address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for *address* (an item of `socket.getaddrinfo`) and add it to *sockets*."""
    family, socket_type, protocol, *_ = address
    connection = socket.socket(family, socket_type, protocol)
    connection.setblocking(False)  # noqa: FBT003 - the standard library's
    _keep_alive(connection)
    sockets.add(connection)
    return connection


def _keep_alive(connection: socket.socket) -> None:
    # A peer that disappears silently is noticed after 60 + 5 * 60 s, also by a call without a timeout.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
