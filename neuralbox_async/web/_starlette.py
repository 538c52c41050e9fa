"""A response of Starlette and FastAPI that opens a stream, decides the status, and sends the events."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from neuralbox_async import AsyncStream, NeuralBoxError
from neuralbox_async.web._events import (
    DEFAULT_HEARTBEAT,
    DEFAULT_WRITE_TIMEOUT,
    ServerSentEvents,
    check_seconds,
    event_headers,
)
from neuralbox_async.web._problems import is_reconnection, logged_problem

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.responses import Response

_Message: TypeAlias = MutableMapping[str, Any]
_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

_NOT_OF_204 = {b"content-type", b"content-length", b"x-accel-buffering"}


def starlette_response(
    stream: AsyncStream[Any],
    *,
    wait_for: Literal["response", "first_event"] = "first_event",
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
    headers: Mapping[str, str] | None = None,
    background: BackgroundTask | None = None,
) -> Response:
    """
    Return a response of Starlette or FastAPI with the server-sent events of *stream*, which is new.

    ``return starlette_response(client.stream("gpt-5", prompt))``. The stream is opened when the response is sent. The
    status is decided after *wait_for*, see `AsyncStream.open`; an error is sent as `problem`. With ``"response"``,
    heartbeats are sent before the first text, too. When the browser leaves, also before that, the stream is closed at
    once; one that reads nothing for *write_timeout* seconds is treated like that. The request of an ``EventSource``
    that connects again gets a 204, which ends it: nothing is generated twice. Nor is anything for a HEAD request, which
    gets the headers.

    *heartbeat*, *cost*, *write_timeout*: as for `server_sent_events`. *headers*: more headers, also of an error and of
    the 204. *background*: as for every response of Starlette; it runs after the last event, or after the browser has
    left.
    """
    check_seconds(heartbeat=heartbeat, write_timeout=write_timeout)
    options = _Options(wait_for, heartbeat, write_timeout, cost)
    sender = functools.partial(_Sending, stream, options)
    return _response_type()(sender, event_headers(headers), background)


@functools.cache
def _response_type() -> Callable[[Callable[[_Send, _RawHeaders], _Sending], dict[str, str], Any], Response]:
    from starlette.responses import Response

    class EventStreamResponse(Response):
        """Server-sent events; not read before it is sent."""

        def __init__(
            self, sender: Callable[[_Send, _RawHeaders], _Sending], headers: dict[str, str], background: Any
        ) -> None:
            self.status_code = HTTPStatus.OK
            self.background = background
            self.init_headers(headers)
            self._sender = sender

        async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
            if is_reconnection(name.decode("latin-1") for name, _ in scope["headers"]):
                kept = [(name, value) for name, value in self.raw_headers if name not in _NOT_OF_204]
                await _send_whole(send, HTTPStatus.NO_CONTENT, kept, has_length=False)
            elif scope.get("method") == "HEAD":
                await _send_whole(send, HTTPStatus.OK, self.raw_headers, has_length=False)
            else:
                await _until_disconnect(receive, self._sender(send, self.raw_headers).run)
            if self.background is not None:
                await self.background()

    return EventStreamResponse


class _Options(NamedTuple):
    wait_for: Literal["response", "first_event"]
    heartbeat: float | None
    write_timeout: float | None
    cost: bool


class _Sending:
    """The sending of one response."""

    def __init__(self, stream: AsyncStream[Any], options: _Options, send: _Send, headers: _RawHeaders) -> None:
        self._stream, self._options, self._send, self._headers = stream, options, send, headers

    async def run(self, leave: Callable[[], object]) -> None:
        """Send it; *leave* is called when the browser reads nothing for too long."""
        try:
            await self._stream.open(wait_for=self._options.wait_for)
        except NeuralBoxError as error:
            answer = logged_problem(error)
            own = _raw(answer.headers)
            replaced = {name for name, _ in own} | {b"x-accel-buffering"}
            kept = [(name, value) for name, value in self._headers if name not in replaced]
            await _send_whole(self._send, answer.status, [*kept, *own], answer.body)
            return
        events = ServerSentEvents(
            self._stream,
            heartbeat=self._options.heartbeat,
            cost=self._options.cost,
            write_timeout=self._options.write_timeout,
            on_write_timeout=leave,
        )
        try:
            await self._send(_start(HTTPStatus.OK, self._headers))
            async for chunk in events:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            await events.aclose()


async def _until_disconnect(receive: _Receive, run: Callable[[Callable[[], object]], Awaitable[None]]) -> None:
    """
    Await *run*, or cancel it when the browser leaves, or when it calls its argument.

    An `OSError` of sending means that the browser has left.
    As in `asyncio.timeout`, without a task group: its cancellation took most of the time when many browsers left.
    """
    sender = asyncio.current_task()
    if sender is None:
        raise RuntimeError("a response is sent in a task")
    cancellations, is_running, is_cancelled = sender.cancelling(), True, False

    async def watch() -> None:
        nonlocal is_cancelled
        try:
            await _wait_for_disconnect(receive)
        finally:
            if is_running:
                is_cancelled = sender.cancel()

    watcher = asyncio.create_task(watch())
    try:
        with suppress(OSError):
            await run(watcher.cancel)
    except asyncio.CancelledError:
        # The server may have cancelled it as well.
        if not is_cancelled or sender.uncancel() > cancellations:
            raise
    finally:
        is_running = False
        if not watcher.done():
            watcher.cancel()
            await asyncio.wait([watcher])
    if not watcher.cancelled():
        watcher.result()  # raises the error of a server that could not receive


async def _wait_for_disconnect(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _start(status: int, headers: _RawHeaders) -> _Message:
    return {"type": "http.response.start", "status": int(status), "headers": list(headers)}


async def _send_whole(
    send: _Send, status: int, headers: _RawHeaders, body: bytes = b"", *, has_length: bool = True
) -> None:
    length = _raw({"content-length": str(len(body))}) if has_length else []
    await send(_start(status, [*headers, *length]))
    await send({"type": "http.response.body", "body": body})
