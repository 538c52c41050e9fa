"""The blocking iterators: views of `AsyncStream` and `AsyncBatch`."""

import contextlib
import enum
import functools
import operator
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar

import neuralbox_async
from neuralbox_async import AsyncBatch, AsyncStream, BatchStateError, ClientClosedError, ContentDelta, StreamStateError
from neuralbox_async._batch.caller_thread import CallerThread, take_results
from neuralbox_async._type_parameters import T as Y
from neuralbox_sync._blocking import View, documented_by
from neuralbox_sync._caller_key import CallerKey, current_batch
from neuralbox_sync._loop import EventLoop, despite_interrupt

S = TypeVar("S", bound="AsyncStream[Any] | AsyncBatch[Any]")
T = TypeVar("T")
V = TypeVar("V", bound="BulkIterator[Any, Any]")

_END: Final = object()


class Arrived(deque[T]):
    """Items that have arrived and were not read."""

    # An attribute: CPython handles signals after each call, and an interrupt there would lose the item.
    if TYPE_CHECKING:

        @property
        def next_item(self) -> T: ...
    else:
        next_item = property(deque.popleft)


class ReadingState(enum.Enum):
    """
    The states of a view that is read.

        NEW --its `with` block or `open` begins--> ENTERED --first read--> READ <--next read, end--> ENDED
    """

    NEW = enum.auto()
    ENTERED = enum.auto()
    READ = enum.auto()
    ENDED = enum.auto()


class BulkIterator(View[S], Iterator[T]):
    """A view to iterate over, in any thread. Items that arrived together are fetched together, in one thread switch."""

    @property
    def _not_entered(self) -> neuralbox_async.NeuralBoxError:
        raise NotImplementedError

    def __init__(self, subject: S, loop: EventLoop, owner: object) -> None:
        super().__init__(subject, loop, owner)
        self._items: Arrived[T] = Arrived()
        self._state = ReadingState.NEW
        self._pid = os.getpid()

    def __enter__(self: V) -> V:  # noqa: PYI019 - as in `View`
        was_entered = self._is_entered
        try:
            self._loop_here().call(self._enter)
        except BaseException:
            self._close_unless(was_entered)
            raise
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._items.next_item
            except IndexError:
                if not self._here.call(self._fill):
                    self._state = ReadingState.ENDED
                    raise StopIteration from None

    def close(self) -> None:
        """Close it, and wake a reader; items that have arrived can still be read. Idempotent, from any thread."""
        with contextlib.suppress(ClientClosedError, StreamStateError):  # closed with its client, or of another process
            self._loop_here().call(self._subject.aclose)

    @property
    def _here(self) -> EventLoop:
        self._check_entered()
        return self._loop_here()

    def _loop_here(self) -> EventLoop:
        if self._pid != os.getpid():
            raise StreamStateError("it belongs to the parent process: open another one after the fork")
        return self._loop

    @property
    def _is_entered(self) -> bool:
        return self._state is not ReadingState.NEW

    def _begin(self) -> None:
        if self._state is ReadingState.NEW:
            self._state = ReadingState.ENTERED

    async def _enter(self) -> None:
        self._begin()
        await self._subject.__aenter__()

    def _close_unless(self, was_entered: bool) -> None:  # noqa: FBT001 - in one place each
        """Close it if it has just been opened, when an interrupt arrived."""
        if self._is_entered and not was_entered:
            despite_interrupt(self.close)

    def _check_entered(self) -> None:
        if not self._is_entered:
            raise self._not_entered

    async def _fill(self) -> bool:
        self._state = ReadingState.READ
        try:
            items: list[Any] = await self._subject.read_batch()
        except Exception:
            if self._items:  # an interrupted read got the last items after this one began; the next raises this again
                return True
            raise
        self._items.extend(items)  # on the loop, where no interrupt can lose them
        return bool(self._items)  # as above


