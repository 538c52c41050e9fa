"""What is read bit by bit: the blocking views of `AsyncStream` and `AsyncBatch`."""

import contextlib
import operator
import os
from collections import deque
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import neuralbox_async
from neuralbox_async import AsyncBatch, AsyncStream, ClientClosedError, ContentDelta, StreamStateError
from neuralbox_sync._blocking import View, like
from neuralbox_sync._loop import EventLoop

S = TypeVar("S", bound="AsyncStream | AsyncBatch")
T = TypeVar("T")


class Bulk(View[S], Iterator[T]):
    """A view to iterate over, in any thread: what arrived together is fetched together, in one change of threads."""

    def __init__(self, subject: S, loop: EventLoop, owner: object) -> None:
        super().__init__(subject, loop, owner)
        self._items: deque[T] = deque()
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        try:
            self._here.call(self._subject.__aenter__)
        except BaseException:
            self.close()  # an interrupt may come when it is just open
            raise
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                if not self._here.call(self._fill):
                    raise StopIteration from None

    def close(self) -> None:
        """Close it, and wake a reader; what has arrived can still be read. Idempotent, from any thread."""
        with contextlib.suppress(ClientClosedError, StreamStateError):  # closed with its client, or not ours
            self._here.call(self._subject.aclose)

    @property
    def _here(self) -> EventLoop:
        if self._pid != os.getpid():
            raise StreamStateError("it was opened before the fork, by another process: open one here")
        return self._loop

    async def _fill(self) -> bool:
        items: list[Any] = await self._subject.read_batch()
        self._items.extend(items)  # here, on the loop, no interrupt can lose them
        return bool(items)


class Stream(Bulk[AsyncStream, neuralbox_async.StreamEvent]):
    """The events of one generation: a context manager and an iterator, for any thread; see `AsyncStream`."""

    @property
    def text(self) -> Iterator[str]:
        """The pieces of text, without the other events."""
        # No generator: an interrupt would end it, and the next read look like the end. No lambda: it costs a twentieth.
        return map(operator.attrgetter("delta"), filter(ContentDelta.__instancecheck__, self))

    @property
    def generation(self) -> neuralbox_async.Generation:
        """What has arrived, as a `Generation`; its status is ``"incomplete"`` until the end was reached."""
        return self._subject.generation

    @like(AsyncStream.until_done)
    def until_done(self) -> neuralbox_async.Generation:
        return self._here.call(self._subject.until_done)


class Batch(Bulk[AsyncBatch, neuralbox_async.BatchResult]):
    """Many generations, some at a time: a context manager and an iterator over results; see `AsyncBatch`."""

    @property
    def progress(self) -> neuralbox_async.BatchProgress:
        """How far it has come."""
        return self._subject.progress

    @property
    def report(self) -> neuralbox_async.BatchReport:
        """What was done, and what was left; so far, while it runs."""
        return self._subject.report

    def stop(self) -> None:
        """Send nothing more; what is in flight is finished, and its results come."""
        self._here.call(self._stop)

    async def _stop(self) -> None:
        self._subject.stop()
