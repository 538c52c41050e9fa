"""The lifetime of a stream: it is opened once, in a `with` block or outside, and closed at any time, from any task."""

from __future__ import annotations

import operator
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self

from neuralbox_async._call.stream_reader import StreamLimits, StreamReader, close_threadsafe
from neuralbox_async._call.stream_state import CLOSED, COMPLETE, ENDED, TRANSITIONS, StreamState, first_known
from neuralbox_async._call.stream_timeouts import StreamTimeouts
from neuralbox_async._call.typed_stream import TypedStream
from neuralbox_async._clock import clock, now
from neuralbox_async._errors import InvalidParameterError, NeuralBoxError, StreamStateError
from neuralbox_async._http.transport import CLOSED_WHILE_READING
from neuralbox_async._lazy_imports import asyncio, lazy_module
from neuralbox_async._type_parameters import T
from neuralbox_async._types import ContentDelta, Generation, GenerationEnd, GenerationStart, StreamEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from neuralbox_async._call.executor import Call
    from neuralbox_async._call.record import CallRecord
    from neuralbox_async._http.transport import Response
    from neuralbox_async._response_info import ResponseInfo
    from neuralbox_async._types import GenerationId
    from neuralbox_async._wire import events
    from neuralbox_async._wire.output_types import OutputType
else:
    events = lazy_module("neuralbox_async._wire.events")

_CLOSED_WHILE_OPENING = "the stream was closed while it was being opened"
_WAIT_FOR = ("response", "first_event")


class StreamLifetime(TypedStream[T]):
    """The fields of `AsyncStream`, and how it is opened and closed."""

    def __init__(
        self,
        open_response: Callable[[], Awaitable[tuple[Response, Call]]],
        limits: StreamLimits,
        recover: Callable[[GenerationId, float], Awaitable[Generation]] | None = None,
        output_type: OutputType[T] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._open_response = open_response
        self._limits = limits
        self._recover = recover
        self._output_type, self._max_tokens = output_type, max_tokens
        self._state = StreamState.NEW  # changed by `_move` only
        self._call: Call | None = None
        self.response: ResponseInfo | None = None
        """The HTTP response, once the stream is open."""
        self._record: CallRecord | None = None
        self._reader: StreamReader | None = None
        self._finalizer: weakref.finalize[..., StreamLifetime[Any]] | None = None
        self._is_reading = False
        # Received and not delivered yet: events (dicts are deltas, see `take_deltas`), and a failure after them.
        self._pending: deque[StreamEvent | dict[str, Any]] = deque()
        self._pending_failure: NeuralBoxError | None = None
        # Delivered.
        self._texts: list[str] = []
        self._start = GenerationStart()
        self._end = GenerationEnd()
        self._whole: Generation | None = None  # the generation as the API describes it, if it does
        self._failure: NeuralBoxError | None = None
        self._timeouts = StreamTimeouts(limits)
        self._decode: Callable[..., Any] = operator.call
        self._decoder = events.EventDecoder(self._decode)
        self._now: Callable[[], float] = now  # until it is entered; then its loop's clock, at a third of the cost

    if TYPE_CHECKING:

        @property
        def generation(self) -> Generation: ...
        async def _fill(self) -> bool: ...

    # ---------------------------------------------------------------------------------------------------------- opening

    async def __aenter__(self) -> Self:
        """Send the request and return when the response begins. Raises the errors of `AsyncNeuralBox.generate`."""
        self._begin()
        await self._send()
        return self

    async def open(self, *, wait_for: Literal["response", "first_event"] = "response") -> Self:
        """
        Send the request, as ``async with`` does, where a block cannot span the use of the stream. Return the stream.

        With *wait_for* ``"response"``, it returns when the response begins: the errors with a status have been raised
        by then. With ``"first_event"``, it also waits for the first piece of text, or the end: a generation that fails
        before that raises here, so a server can still choose the status of its own response. No event is lost. After
        this, close the stream with `aclose`, or read it to its end.

        Raises `InvalidParameterError` before anything is sent; the errors of `AsyncNeuralBox.generate`, and with
        ``"first_event"`` those of reading. If it raises or is cancelled, the stream is closed.
        """
        if wait_for not in _WAIT_FOR:
            raise InvalidParameterError("wait_for", wait_for, "'response' or 'first_event'")
        self._begin()
        try:
            await self._send()
            if wait_for == "first_event":
                await self._wait_for_content()
        except BaseException:
            self._close()
            raise
        return self

    def _begin(self) -> None:
        if self._state is not StreamState.NEW:
            msg = "a stream can be opened only once; call stream() again for another generation"
            raise StreamStateError(msg)
        self._move(StreamState.OPENING)
        self._now = clock()
        self._started = self._now()
        self._timeouts.start(self._started)

    async def _send(self) -> None:
        response, self._call = await self._open_response()
        self._reader, self._record = StreamReader(response, self._limits), self._call.record
        self._decode = self._call.decode
        self._decoder = events.EventDecoder(self._decode)  # without a reference to this stream
        if self._is_closed():
            self._close()
            raise StreamStateError(_CLOSED_WHILE_OPENING)
        self._move(StreamState.OPEN)
        self._finalizer = weakref.finalize(self, close_threadsafe, self._reader, asyncio.get_running_loop())
        self._finalizer.atexit = False
        if self._record is not None:
            self.response = self._record.watch(self, response)

    async def _wait_for_content(self) -> None:
        # What arrives before the content stays to be read. Not among the pending events meanwhile: each read, and its
        # timeouts and observers, would go through all of them again.
        before: deque[StreamEvent | dict[str, Any]] = deque()
        try:
            while self._state is StreamState.OPEN and not any(map(_is_content, self._pending)):
                for event in self._pending:
                    if isinstance(event, GenerationStart):  # recovery needs the id at once
                        self._start = first_known(self._start, event)
                before.extend(self._pending)
                self._pending.clear()
                await self._fill()
        finally:
            self._pending.extendleft(reversed(before))
        self._check_not_closed()

    # ---------------------------------------------------------------------------------------------------------- closing

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def aclose(self) -> None:
        """Close the connection, so that the server stops generating. Idempotent, from any task; waits for nothing."""
        self._close()

    def _close(self) -> None:
        if self._state in TRANSITIONS:
            self._move(COMPLETE if self._has_ended() else CLOSED)
        self._pending.clear()  # also of one that was interrupted while it was opened
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._reader is not None:
            self._reader.close()
        if self._record is not None:
            self._record.close_stream(self, self._failure)

    def _move(self, state: StreamState) -> None:
        if state not in TRANSITIONS.get(self._state, ()):
            msg = f"a stream that is {self._state.name} cannot become {state.name}"
            raise AssertionError(msg)
        self._state = state

    def _is_closed(self) -> bool:
        return self._state is CLOSED

    def _check_not_closed(self) -> None:
        """Raise `StreamStateError` to the reader when the stream was closed while it waited."""
        if self._state is CLOSED:
            raise StreamStateError(CLOSED_WHILE_READING)

    def _has_ended(self) -> bool:
        """Return whether everything was delivered, up to the terminal event."""
        return (self._state is ENDED or self._state is COMPLETE) and not self._pending


def _is_content(event: StreamEvent | dict[str, Any]) -> bool:
    """Return whether *event* (a dict is a delta) is a piece of text or the end, and no heartbeat."""
    if isinstance(event, dict):
        return bool(event["delta"])
    return isinstance(event, GenerationEnd) or (isinstance(event, ContentDelta) and event.delta != "")
