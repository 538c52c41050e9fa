"""The network side of a stream: from the chunks of a response to the data of server-sent events, within bounds."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._clock import DeadlineScope
from neuralbox_async._errors import APIConnectionError, APITimeoutError, ResponseError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._options import (
    DEFAULT_FIRST_EVENT_TIMEOUT,
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_STALL_TIMEOUT,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable

    from neuralbox_async._http.transport import Response
    from neuralbox_async._options import CallOptions
    from neuralbox_async._wire import sse
else:
    sse = lazy_module("neuralbox_async._wire.sse")

_MAX_LEADING_BLANKS = 4096  # bytes of white space before the first byte that shows whether a response is a stream


@attrs.frozen(kw_only=True, eq=False)
class StreamLimits:
    """The timeouts (seconds; None: no limit) and sizes (bytes) of one stream; see `AsyncNeuralBox.stream`."""

    timeout: float | None = None
    first_event_timeout: float | None = DEFAULT_FIRST_EVENT_TIMEOUT
    stall_timeout: float | None = DEFAULT_STALL_TIMEOUT
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES

    @classmethod
    def of(cls, options: CallOptions, max_event_bytes: int, max_response_bytes: int) -> StreamLimits:
        """Return the limits of a stream with these *options*."""
        return cls(
            timeout=options.stream_timeout,
            first_event_timeout=options.first_event_timeout,
            stall_timeout=options.stall_timeout,
            max_event_bytes=max_event_bytes,
            max_response_bytes=max_response_bytes,
        )


class StreamReader:
    """Reads the data of server-sent events from a response. It does not know the stream, which may be dropped."""

    def __init__(self, response: Response, limits: StreamLimits) -> None:
        self.response = response
        self._limits = limits
        self._decoder = sse.SSEDecoder(max_event_bytes=limits.max_event_bytes)
        self._parser: AsyncGenerator[list[bytes | str]] | None = None
        self._deadline = math.inf
        self._peeked = b""  # bytes that were read to detect an event stream
        self._is_event_stream: bool | None = None  # None until it has been detected

    @property
    def has_events(self) -> bool:
        """Whether the response is known to be an event stream."""
        return self._is_event_stream is True

    async def next_events(self, deadline: float) -> list[bytes | str] | None:
        """Return the data of the events in the next bytes that arrive, and None at the end of the body."""
        self._deadline = deadline
        if self._parser is None:
            self._parser = sse.decode(self._read_chunk, self._decoder)
        try:
            return await anext(self._parser)
        except BaseException as error:
            self._parser = None  # an exception, a cancellation included, has finished the generator
            if isinstance(error, StopAsyncIteration):
                return None
            raise

    def _read_chunk(self) -> Awaitable[bytes]:
        return self._take_peeked() if self._peeked else self.response.read_chunk(self._deadline)

    async def _take_peeked(self) -> bytes:
        chunk, self._peeked = self._peeked, b""
        return chunk

    async def detect_event_stream(self, deadline: float) -> bool:
        """Return whether the response is an event stream, by its first byte and its content type."""
        if self._is_event_stream is None:
            media_type = self.response.headers.get("content-type", "").lower()
            first = await self._peek_first_byte(deadline)
            # No event begins with a brace, so the content type does not matter; "<" may begin a line to ignore.
            self._is_event_stream = first != b"{" and (
                "text/event-stream" in media_type or (first != b"<" and "json" not in media_type)
            )
        return self._is_event_stream

    async def _peek_first_byte(self, deadline: float) -> bytes:
        while len(self._peeked) < _MAX_LEADING_BLANKS and not _first_byte(self._peeked):
            chunk = await self.response.read_chunk(deadline)
            self._peeked += chunk
            if not chunk:
                break
        return _first_byte(self._peeked)

    async def read_body(self, deadline: float, phase: str) -> bytes:
        """
        Return the whole body of a response that is not a stream.

        Raises `APITimeoutError` with *phase* at the *deadline*, `APIConnectionError` or `ResponseError`.
        """
        failure: APIConnectionError = APITimeoutError("no data arrived in time", phase=phase, request_sent=True)
        with DeadlineScope(deadline):
            try:
                return self._peeked + await self.response.read(self._limits.max_response_bytes)
            except APIConnectionError as error:
                failure = error
            except ResponseError as error:  # too large
                error.body = self._peeked + error.body
                raise
        failure.body = self._peeked + self.response.received
        raise failure

    def close(self) -> None:
        """Close the connection, unless it was read to its end, and the generator. Never waits."""
        self.response.close()
        if self._parser is not None:
            # It is suspended in a `yield`, so it ends at once; dropped instead, it would cost the loop a task.
            with suppress(StopIteration, RuntimeError):
                self._parser.aclose().send(None)


def _first_byte(body: bytes) -> bytes:
    """Return the first byte of *body* that is neither white space nor of a byte order mark, or ``b""``."""
    return b"" if BOM_UTF8.startswith(body) else body.removeprefix(BOM_UTF8).strip()[:1]


def close_threadsafe(reader: StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    """Close *reader* in *loop*, from any thread."""
    with suppress(RuntimeError):  # the loop is closed, and its connections with it
        loop.call_soon_threadsafe(reader.close)
