"""`Stream`: the blocking view of an `AsyncStream`."""

import contextlib
import operator
from collections import deque
from collections.abc import Iterator
from typing import Self

from neuralbox_async import AsyncStream, ClientClosedError, ContentDelta, Generation, StreamEvent
from neuralbox_sync._blocking import View, blocking
from neuralbox_sync._loop import EventLoop


class Stream(View[AsyncStream]):
    """
    The events of one generation, once each and in order: a context manager and an iterator, for any thread.

    Entering sends the request; leaving it, or dropping it, closes the connection, so that the server stops generating.
    Iterate it for every event, or `text` for the pieces of text. Errors are those of `AsyncStream`.
    """

    def __init__(self, subject: AsyncStream, loop: EventLoop, owner: object) -> None:
        super().__init__(subject, loop, owner)
        self._events: deque[StreamEvent] = deque()

    def __enter__(self) -> Self:
        try:
            self._loop.call(self._subject.__aenter__)
        except BaseException:
            self.close()  # an interrupt may come when it is just open
            raise
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        while True:
            try:
                return self._events.popleft()
            except IndexError:
                if not self._loop.call(self._fill):
                    raise StopIteration from None

    @property
    def text(self) -> Iterator[str]:
        """The pieces of text, without the other events."""
        # No generator: an interrupt would finish it, and the next read would look like the end of the stream.
        return map(operator.attrgetter("delta"), filter(lambda event: isinstance(event, ContentDelta), self))

    @property
    def generation(self) -> Generation:
        """What has arrived, as a `Generation`; its status is ``"incomplete"`` until the end was reached."""
        return self._subject.generation

    until_done = blocking(AsyncStream.until_done)

    def close(self) -> None:
        """Close the connection, and wake a reader; idempotent, from any thread."""
        self._events.clear()
        with contextlib.suppress(ClientClosedError):  # its streams were closed with it
            self._loop.call(self._subject.aclose)

    async def _fill(self) -> bool:
        batch = await self._subject.read_batch()
        self._events.extend(batch)  # here, on the loop, no interrupt can lose them
        return bool(batch)
