"""A stream as server-sent events, for the ``EventSource`` of a browser."""

from __future__ import annotations

import asyncio
import enum
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import anyio

from neuralbox_async import (
    AsyncStream,
    ContentDelta,
    GenerationEnd,
    InvalidParameterError,
    NeuralBoxError,
    StreamEvent,
    StreamStateError,
)
from neuralbox_async.web._problems import logged_problem, merged_headers
from neuralbox_async.web._write_timeout import WriteTimeout

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx would collect the events
    }
)
"""The headers of a response with server-sent events: not stored, not buffered."""

DEFAULT_HEARTBEAT = 15.0  # seconds; as the HTML standard recommends against proxies that close silent connections
DEFAULT_WRITE_TIMEOUT = 60.0  # seconds; that of nginx and of the gateway
_HEARTBEAT = b":\n\n"
# Sets the id without an event: a browser that connects again, even before the first text, sends `Last-Event-ID`.
_PRELUDE = b"id: 0\n\n"


class _State(enum.Enum):
    """
    The state of the events.

        NEW --prelude--> OPEN --last event--> LAST --rest of the stream read--> CLOSED

    Closing, and a cancelled read, lead from every state to CLOSED.
    """

    NEW = enum.auto()
    OPEN = enum.auto()
    LAST = enum.auto()
    CLOSED = enum.auto()


class ServerSentEvents(AsyncIterator[bytes]):
    """
    The bytes of a response with the server-sent events of a stream: an async iterator; see `server_sent_events`.

    Each item is one or more whole events. It owns the stream: its end, `aclose`, and a cancelled read close it. A read
    that was cancelled ends it, because the browser has left. So does a server that does not ask for the next item in
    time, because the browser reads nothing.
    """

    def __init__(
        self,
        stream: AsyncStream[Any],
        *,
        heartbeat: float | None,
        cost: bool,
        write_timeout: float | None,
        on_write_timeout: Callable[[], object] = lambda: None,
    ) -> None:
        check_seconds(heartbeat=heartbeat, write_timeout=write_timeout)
        if stream.response is None:
            msg = "the stream is not open: use `stream = await client.stream(...).open()`"
            raise StreamStateError(msg)
        self._stream = stream
        self._heartbeat = math.inf if heartbeat is None else heartbeat
        self._cost = cost
        self._loop = asyncio.get_running_loop()
        self._state = _State.NEW
        self._last_id = 0
        self._on_write_timeout = on_write_timeout
        # From now on: the server sends its head.
        self._write_timeout = WriteTimeout(math.inf if write_timeout is None else write_timeout, self._expire)

    def __aiter__(self) -> ServerSentEvents:
        return self

    async def __anext__(self) -> bytes:
        """Return the next events, or a heartbeat. Raises no `NeuralBoxError`: a failure is the last event."""
        if self._state is _State.NEW:
            self._state = _State.OPEN
            self._write_timeout.start()
            return _PRELUDE
        try:
            self._write_timeout.stop()
            if chunk := await self._next_chunk():
                self._write_timeout.start()
                return chunk
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the stream, so that the API stops generating. Idempotent; waits for nothing."""
        self._state = _State.CLOSED
        self._write_timeout.close()
        await self._stream.aclose()

    def close(self) -> None:
        """Close the stream soon, from any thread. Django calls this at the end of a response."""
        with suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self._close_soon)

    def _close_soon(self) -> None:
        with suppress(StopIteration):
            self.aclose().send(None)  # it never waits

    def _expire(self) -> None:
        """Close the stream of a browser that reads nothing."""
        self._close_soon()
        self._on_write_timeout()

    async def _next_chunk(self) -> bytes:
        """Return the next events or a heartbeat, or ``b""`` at the end."""
        while self._state is _State.OPEN or self._state is _State.LAST:
            try:
                with anyio.move_on_after(self._heartbeat) as scope:
                    events = await self._stream.read_batch()
                    if not events:
                        return b""
                    if chunk := self._encode(events):
                        return chunk
            except NeuralBoxError as error:
                if self._state is not _State.OPEN:  # the text is complete, or the stream was closed
                    return b""
                self._state = _State.LAST
                return self._event("failed", logged_problem(error).to_dict())
            if scope.cancelled_caught:
                return _HEARTBEAT
        return b""

    def _encode(self, events: list[StreamEvent]) -> bytes:
        """Return server-sent events for *events*: one for all text, and one for the end; ``b""`` for others."""
        text = "".join([event.delta for event in events if isinstance(event, ContentDelta)])
        chunk = self._event(None, {"text": text}) if text else b""
        for event in events:
            if isinstance(event, GenerationEnd):
                self._state = _State.LAST
                chunk += self._event("complete", self._end_of(event))
        return chunk

    def _end_of(self, event: GenerationEnd) -> dict[str, Any]:
        end: dict[str, Any] = {"finish_reason": event.finish_reason}
        return {**end, "tokens_used": event.tokens_used} if self._cost else end

    def _event(self, kind: str | None, data: dict[str, Any]) -> bytes:
        self._last_id += 1
        name = "" if kind is None else f"event: {kind}\n"
        # JSON has no line breaks, so that one line of data is enough.
        return f"id: {self._last_id}\n{name}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def server_sent_events(
    stream: AsyncStream[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
) -> ServerSentEvents:
    """
    Return the bytes of a response with the server-sent events of *stream*, which must be open.

    ``stream = await client.stream(...).open(wait_for="first_event")``, then send each item at once, with the headers
    `HEADERS`. The events of the response, each with an ``id``, and with JSON as its data:

    * an event without a name (``onmessage``) for the text that has arrived: ``{"text": "Hello"}``;
    * ``complete``, the last one: ``{"finish_reason": "stop", "tokens_used": 12}``; without *cost*, no ``tokens_used``;
    * or ``failed``, the last one: the members of the body of `problem` (``status``, ``title`` and ``detail``), which
      say nothing to strangers; the error itself is logged by the logger ``neuralbox.web``.

    A comment is sent when nothing has arrived for *heartbeat* seconds (greater than 0; None: never), so that proxies
    keep the connection, and so that a blocking server notices that the browser has left. A read that is cancelled, and
    `ServerSentEvents.aclose`, close the stream. So does the time *write_timeout*, in seconds (greater than 0; None:
    never), when the server has not asked for the next item by then: a server that waits until the browser reads would
    hold the stream for as long. The rest of the response is missing then, its last event included.

    Raises `StreamStateError` if the stream is not open, and `InvalidParameterError`. Source of the format: the HTML
    standard, "Server-sent events".
    """
    return ServerSentEvents(stream, heartbeat=heartbeat, cost=cost, write_timeout=write_timeout)


def event_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of a response, with those of the application (*headers*)."""
    return merged_headers(HEADERS, headers or {})


def check_seconds(**parameters: object) -> None:
    """Raise `InvalidParameterError` if one of *parameters* is neither a number of seconds greater than 0 nor None."""
    for name, value in parameters.items():
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise InvalidParameterError(name, value, "a number of seconds greater than 0, or None")
