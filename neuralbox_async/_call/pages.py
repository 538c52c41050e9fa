"""Lists that the API sends in pages: `PageReader` reads one, and `AsyncHistory` is one for the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from neuralbox_async._account_types import HistoryEntry
from neuralbox_async._async_only import AsyncIterationOnly
from neuralbox_async._errors import ResponseError

if TYPE_CHECKING:
    from neuralbox_async._wire.account import Page

T = TypeVar("T")

_MAX_PAGES = 100_000  # of a list: 10,000,000 entries in the largest pages
_MAX_RECENT = 10_000  # entries with which those of a page are compared
_MAX_KNOWN = 20  # pages without anything new, one after the other: entries that are added between two reads move them


class PageReader(Generic[T]):
    """
    The pages of a list, each requested when it is needed, from the page *first* on.

    *fetch* gets the page with a number; *identity* returns what is equal for two entries of one thing.
    *until_empty*: a page that does not report how many there are is followed by another, until one has nothing new.
    """

    def __init__(
        self,
        fetch: Callable[[int], Awaitable[Page[T]]],
        identity: Callable[[T], Hashable],
        *,
        first: int = 1,
        until_empty: bool,
    ) -> None:
        self.total: int | None = None
        self._fetch, self._identity, self._until_empty = fetch, identity, until_empty
        self._number = first
        self._ended = False
        self._first = first
        self._recent: dict[Hashable, None] = {}
        self._known = 0  # the pages without anything new since the last one with

    async def next(self) -> list[T]:
        """
        Return the entries of the next page that were not on the pages before: ``[]`` at the end.

        Raises `ResponseError` after 100,000 pages: a server that makes entries up would be read indefinitely.
        Cancelling it loses nothing. Of two tasks that call it at once, one gets the page.
        """
        while not self._ended:
            number = self._number
            if number - self._first >= _MAX_PAGES:
                msg = f"the list does not end after {_MAX_PAGES:,} pages"
                raise ResponseError(msg, billed="no")
            page = await self._fetch(number)
            if number != self._number or self._ended:  # another task has got this page
                continue
            self.total = page.total
            # A list that grows while it is read moves its entries to later pages.
            new = [entry for entry in page.items if self._identity(entry) not in self._recent]
            self._number += 1
            self._remember(page)
            self._known = 0 if new else self._known + 1
            self._ended = self._is_last(page, number) or (not new and not self._may_be_moved(page))
            if new:
                return new
        return []

    def _may_be_moved(self, page: Page[T]) -> bool:
        """Return whether *page*, which has nothing new, may be followed by entries that newer ones have moved."""
        # A server that does not know pages sends the same one, or the same few, again and again.
        is_counted = page.pages is not None or page.total is not None
        return is_counted and bool(page.items) and self._known < _MAX_KNOWN

    def _remember(self, page: Page[T]) -> None:
        for identity in map(self._identity, page.items):
            self._recent.pop(identity, None)  # what is added again is the last
            self._recent[identity] = None
        while len(self._recent) > _MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def _is_last(self, page: Page[T], number: int) -> bool:
        if page.pages is not None:
            return number >= page.pages
        if page.total is not None:
            return number * (page.limit or len(page.items)) >= page.total
        return not self._until_empty


class AsyncHistory(AsyncIterationOnly):
    """
    The generations of the account, newest first: an async iterator of `HistoryEntry`, for any task.

    A page is requested when it is needed, and errors are raised then; reading on requests it again. *total* is the
    number of generations, None before the first page and if the API does not report it. An entry that moves to the next
    page because of newer generations is not repeated. After 100,000 pages, reading raises `ResponseError`.
    """

    def __init__(self, pages: PageReader[HistoryEntry]) -> None:
        self._pages = pages
        self._entries: deque[HistoryEntry] = deque()

    @property
    def total(self) -> int | None:
        """The number of generations in the whole list, as the last page reported it."""
        return self._pages.total

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HistoryEntry:
        while not self._entries:
            if not (entries := await self._pages.next()):
                raise StopAsyncIteration
            self._entries.extend(entries)
        return self._entries.popleft()

    async def read_batch(self) -> list[HistoryEntry]:
        """Return the rest of the current page, or else the whole next page; ``[]`` at the end."""
        if self._entries:
            entries = list(self._entries)
            self._entries.clear()
            return entries
        return await self._pages.next()
