"""
`AsyncStream`: the events of one generation, once each and in order, whatever becomes of connection and reader.

What a cancelled read must not destroy (bytes, decoder, events not delivered yet) lives on objects; the async generator
over them only parses, and is made again after a cancellation. No scope, lock or task group is held between two reads
(PEP 789).
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from neuralbox_async import _codec, _protocol
from neuralbox_async._errors import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    GenerationFailedError,
    NeuralBoxError,
    ResponseError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
)
from neuralbox_async._loading import asyncio
from neuralbox_async._seam import clock, now
from neuralbox_async._source import Source, StreamLimits
from neuralbox_async._types import ContentDelta, Generation, GenerationEnd, GenerationStart, StreamEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from neuralbox_async._seam import Response
    from neuralbox_async._types import GenerationId

_DONE: Final = "[DONE]"
_DRAIN_TIME = 0.25  # seconds to let the server end the body after the last event, so that the connection is used again


class AsyncStream:
    """
    The events of one generation, once each and in order: an async context manager and an async iterator.

    Made by `AsyncNeuralBox.stream`. Entering sends the request; leaving closes the connection, so that the server stops
    generating. Iterate the stream for every event, or `text` for the pieces of text; afterwards `generation` has the
    whole. A read that is cancelled or timed out loses nothing: the next one goes on. Only the API's own last event ends
    a stream; if it ends otherwise, reading raises `StreamInterruptedError`, with the text so far, and does so again
    each time.
    """

    def __init__(
        self,
        open_response: Callable[[], Awaitable[tuple[Response, Callable[[NeuralBoxError], NeuralBoxError]]]],
        limits: StreamLimits,
        recover: Callable[[GenerationId, float], Awaitable[Generation]] | None = None,
    ) -> None:
        self._open_response = open_response
        self._describe: Callable[[NeuralBoxError], NeuralBoxError] = _as_it_is
        self._limits = limits
        self._recover = recover
        self._source: Source | None = None
        self._finalizer: weakref.finalize[..., AsyncStream] | None = None
        self._state: Literal["new", "opening", "open", "closed"] = "new"
        self._reading = False
        # What has come and is not delivered: events, and what was found behind them.
        self._pending: deque[StreamEvent | dict[str, Any]] = deque()  # dicts: deltas, as `take_deltas` took them
        self._done = False
        self._broken: NeuralBoxError | None = None
        # What has been delivered.
        self._texts: list[str] = []
        self._start = GenerationStart()
        self._end = GenerationEnd()
        self._whole: Generation | None = None  # the API's own account of it, when there is one
        self._failure: NeuralBoxError | None = None
        # The clocks: deadlines, and the seconds of waiting without content that are left.
        self._deadline = math.inf
        self._first_deadline: float | None = math.inf
        self._patience = self._longest_patience = _or_forever(limits.stall_timeout)
        self._now: Callable[[], float] = now  # until it is entered: then that of its event loop, at a third of the cost

    # -------------------------------------------------------------------------------------------- opening and closing

    async def __aenter__(self) -> Self:
        """Send the request and return when the answer begins. Raises what `AsyncNeuralBox.generate` raises."""
        if self._state != "new":
            msg = "a stream is opened once; call stream() again for another generation"
            raise StreamStateError(msg)
        self._state = "opening"
        self._now = clock()
        started = self._now()
        self._deadline = started + _or_forever(self._limits.timeout)
        self._first_deadline = started + _or_forever(self._limits.first_event_timeout)
        response, self._describe = await self._open_response()
        self._source = Source(response, self._limits)
        if self._is_closed():
            self._source.close()
            raise StreamStateError.closed()
        self._state = "open"
        self._finalizer = weakref.finalize(self, _close_from_anywhere, self._source, asyncio.get_running_loop())
        self._finalizer.atexit = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def aclose(self) -> None:
        """Close the connection, so that the server stops generating. Idempotent, from any task; waits for nothing."""
        self.close()

    def close(self) -> None:
        """Do what `aclose` does, without `await`; from the thread of the event loop."""
        self._state = "closed"
        if self._pending:
            self._pending.clear()
            self._done = False  # the end was there, and has not been delivered
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._source is not None:
            self._source.close()

    def _is_closed(self) -> bool:
        return self._state == "closed"

    # -------------------------------------------------------------------------------------------------------- reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        """Return the next event. Raises `StreamInterruptedError`, `ClientClosedError` or `StreamStateError`."""
        while not self._pending:
            if not await self._fill():
                raise StopAsyncIteration
        return self._deliver(self._pending.popleft())

    async def read_batch(self) -> list[StreamEvent]:
        """
        Return all events that have arrived, at least one; ``[]`` at the end. Raises what reading one event raises.

        For those who handle events in bulk; a failure is raised by the call after the one that returned the events
        before it.
        """
        while not self._pending:
            if not await self._fill():
                return []
        batch: list[StreamEvent] = []
        for kind, run in groupby(self._pending, type):
            if kind is dict:
                deltas = _codec.plain_deltas(cast("list[dict[str, Any]]", list(run)))
                self._texts += [event.delta for event in deltas]
                batch += deltas
            else:
                batch += map(self._deliver, run)
        self._pending.clear()
        return batch

    @property
    def text(self) -> AsyncIterator[str]:
        """The pieces of text, without the other events: an async iterator over the same stream."""
        return _Texts(self._next_text)

    async def until_done(self) -> Generation:
        """Read to the end and return `generation`. Raises what reading raises."""
        while await self.read_batch():
            pass
        if not self._done:
            msg = "the stream was closed before its end; `generation` has what came"
            raise StreamStateError(msg)
        return self.generation

    @property
    def generation(self) -> Generation:
        """What has been delivered, as a `Generation`; its status is ``"incomplete"`` until the end was reached."""
        complete = self._done and not self._pending
        if complete and self._whole is not None:
            return self._whole
        return Generation(
            id=self._start.id if self._start.id is not None else self._end.id,
            status="completed" if complete else "incomplete",
            model=self._start.model,
            content="".join(self._texts),
            tokens_used=self._end.tokens_used,
            balance_remaining=self._end.balance_remaining,
            usage=self._end.usage,
            raw=self._end.raw,
        )

    # --------------------------------------------------------------------------------------------------------- inside

    async def _next_text(self) -> str:
        """Return the next piece of text, for `text`."""
        # Not through __anext__, and without an event that nobody sees: a fifth of what a piece costs in bulk.
        while True:
            while not self._pending:
                if not await self._fill():
                    raise StopAsyncIteration
            event = self._pending.popleft()
            if type(event) is dict:
                text: str = event["delta"]
                self._texts.append(text)
                return text
            if isinstance(delivered := self._deliver(event), ContentDelta):
                return delivered.delta

    def _deliver(self, event: StreamEvent | dict[str, Any]) -> StreamEvent:
        """Account for *event* at the moment it goes to the user."""
        if isinstance(event, dict):
            event = _codec.plain_delta(event)
            self._texts.append(event.delta)
        elif isinstance(event, ContentDelta):
            self._texts.append(event.delta)
        elif isinstance(event, GenerationStart):
            self._start = event
        elif isinstance(event, GenerationEnd):
            self._end = event
        return event

    async def _fill(self) -> bool:
        """Wait for more to deliver; return False when there is nothing any more."""
        if self._failure is not None:
            raise self._failure
        if self._is_closed():
            return False
        if self._source is None:
            msg = "the stream is not open: enter it first, in a `with` block (`async with` in async code)"
            raise StreamStateError(msg)
        if self._reading:
            msg = "another task is reading this stream"
            raise StreamStateError(msg)
        broken = self._broken
        self._reading = True
        try:
            if self._done:
                await self._drain(self._source)
                return True
            try:
                if broken is None:
                    await self._read(self._source)
            except ClientClosedError as error:
                error.text = "".join(self._texts)
                error.generation_id = self._start.id
                raise
            except (APIConnectionError, ResponseError, GenerationFailedError) as error:
                broken = self._broken = error.with_traceback(None)
            if broken is not None:
                # Not in the handler: what is raised here would have the frames of the read in its context, and they
                # hold what came, which may echo the key.
                await self._mend(self._source, broken)
        finally:
            self._reading = False
        return True

    async def _read(self, source: Source) -> None:
        # The clocks run only while a read waits: a slow reader is not a stalled server.
        started = self._now()
        if started >= self._deadline:
            msg = "the time for the whole stream is over"
            raise APITimeoutError(msg, phase="total", request_sent=True)
        content = started + self._patience if self._first_deadline is None else self._first_deadline
        deadline = min(content, self._deadline)
        whole = False
        try:
            whole = not source.is_stream and await source.is_no_stream(deadline)
            events = [] if whole else await source.next_events(deadline)
            self._take(events)
        except APITimeoutError as error:
            of_content = "stall" if self._first_deadline is None else "first_event"
            error.phase = "total" if self._deadline <= content else of_content
            raise
        finally:
            # Also when the wait was cancelled: a reader that polls with short timeouts waits as well.
            self._restart_clocks(started)
        if whole:
            await self._read_whole(source)
        elif not events:
            msg = "the connection was closed"
            raise APIConnectionError(msg, request_sent=True)

    async def _read_whole(self, source: Source) -> None:
        """Read an answer that is no event stream, as of a server that ignores ``stream``: one delta, and the end."""
        response = source.response
        body = await source.read_body(min(self._deadline, self._now() + self._patience))
        whole = _protocol.load_generation(response.status, response.headers, body)
        if not whole.finished and whole.id is not None and self._recover is not None:
            whole = await self._recover(whole.id, self._deadline)
        self._take_whole(whole)

    def _restart_clocks(self, started: float) -> None:
        # Comments, unknown events and empty deltas are heartbeats; they must not keep a dead generation alive.
        for event in self._pending:
            if event["delta"] if isinstance(event, dict) else _is_progress(event):
                self._first_deadline = None
                self._patience = self._longest_patience
                return
        if self._first_deadline is None:
            self._patience -= self._now() - started

    def _take(self, events: list[bytes | str]) -> None:
        """Make *events* pending, up to the last event or the first that is broken; what follows is ignored."""
        take, left = self._pending.append, iter(events)
        try:
            while (other := _codec.take_deltas(left, take)) is not None:
                data = other if isinstance(other, str) else other.decode("utf-8", "replace")
                if data == _DONE:
                    self._done = True
                    return
                loaded = _codec.load_event(data)
                if isinstance(loaded, dict):
                    raise _error_event(loaded)
                take(loaded)
                if isinstance(loaded, GenerationEnd):
                    self._done = True
                    return
        except NeuralBoxError as error:
            self._broken = error

    def _take_whole(self, whole: Generation, so_far: str = "") -> None:
        """Make pending what *whole* has beyond the text *so_far*."""
        self._whole = whole
        self._done = True
        rest = whole.content[len(so_far) :]
        if rest:
            self._pending.append(ContentDelta(rest, raw=whole.raw))
        if whole.completed:
            end = GenerationEnd(whole.id, whole.tokens_used, whole.balance_remaining, whole.usage, raw=whole.raw)
            self._pending.append(end)

    async def _drain(self, source: Source) -> None:
        """After the last event: read what is left, for a moment, so that the connection can be used again."""
        with suppress(NeuralBoxError):  # all has been delivered: nothing that happens now is of interest
            deadline = self._now() + _DRAIN_TIME
            while await source.next_events(deadline):
                pass
        self.close()

    async def _mend(self, source: Source, error: NeuralBoxError) -> None:
        """Ask the API for the rest of a generation whose stream broke with *error*, or raise the interruption."""
        source.close()
        generation_id = self._start.id
        recovered: Generation | None = None
        if self._recover is not None and generation_id is not None and not isinstance(error, GenerationFailedError):
            so_far = "".join(self._texts)
            try:
                whole = await self._recover(generation_id, self._deadline)
            except GenerationFailedError as failure:
                error = failure
            except NeuralBoxError as failure:
                error.add_note(f"recovering generation {generation_id} failed: {failure}")
            else:
                if whole.completed and whole.content.startswith(so_far):
                    self._take_whole(whole, so_far)
                    return
                recovered = whole if whole.completed else None
        self._failure = self._describe(_failure_of(self._describe(error), self.generation, recovered))
        self.close()
        # Without the frames below: they hold what came, which may echo the key.
        raise self._failure from error.with_traceback(None)


def _as_it_is(error: NeuralBoxError) -> NeuralBoxError:
    return error


class _Texts(AsyncIterator[str]):
    def __init__(self, next_text: Callable[[], Coroutine[Any, Any, str]]) -> None:
        self._next_text = next_text

    def __anext__(self) -> Coroutine[Any, Any, str]:
        return self._next_text()


def _or_forever(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _error_event(members: dict[str, Any]) -> GenerationFailedError:
    """Return the error that the error event *members* tells of."""
    reason = _protocol.message_in(members) or None
    shown = (reason or "it gave no reason")[:500]
    return GenerationFailedError(f"the API ended the stream with an error: {shown}", reason=reason)


def _is_progress(event: StreamEvent) -> bool:
    return bool(event.delta) if isinstance(event, ContentDelta) else isinstance(event, GenerationStart | GenerationEnd)


def _failure_of(error: NeuralBoxError, so_far: Generation, recovered: Generation | None) -> NeuralBoxError:
    """Return what a reader is told when the stream ended with *error* after *so_far*."""
    if isinstance(error, APITimeoutError):
        msg = f"the stream stopped: {error.message} ({error.phase})"
        return StreamTimeoutError(msg, phase=error.phase, generation=so_far)
    if not isinstance(error, GenerationFailedError):
        msg = f"the stream ended before its last event: {error.message}"
        if recovered is not None:
            msg += "; the API has completed it with another text (recovered)"
        return StreamInterruptedError(msg, generation=so_far, recovered=recovered)
    failure = StreamInterruptedError(error.message, generation=so_far, reason=error.reason)
    if error.generation is not None:  # the API's own account of it, not only an error event
        failure.billed = error.billed
    return failure


def _close_from_anywhere(source: Source, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop is closed, and its connections with it
        loop.call_soon_threadsafe(source.close)
