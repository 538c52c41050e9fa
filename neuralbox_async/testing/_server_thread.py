"""The daemon thread of a local server, with its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from neuralbox_async.testing._api import API

logger = logging.getLogger("neuralbox.testing")


class _HTTPServer(web.Server):
    """aiohttp's low-level server, which also tracks connections.

    It uses public names of aiohttp only. Arguments that it does not use are passed on: their number may grow in a
    later release of aiohttp.
    """

    def __init__(self, api: API, *, keepalive_timeout: float) -> None:
        super().__init__(
            api.handle,
            # A generation continues after its client disconnects, unless the settings prevent it: see
            # `GenerationHandler.wait`.
            handler_cancellation=False,
            access_log=None,
            keepalive_timeout=keepalive_timeout,
            # Do not wait for the rest of a body: on loopback it is never useful.
            lingering_time=0.0,
        )
        self._api = api
        self._create_request = self.request_factory
        self.request_factory = self._create_request_or_close
        self.transports: dict[object, asyncio.Transport] = {}
        self.accepted = 0

    def connection_made(
        self, handler: web.RequestHandler, transport: asyncio.Transport, *args: Any, **kwargs: Any
    ) -> None:
        self.accepted += 1
        self.transports[handler] = transport
        super().connection_made(handler, transport, *args, **kwargs)

    def connection_lost(self, handler: web.RequestHandler, *args: Any, **kwargs: Any) -> None:
        self.transports.pop(handler, None)
        self._api.connection_lost(handler)
        super().connection_lost(handler, *args, **kwargs)

    async def abort(self) -> None:
        """Close every connection immediately, and wait until all are closed."""
        while self.transports:
            for transport in self.transports.values():
                transport.abort()
            # Transports call `connection_lost` in the next iteration of the loop. A connection accepted just now
            # appears then.
            await asyncio.sleep(0)

    def _create_request_or_close(self, *args: Any, **kwargs: Any) -> web.BaseRequest:
        """Create a request with aiohttp's own factory. Close the connection if that fails.

        aiohttp itself would leave the connection open, and the client would wait indefinitely.
        """
        try:
            return self._create_request(*args, **kwargs)
        except Exception:
            logger.exception("The local server failed to create a request. Does it support this version of aiohttp?")
            for argument in (*args, *kwargs.values()):
                if isinstance(argument, web.RequestHandler):
                    argument.force_close()
            raise


class ServerThread:
    """Serves *api* on *host* and *port* from `start` until `stop`. *port* is the actual port once `is_ready`."""

    def __init__(self, api: API, host: str, port: int, *, keepalive_timeout: float) -> None:
        self.port = port
        self.error: BaseException | None = None
        self._api = api
        self._host = host
        self._keepalive_timeout = keepalive_timeout
        self._process_id = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._server: _HTTPServer | None = None
        self._thread = threading.Thread(target=self._run, name="NeuralBoxServer", daemon=True)
        self.is_ready = False
        self._is_stopping = False

    @property
    def connections(self) -> int:
        """Open connections."""
        return 0 if self._server is None else len(self._server.transports)

    @property
    def connections_accepted(self) -> int:
        """Connections accepted since the start."""
        return 0 if self._server is None else self._server.accepted

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running; false in a forked child."""
        return self._thread.is_alive() and self._process_id == os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread. Later either `is_ready` is true or `error` is set."""
        self._thread.start()

    def stop(self) -> None:
        """Request the thread to stop, without waiting. Idempotent and thread-safe; does nothing in a forked child."""
        self._is_stopping = True
        # A loop that starts later checks the flag. A closed loop raises RuntimeError: the thread has stopped.
        if self._loop is not None and self._stop is not None and self.is_alive:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for the end of the thread."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            # asyncio's default loop: the event loop policy of the process is for the code under test.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that starts the server
            self.error = error

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = server = _HTTPServer(self._api, keepalive_timeout=self._keepalive_timeout)
        listener = await self._loop.create_server(server, self._host, self.port)
        try:
            self.port = listener.sockets[0].getsockname()[1]
            self.is_ready = True
            if not self._is_stopping:
                await self._stop.wait()
        finally:
            await _stop_accepting(listener)
            await server.abort()
            listener.close()


async def _stop_accepting(listener: asyncio.Server) -> None:
    """Accept no more connections, and wait until `connection_made` was called for those already accepted.

    asyncio loses a connection if its listener is closed, or its task is cancelled, in the loop iterations between
    `accept` and `connection_made`: the socket stays open, and the client waits.
    """
    for listening_socket in listener.sockets:
        asyncio.get_running_loop().remove_reader(listening_socket.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
