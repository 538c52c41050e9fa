"""
`AsyncStream`: the events of one generation, once each and in order, however its connection or its reader fails.

The state that a cancelled read must not destroy (bytes, decoder, undelivered events) lives on objects; the async
generator over them only parses, and is made again after a cancellation. No scope, lock or task group is held between
two reads (PEP 789).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self, cast

from neuralbox_async._async_only import AsyncIterationOnly, AsyncOnly
from neuralbox_async._call.stream_interruption import interruption
from neuralbox_async._call.stream_lifetime import StreamLifetime
from neuralbox_async._call.stream_reader import StreamReader
from neuralbox_async._call.stream_state import (
    CLOSED,
    COMPLETE,
    ENDED,
    StreamState,
    TextStream,
    check_not_ended,
    first_known,
)
from neuralbox_async._errors import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    GenerationFailedError,
    NeuralBoxError,
    ResponseError,
    StreamStateError,
)
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._secret import without_frames
from neuralbox_async._type_parameters import T
from neuralbox_async._types import ContentDelta, Generation, GenerationEnd, GenerationStart, StreamEvent

if TYPE_CHECKING:
    from neuralbox_async._call import unstreamed
    from neuralbox_async._wire import fast_path
else:
    unstreamed = lazy_module("neuralbox_async._call.unstreamed")
    fast_path = lazy_module("neuralbox_async._wire.fast_path")


_DRAIN_TIMEOUT = 0.25  # seconds for the server to end the body after the terminal event, so that the connection is kept


class AsyncStream(StreamLifetime[T], AsyncOnly, AsyncIterationOnly):
    """
    The events of one generation, each once and in order: an async context manager and an async iterator.

    Returned by `AsyncNeuralBox.stream`. Entering sends the request; leaving closes the connection, so that the server
    stops generating. Iterate the stream for every event, or `text_stream` for the pieces of text; afterwards
    `generation` has the complete result. A read that is cancelled or times out loses nothing: the next one continues.
    Only a terminal event of the API ends a stream. If it ends otherwise, each read raises the same
    `StreamInterruptedError`, which has the text so far. The text can always be encoded as UTF-8: surrogates in two
    deltas are joined, and a lone one becomes U+FFFD.
    """

    # -------------------------------------------------------------------------------------------------------- reading

    def __aiter__(self) -> Self:
        check_not_ended(self._state)
        return self

    async def __anext__(self) -> StreamEvent:
        """Return the next event. Raises `StreamInterruptedError`, `ClientClosedError` or `StreamStateError`."""
        while not self._pending:
            if not await self._fill():
                raise StopAsyncIteration
        return self._deliver(self._pending.popleft())

    async def read_batch(self) -> list[StreamEvent]:
        """
        Return all events that have arrived, at least one; ``[]`` at the end. Raises the errors of reading one event.

        For bulk processing. A failure is raised by the call after the one that returned the events before it.
        """
        while not self._pending:
            if not await self._fill():
                return []
        batch: list[StreamEvent] = []
        for event_type, run in groupby(self._pending, type):
            if event_type is dict:
                deltas = fast_path.delta_events(cast("list[dict[str, Any]]", list(run)))
                self._texts += [event.delta for event in deltas]
                batch += deltas
            else:
                batch += map(self._deliver, run)
        self._pending.clear()
        return batch

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The pieces of text, without the other events: an async iterator over the same stream."""
        return TextStream(self, self._next_text)

    async def get_final_generation(self) -> Generation:
        """Read to the end and return `generation`. Raises the errors of reading."""
        while await self.read_batch():
            pass
        if not self._has_ended():
            msg = "the stream was closed before its end; `generation` has the text so far"
            raise StreamStateError(msg)
        return self.generation

    @property
    def generation(self) -> Generation:
        """The delivered events as a `Generation`; its status is ``"incomplete"`` until the end has been reached."""
        complete = self._has_ended()
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
            finish_reason=self._end.finish_reason,
            problems=self._start.problems + self._end.problems,
            raw=self._end.raw,
            response=self.response,
        )

    # -------------------------------------------------------------------------------------------------------- private

    async def _next_text(self) -> str:
        """Return the next piece of text, for `text_stream`."""
        # Not through __anext__: its event is a fifth of the cost of a piece of text (benchmark scenario `stream`).
        while True:
            while not self._pending:
                if not await self._fill():
                    raise StopAsyncIteration
            event = self._pending.popleft()
            if isinstance(event, dict):
                text: str = event["delta"]
                self._texts.append(text)
                return text
            if isinstance(delivered := self._deliver(event), ContentDelta):
                return delivered.delta

    def _deliver(self, event: StreamEvent | dict[str, Any]) -> StreamEvent:
        """Record *event* at the moment when the user gets it."""
        if isinstance(event, dict):
            event = fast_path.delta_event(event)
            self._texts.append(event.delta)
        elif isinstance(event, ContentDelta):
            self._texts.append(event.delta)
        elif isinstance(event, GenerationStart):
            self._start = first_known(self._start, event)
        elif isinstance(event, GenerationEnd):
            self._end = event
        return event

    async def _fill(self) -> bool:
        """Wait for more events to deliver; return False when no more will come."""
        if self._failure is not None:
            raise self._failure
        if self._state is CLOSED or self._state is COMPLETE:
            return False
        if (reader := self._reader) is None:
            msg = "the stream is not open: use `async with client.stream(...) as stream`"
            raise StreamStateError(msg)
        if self._is_reading:
            msg = "another task is reading this stream"
            raise StreamStateError(msg)
        self._is_reading = True
        try:
            if self._state is ENDED:
                await self._drain(reader)
                return True
            if (failure := self._pending_failure) is None:
                try:
                    await self._read(reader)
                except (APIConnectionError, ResponseError, GenerationFailedError, ClientClosedError) as error:
                    failure = self._pending_failure = without_frames(error)
            # Not in the handler: an error raised there would have the frames of the read in its context.
            if failure is not None:
                await self._recover_or_raise(reader, failure)
            if self._record is not None:
                self._record.receive_events(self._pending, self._texts, self._state)
        finally:
            self._is_reading = False
        return True

    async def _read(self, reader: StreamReader) -> None:
        # The timeouts count only while a read waits: a slow reader is not a stalled server.
        started, timeouts = self._now(), self._timeouts
        if started >= timeouts.total and timeouts.total_has_expired(started):
            msg = "the stream exceeded its timeout"
            raise APITimeoutError(msg, phase="total", request_sent=True)
        deadline = timeouts.read_deadline(started)
        try:
            late = timeouts.has_expired(started)
            is_stream = reader.has_events or await reader.detect_event_stream(deadline)
            received = await reader.next_events(deadline) if is_stream else []
            self._check_not_closed()
            self._take(received or [])
        except APITimeoutError as error:
            raise APITimeoutError(error.message, phase=timeouts.phase, request_sent=True, body=error.body) from None
        finally:
            # Also when the wait was cancelled: a reader that polls with short timeouts waits as well.
            timeouts.update(self._pending, self._now() - started)
        if not is_stream:
            await self._read_unstreamed(reader)
        elif received is None:
            raise APIConnectionError("the connection was closed", request_sent=True)
        elif late and timeouts.has_expired(self._now()) and self._state is StreamState.OPEN:
            # A read that finds data never waits: without this, a flood of heartbeats would have no timeout.
            timeout = APITimeoutError("no content arrived in time", phase=timeouts.phase, request_sent=True)
            self._pending_failure = self._pending_failure or timeout

    async def _read_unstreamed(self, reader: StreamReader) -> None:
        """Read a response that is no event stream: one delta, and the end or, if it is not whole, the failure."""
        whole, failure = await unstreamed.read_generation(reader, self._decode, self._timeouts, self._now)
        self._check_not_closed()
        if failure is None:
            self._take_whole(whole)
            return
        self._start = first_known(self._start, GenerationStart(whole.id, whole.model, problems=whole.problems))
        if whole.content:
            self._pending.append(ContentDelta(whole.content))
        self._pending_failure = without_frames(failure)

    def _take(self, received: list[bytes | str]) -> None:
        """Make events pending, up to the terminal event or the first that is malformed; the rest is ignored."""
        try:
            self._decoder.decode(received, self._pending)
        except NeuralBoxError as error:
            self._pending_failure = without_frames(error)
        if self._decoder.ended:
            self._move(ENDED)

    def _take_whole(self, whole: Generation, so_far: str = "") -> None:
        """Make pending the part of *whole*, a completed generation, beyond the text *so_far*."""
        self._whole = whole
        self._move(ENDED)
        if rest := whole.content[len(so_far) :]:
            self._pending.append(ContentDelta(rest, raw=whole.raw))
        self._pending.append(unstreamed.end_of(whole))

    async def _drain(self, reader: StreamReader) -> None:
        """Read the rest of the body after the terminal event, for a moment, so that the connection is reused."""
        with suppress(NeuralBoxError):  # everything has been delivered: a failure does not matter any more
            deadline = self._now() + _DRAIN_TIMEOUT
            while self._now() < deadline and await reader.next_events(deadline) is not None:
                pass
        self._close()

    async def _recover_or_raise(self, reader: StreamReader, error: NeuralBoxError) -> None:
        """Get the rest of a generation whose stream broke with *error* from the API, or raise the interruption."""
        self._check_not_closed()
        reader.close()
        # The frame that raises has no local with what was received, which may echo the key.
        if not await self._recover_rest(error):
            self._move(StreamState.INTERRUPTED)
            self._close()
            raise cast("NeuralBoxError", self._failure)

    async def _recover_rest(self, error: NeuralBoxError) -> bool:
        """Make the rest of the generation pending and return True, or record the interruption."""
        generation_id, whole = self._start.id, None
        hopeless = isinstance(error, GenerationFailedError | ClientClosedError)
        if self._recover is not None and generation_id is not None and not hopeless:
            started = self._now()
            try:
                with nullcontext() if self._record is None else self._record.as_parent():
                    whole = await self._recover(generation_id, self._timeouts.recovery_deadline(started))
            except GenerationFailedError as failure:
                error = failure
            except NeuralBoxError as failure:
                error.add_note(f"recovering generation {generation_id} failed: {failure}")
            finally:
                self._timeouts.count_recovery(self._now() - started)
            self._check_not_closed()
        so_far = self.generation
        if whole is not None and whole.content.startswith(so_far.content):
            self._take_whole(whole, so_far.content)
            return True
        self._failure = self._annotate(interruption(self._annotate(error), so_far, whole))
        self._failure.__cause__ = without_frames(error)
        return False

    def _annotate(self, error: NeuralBoxError) -> NeuralBoxError:
        return error if self._call is None else self._call.annotate(error)
