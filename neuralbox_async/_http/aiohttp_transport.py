"""
The `Transport` on aiohttp: the only I/O of the SDK.

aiohttp's errors become ours here, each with the knowledge of whether the request left the machine. A session belongs to
its event loop: there is one for each loop, made by the first request there and closed when that loop ends.

This module is loaded with the first call: aiohttp takes longer to load than everything else together.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import anyio
import attrs

from neuralbox_async._errors import ClientClosedError, NeuralBoxError
from neuralbox_async._http.aiohttp_connector import (
    Connector,
    Exchange,
    current_exchange,
    hide_secrets,
    new_connector,
    new_http_session,
    new_socket,
)
from neuralbox_async._http.aiohttp_response import AiohttpResponse, new_response, translate
from neuralbox_async._http.direct_sender import DirectSender, new_direct_sender
from neuralbox_async._http.transport import CLIENT_CLOSED, CLOSED_DURING_CALL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from neuralbox_async._http.transport import HTTPRequest, Response
    from neuralbox_async._options import ConnectionOptions

_LARGE_BODY = 1024 * 1024  # bytes above which aiohttp warns unless a body is a file
_CLOSE_TIMEOUT = 2.0


@attrs.define(eq=False)
class _Session:
    """aiohttp's session of one loop, its unread responses, and the generator that closes it when the loop ends."""

    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    connector: Connector
    unread: set[AiohttpResponse]
    direct_sender: DirectSender | None
    closer: AsyncGenerator[None] | None = None


class AiohttpTransport:
    """A `Transport` on aiohttp: for asyncio (uvloop included), for any number of loops in any number of threads."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._inherited: list[object] = []
        self.closed = False
        _transports.add(self)

    async def send(self, request: HTTPRequest) -> Response:
        session = self._sessions.get(asyncio.get_running_loop()) or await self._open_session()
        headers, body, proxy_headers = request.headers, request.body, self._options.proxy_headers
        if proxy_headers and request.url.startswith("http:"):
            headers = {**headers, **proxy_headers}  # aiohttp sends them with CONNECT only
        headers, secrets = hide_secrets(headers)
        exchange = Exchange(request, secrets)
        current_exchange.set(exchange)
        session.connector.writes.request_started()
        try:
            sender = session.direct_sender
            plain = None if sender is None else sender.new_request(request.method, request.url, headers, body)
            if sender is not None and plain is not None:
                raw = await sender.send(plain)
            else:
                raw = await session.http.request(
                    request.method,
                    request.url,
                    data=io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._options.proxy,
                    proxy_headers=proxy_headers,
                    ssl=self._options.ssl_context or True,
                )
        except NeuralBoxError:  # of `LocalConnector`
            raise
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise self._translate(error, request, exchange) from error.with_traceback(None)
        finally:
            session.connector.writes.request_ended()
            del exchange.request  # the contexts of tasks and connections keep the exchange
        request.stage = "sent"
        if exchange.protocol is not None:
            exchange.protocol.response_began()
            if raw.status == 408:
                # It may be the response to an idle connection, and another one may follow for this request.
                exchange.protocol.close_after_response()
        return new_response(raw, session.unread)

    async def aclose(self) -> None:
        with self._lock:
            self.closed = True
            sessions, self._sessions = self._sessions, {}
        here = asyncio.get_running_loop()
        for loop, session in sessions.items():
            if loop is here:
                with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                    await _close_session(session)
            elif not loop.is_closed():
                with suppress(RuntimeError):  # it may close between the check and the call
                    loop.call_soon_threadsafe(_close_in_its_loop, session)

    def reset_after_fork(self) -> None:
        """
        In a forked child: drop all sessions of the parent without touching the parent's connections.

        To close them here would notify the server, and the parent's epoll. So their descriptors are pointed at a dead
        socket, and the objects are kept alive.
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
            raise ClientClosedError(CLIENT_CLOSED)
        loop = asyncio.get_running_loop()
        connector = new_connector(self._options, partial(new_socket, self._sockets))
        http = new_http_session(self._options, connector)
        sender = new_direct_sender(http, connector, loop, self._options)
        session = _Session(loop, http, connector, set(), sender)
        # A started generator is closed by its loop when that ends (asyncio.run, anyio.run and pytest-asyncio do so),
        # and the session with it: no warning and no task of ours, in any number of loops. It holds no reference to the
        # transport: a client that is dropped is freed at once, which closes the generator as well.
        session.closer = _close_at_loop_end(session.http, session.unread)
        await anext(session.closer)
        with self._lock:
            for dead in [other for other in self._sessions if other.is_closed()]:
                del self._sessions[dead]
            self._sessions[loop] = session
        return session

    def _translate(self, error: Exception, request: HTTPRequest, exchange: Exchange) -> NeuralBoxError:
        if self.closed:
            return ClientClosedError(CLOSED_DURING_CALL, request_sent=request.sent)
        translated = translate(error, request.stage)
        if exchange.protocol is not None:
            translated.body = exchange.protocol.received
        return translated


_transports: weakref.WeakSet[AiohttpTransport] = weakref.WeakSet()


def _reset_all_after_fork() -> None:
    for transport in list(_transports):
        transport.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)


async def _close_at_loop_end(http: aiohttp.ClientSession, unread: set[AiohttpResponse]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await _close(http, unread)


async def _close(http: aiohttp.ClientSession, unread: set[AiohttpResponse]) -> None:
    # The session alone would leave the readers of its responses waiting indefinitely.
    for response in list(unread):
        response.close_for_client()
    await http.close()


async def _close_session(session: _Session) -> None:
    await _close(session.http, session.unread)
    if session.closer is not None:
        # Nothing is left to await, so it ends at once; unless the end of the loop is closing it already.
        with suppress(StopIteration, RuntimeError):
            session.closer.aclose().send(None)


def _close_in_its_loop(session: _Session) -> None:
    task = session.loop.create_task(_close_session(session))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()