class Stream(BulkIterator[AsyncStream[Y], neuralbox_async.StreamEvent], Generic[Y]):
    """The events of one generation: a context manager and an iterator, for any thread; see `AsyncStream`."""

    @property
    def _not_entered(self) -> StreamStateError:
        return StreamStateError("the stream is not open: use `with client.stream(...) as stream`")

    def __iter__(self) -> Self:
        if self._state is not ReadingState.READ:
            aiter(self._subject)  # raises if nothing follows; after an early exit, what had arrived still does
        return self

    @documented_by(AsyncStream.open)
    def open(self, *, wait_for: Literal["response", "first_event"] = "response") -> Self:
        """Send the request, as ``with`` does, where a block cannot span the use of the stream. Return the stream."""
        was_entered = self._is_entered
        try:
            self._loop_here().call(functools.partial(self._open, wait_for))
        except BaseException:
            self._close_unless(was_entered)
            raise
        return self

    async def _open(self, wait_for: Literal["response", "first_event"]) -> None:
        self._begin()
        await self._subject.open(wait_for=wait_for)

    @property
    def text_stream(self) -> Iterator[str]:
        """The pieces of text, without the other events."""
        # Not a generator: an interrupt would finish it, and the next read would look like the end of the stream.
        return map(operator.attrgetter("delta"), filter(ContentDelta.__instancecheck__, self))

    @property
    def generation(self) -> neuralbox_async.Generation:
        """The events so far as a `Generation`; its status is ``"incomplete"`` until the end has been reached."""
        return self._subject.generation

    @property
    def response(self) -> neuralbox_async.ResponseInfo | None:
        """The HTTP response; None before the stream is open."""
        return self._subject.response

    @documented_by(AsyncStream.get_final_generation)
    def get_final_generation(self) -> neuralbox_async.Generation:
        """Read to the end and return `generation`. Raises the errors of reading."""
        return self._here.call(self._subject.get_final_generation)

    @documented_by(AsyncStream.partials)
    def partials(self) -> Iterator[Any]:
        """Return an iterator over the value as it grows: dicts or lists of JSON values, not validated."""
        return _Partials(self._subject.partials(), self._here)

    @documented_by(AsyncStream.get_final_value)
    def get_final_value(self) -> Y:
        """Read to the end and return the value, validated."""
        return self._here.call(self._subject.get_final_value)


def subject_of(stream: Stream[Y]) -> AsyncStream[Y]:
    """Return what *stream* is a view of, for `neuralbox_sync.web`."""
    return stream._subject  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def call_on_loop(stream: Stream[Any], function: Callable[[], Awaitable[T]]) -> T:
    """Return the result of the coroutine *function*, run on the loop of *stream*."""
    return stream._loop_here().call(function)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


class _Partials(Iterator[Any]):
    """The blocking iterator over *partials*."""

    def __init__(self, partials: AsyncIterator[Any], loop: EventLoop) -> None:
        self._partials, self._loop = partials, loop

    def __next__(self) -> Any:
        value = self._loop.call(self._next)
        if value is _END:
            raise StopIteration
        return value

    async def _next(self) -> Any:
        return await anext(self._partials, _END)


class Batch(BulkIterator[AsyncBatch[Y], neuralbox_async.BatchResult[Y]], Generic[Y]):
    """Many concurrent generations: a context manager and an iterator over results; see `AsyncBatch`."""

    def __init__(self, subject: AsyncBatch[Y], loop: EventLoop, owner: object, caller: CallerThread) -> None:
        super().__init__(subject, loop, owner)
        self._caller = caller

    def __next__(self) -> neuralbox_async.BatchResult[Y]:
        try:  # in one function: a return from another one, or from a `with` block, could lose the item
            while True:
                if self._is_entered and self._pid == os.getpid():
                    self._caller.run(has_results=bool(self._items))
                try:
                    return self._items.next_item
                except IndexError:
                    pass
                try:
                    if not self._here.call(self._fill):
                        break
                except ClientClosedError:
                    if not self._take_rest():
                        raise
            self._caller.finish()
            raise StopIteration  # noqa: TRY301 - as above
        except BaseException:
            self._caller.leave()
            raise

    def close(self) -> None:
        super().close()
        if self._pid == os.getpid():
            self._caller.close()

    def _take_rest(self) -> bool:
        """Take the results that had arrived before the client was closed. Return whether there are any."""
        if self._loop.closed:
            self._loop.close()  # waits for the thread that closes it: results arrive until the end
            take_results(self._subject, self._items)
        return bool(self._items)

    async def _enter(self) -> None:
        # Its requests start now, and the thread may read their results only much later.
        key = self._subject._executor.api_key  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - not for users
        if isinstance(key, CallerKey):
            first = await key()
            if not key.is_awaited:
                self._caller.remember(key.call, first)
        current_batch.set(self._caller)
        await super()._enter()

    async def _fill(self) -> bool:
        return await self._caller.read_until_work(super()._fill)

    @property
    def _not_entered(self) -> BatchStateError:
        return BatchStateError("the batch is not entered: use `with client.generate_many(...) as results`")

    @property
    def progress(self) -> neuralbox_async.BatchProgress:
        """The progress now."""
        self._check_entered()
        return self._subject.progress

    @property
    def report(self) -> neuralbox_async.BatchReport:
        """The final report; the report so far while the batch runs."""
        self._check_entered()
        return self._subject.report

    def stop(self) -> None:
        """Send nothing more; requests in flight finish, and their results arrive."""
        self._here.call(self._stop)

    async def _stop(self) -> None:
        self._subject.stop()
