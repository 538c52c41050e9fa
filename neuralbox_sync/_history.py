"""The blocking iterator over the history: a view of `AsyncHistory`."""

from collections.abc import Iterator
from typing import Self

from neuralbox_async import AsyncHistory, HistoryEntry
from neuralbox_sync._loop import EventLoop
from neuralbox_sync._stream import Arrived


class History(Iterator[HistoryEntry]):
    """The generations of the account, newest first: an iterator for any thread; see `AsyncHistory`."""

    def __init__(self, subject: AsyncHistory, loop: EventLoop, owner: object) -> None:
        self._subject, self._loop, self._owner = subject, loop, owner
        self._entries: Arrived[HistoryEntry] = Arrived()

    @property
    def total(self) -> int | None:
        """The number of generations in the whole list, as the last page reported it."""
        return self._subject.total

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> HistoryEntry:
        # Not a generator: an error or an interrupt would finish it, and the next read would look like the end.
        while True:
            try:
                return self._entries.next_item
            except IndexError:
                if not self._loop.call(self._fill):
                    raise StopIteration from None

    async def _fill(self) -> bool:
        self._entries.extend(await self._subject.read_batch())  # on the loop, where no interrupt can lose them
        return bool(self._entries)
