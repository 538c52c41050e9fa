"""The daemon thread that a local server lives in, with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.web_protocol import RequestHandler

    from neuralbox_async.testing._api import API


class _Connections(web.Server):
    """aiohttp's low-level server, which also tells when a connection comes and goes."""

    def __init__(self, api: API, *, max_body: int, keepalive_timeout: float) -> None:
        super().__init__(
            api.handle,
            request_factory=self._request,
            # A generation goes on when its client has gone, unless the settings say otherwise: see `Generating.wait`.
            handler_cancellation=False,
            access_log=None,
            keepalive_timeout=keepalive_timeout,
            # Unread bodies are not worth waiting for on loopback.
            lingering_time=0.0,
        )
        self._api = api
        self._max_body = max_body
        self.open: dict[object, asyncio.Transport] = {}
        self.accepted = 0

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self.accepted += 1
        self.open[handler] = transport
        super().connection_made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self.open.pop(handler, None)
        self._api.connection_lost(handler)
        super().connection_lost(handler, exc)

    async def abort(self) -> None:
        """Close every connection at once, and see it closed."""
        while self.open:
            for transport in self.open.values():
                transport.abort()
            # Transports say goodbye in the next turn of the loop; one accepted just now appears then.
            await asyncio.sleep(0)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body)


class ServerThread:
    """Serves *api* on *host* and *port* from `start` until `stop`. *port* is the real one once `is_ready`."""

    def __init__(self, api: API, host: str, port: int, *, max_body: int, keepalive_timeout: float) -> None:
        self.port = port
        self.failure: BaseException | None = None
        self._api = api
        self._host = host
        self._max_body = max_body
        self._keepalive_timeout = keepalive_timeout
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._connections: _Connections | None = None
        self._thread = threading.Thread(target=self._run, name="NeuralBoxServer", daemon=True)
        self.is_ready = False
        self._is_stopping = False

    @property
    def connections(self) -> int:
        """Connections open now."""
        return 0 if self._connections is None else len(self._connections.open)

    @property
    def connections_accepted(self) -> int:
        """Connections accepted since the start."""
        return 0 if self._connections is None else self._connections.accepted

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs; never in a forked child."""
        return self._thread.is_alive() and self._process == os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller is this thread."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start; `is_ready` or `failure` tells how it went."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end: idempotent, from any thread, without waiting. In a forked child it does nothing."""
        self._is_stopping = True
        # A loop not yet there will find the flag; one just closed needs no word any more.
        if self._loop is not None and self._stop is not None and self.is_alive:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for the end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            # The plain loop whatever policy the process has: this is the other side of the user's code.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that starts the server
            self.failure = error

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        connections = _Connections(self._api, max_body=self._max_body, keepalive_timeout=self._keepalive_timeout)
        self._connections = connections
        listener = await self._loop.create_server(connections, self._host, self.port)
        try:
            self.port = listener.sockets[0].getsockname()[1]
            self.is_ready = True
            if not self._is_stopping:
                await self._stop.wait()
        finally:
            await _stop_accepting(listener)
            await connections.abort()
            listener.close()


async def _stop_accepting(listener: asyncio.Server) -> None:
    """Accept no more connections, and wait until those being accepted have reached their protocols.

    asyncio loses a connection whose listener is closed, or whose task is cancelled, in the turns of the loop between
    its acceptance and `connection_made`: its socket stays open, and its client waits.
    """
    for listening in listener.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
