"""The network's side of a stream: from the chunks of an open response to server-sent events, and the bounds on both."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from neuralbox_async import _sse
from neuralbox_async._errors import APIConnectionError, APITimeoutError
from neuralbox_async._seam import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from neuralbox_async._seam import Response

_LONGEST_BLANK = 4096  # bytes of white space to look through for the first that tells what an answer is


@attrs.frozen(kw_only=True)
class StreamLimits:
    """The clocks (seconds, None for none) and sizes (bytes) of one stream; see `AsyncNeuralBox.stream`."""

    timeout: float | None = None
    first_event_timeout: float | None = 120.0
    stall_timeout: float | None = 120.0
    max_event_bytes: int = _sse.DEFAULT_MAX_EVENT_BYTES
    max_response_bytes: int = 64 * 1024 * 1024


class Source:
    """The network's side of a stream: response, decoder and the generator that parses. Knows nothing of the stream."""

    def __init__(self, response: Response, limits: StreamLimits) -> None:
        self.response = response
        self._limits = limits
        self._decoder = _sse.SSEDecoder(max_event_bytes=limits.max_event_bytes)
        self._parsing: AsyncGenerator[list[bytes | str]] | None = None
        self._deadline = math.inf
        self._ahead = b""  # read to look at it
        self.is_stream: bool | None = None  # until `is_no_stream` has looked

    async def next_events(self, deadline: float) -> list[bytes | str]:
        """Return the data of the events that come next, together as they came; none at the end of the body."""
        self._deadline = deadline
        if self._parsing is None:
            self._parsing = _sse.decode(self._read_chunk, self._decoder)
        try:
            return await anext(self._parsing)
        except BaseException as error:
            self._parsing = None  # an exception, a cancellation included, has finished the generator
            if isinstance(error, StopAsyncIteration):
                return []
            raise

    def _read_chunk(self) -> Awaitable[bytes]:
        return self._take_ahead() if self._ahead else self.response.read_chunk(self._deadline)

    async def _take_ahead(self) -> bytes:
        chunk, self._ahead = self._ahead, b""
        return chunk

    async def is_no_stream(self, deadline: float) -> bool:
        """Return whether the answer is something else, by its first byte and its content type."""
        if self.is_stream is None:
            kind = self.response.headers.get("content-type", "").lower()
            first = await self._first_byte(deadline)
            # No event begins with a brace, whatever the answer is called; "<" may be a line to ignore.
            self.is_stream = first != b"{" and ("text/event-stream" in kind or (first != b"<" and "json" not in kind))
        return not self.is_stream

    async def _first_byte(self, deadline: float) -> bytes:
        while len(self._ahead) < _LONGEST_BLANK and not self._ahead.strip():
            chunk = await self.response.read_chunk(deadline)
            self._ahead += chunk
            if not chunk:
                break
        return self._ahead.strip()[:1]

    async def read_body(self, deadline: float) -> bytes:
        """Return the whole body of an answer that is no stream. Raises `APIConnectionError` or `ResponseError`."""
        msg = "no data came in time"
        failure: APIConnectionError = APITimeoutError(msg, phase="stall", request_sent=True)
        with Deadline(deadline):
            try:
                return self._ahead + await self.response.read(self._limits.max_response_bytes)
            except APIConnectionError as error:
                failure = error
        failure.body = self._ahead + self.response.received
        raise failure

    def close(self) -> None:
        """Close the connection, unless it was read to its end, and the generator. Never waits."""
        self.response.close()
        if self._parsing is not None:
            # It is suspended in a `yield`, so it ends at once; dropped instead, it would cost the loop a task.
            with suppress(StopIteration, RuntimeError):
                self._parsing.aclose().send(None)
