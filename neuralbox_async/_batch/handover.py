"""The passing of items from the task that takes them to the tasks that process them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic

from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._type_parameters import T

if TYPE_CHECKING:
    from asyncio import Future


class Handover(Generic[T]):
    """
    Passes each item to one of the tasks that wait for one. For one event loop.

    Not a memory object stream of anyio: to receive from that takes a turn of the event loop more (benchmark scenario
    `batch`), and it loses an item whose receiver is cancelled by `asyncio.Task.cancel`.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: deque[Future[T | None]] = deque()
        self._ended = False

    def put(self, item: T) -> None:
        """Pass *item* to a task that waits, or to the next one that does."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(item)
                return
        self._items.append(item)

    async def take(self) -> T | None:
        """Return the next item, once there is one; None after the last."""
        if self._items:
            return self._items.popleft()
        if self._ended:
            return None
        future: Future[T | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and (item := future.result()) is not None:
                self.put(item)  # it came together with the cancellation
            raise

    def end(self) -> None:
        """Add no more: the tasks that wait get None. Idempotent."""
        self._ended = True
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
