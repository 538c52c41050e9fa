"""
The HTTP server of a gateway: aiohttp's, except for what it does with malformed requests.

aiohttp quotes their bytes, which may be a prompt or a token, in its log and in the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from neuralbox_async.gateway._errors import ErrorBody
from neuralbox_async.gateway._log import logger

SERVER: Final = "neuralbox"
_SETTINGS: Final[dict[str, Any]] = {
    "access_log": None,
    "keepalive_timeout": 75.0,  # seconds
    # Seconds for the rest of a body that is too large: a reset could destroy the response to it.
    "lingering_time": 2.0,
}
_MALFORMED: Final = ErrorBody(status=400, message="the request is not valid HTTP")
INTERNAL: Final = ErrorBody(status=500, message="the gateway failed", type="server_error", code="internal_error")


class Server(web.Server):
    """
    A server that responds with *handler*, which is cancelled when its client disconnects.

    A client that takes no bytes for *write_timeout* seconds is disconnected.
    """

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, write_timeout: float
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._write_timeout = write_timeout

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), write_timeout=self._write_timeout)


class _Connection(web.RequestHandler):
    """The connection of a client, whose bytes are neither logged nor sent back."""

    __slots__ = ("_stall_timer", "_taken", "_write_timeout")

    def __init__(self, manager: Server, *, loop: asyncio.AbstractEventLoop, write_timeout: float) -> None:
        super().__init__(manager, loop=loop, **_SETTINGS)
        self._write_timeout = write_timeout
        self._stall_timer: asyncio.TimerHandle | None = None
        self._taken = 0  # at the last check

    def pause_writing(self) -> None:
        """Start to watch whether the client reads: the buffer for it is full."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Stop watching: the buffer has room."""
        self._stop_watching()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the connection."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.transport is not None:
            self._schedule_check(self.transport)

    def _schedule_check(self, transport: asyncio.Transport) -> None:
        self._taken = self._bytes_taken(transport)
        self._stall_timer = self._loop.call_later(self._write_timeout, self._check, transport)

    def _check(self, transport: asyncio.Transport) -> None:
        if self._bytes_taken(transport) != self._taken:  # slow, but it reads
            self._schedule_check(transport)
            return
        logger.warning("a client is disconnected: it has read nothing for %g s", self._write_timeout)
        transport.abort()  # closing would wait until the rest has been read

    def _bytes_taken(self, transport: asyncio.Transport) -> int:
        """Return a number that changes when the client takes bytes: others may be added meanwhile."""
        written = 0 if self._current_request is None else self._current_request.writer.output_size
        return written - transport.get_write_buffer_size()

    def _stop_watching(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """Return the response to a malformed request. Raises `ConnectionError` if one was begun."""
        self.log_exception("", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun: only a closed connection shows that the rest is missing")
        is_malformed = status < 500 or isinstance(exc, HttpProcessingError)
        body = _MALFORMED if is_malformed else INTERNAL
        headers = {"Server": SERVER, **body.headers}
        response = web.Response(
            status=body.status, body=body.encode(), content_type="application/json", headers=headers
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002 - aiohttp calls it
        """Log the type of an error alone: its text has bytes of the request."""
        logger.info("a connection is closed after %s", type(kw.get("exc_info")).__name__)
