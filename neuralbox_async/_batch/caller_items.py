"""The iterator of a blocking batch: read in the caller's thread, ahead of the batch on its loop."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from types import GeneratorType
from typing import TYPE_CHECKING, Any, cast

from neuralbox_async._batch.inputs import END, ItemReader
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import Event

    from neuralbox_async._batch.inputs import RequestLike
    from neuralbox_async._batch.results import ResultBuffer

_INTERRUPTED = "the iterator of the requests ended after an interrupt: it may not have been read to its end"


def lazy_messages(item: object) -> Iterable[object] | None:
    """Return the messages in *item*, a dict, if they are read when they are iterated over, such as a queryset."""
    messages: object = cast("dict[str, object]", item).get("messages") if isinstance(item, dict) else None
    if messages is None or isinstance(messages, str | list | tuple | Mapping) or hasattr(messages, "model_dump"):
        return None
    if hasattr(messages, "__array__"):  # of numpy, as pandas reads lists from Parquet: it is in memory
        return None
    return cast("Iterable[object]", messages) if isinstance(messages, Iterable) else None


class _Unreadable:
    """Messages whose iterator raised *error*."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[object]:
        raise self._error


class CallerItems(ItemReader):
    """
    Items that a thread of the caller reads from a blocking iterator, as many ahead as there may be in flight.

    An interrupt in the caller's thread loses no item: CPython handles signals only after a call, so each step that must
    be whole is one call of a function written in C, or has no call.
    """

    def __init__(self, requests: Iterable[RequestLike], on_demand: Callable[[], None]) -> None:
        self.total = len(requests) if isinstance(requests, Sized) else None
        self._iterator = iter(requests)
        self._source = itertools.chain(self._iterator, itertools.repeat(END))  # the end is an item as well
        self._on_demand = on_demand
        self._read: list[object] = []  # the item that was read and not passed on, if any
        self._items: deque[object] = deque()
        self._error: BaseException | None = None  # of the iterator
        self._interrupted = self._ended = self._stopped = False
        self._max_items = 0  # until the batch has started
        self._buffer: ResultBuffer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awaited: Event | None = None  # of the batch, which waits or has waited for the next item
        self._woken: Event | None = None  # the last that was set
        self._thread: int | None = None  # that reads

    # --------------------------------------------------------------------------------------------- in the loop's thread

    def start(self, buffer: ResultBuffer, max_in_flight: int) -> None:
        """Allow reading *max_in_flight* items ahead, until *buffer* has results."""
        self._buffer, self._max_items = buffer, max_in_flight
        self._loop = asyncio.get_running_loop()

    async def next(self) -> object:
        """Return the next item, or `END`. Raises the error of the iterator."""
        while not self._stopped:
            if self._items:
                if self._items[0] is END:
                    return END
                item = self._items.popleft()
                if self.wanted:
                    self._on_demand()
                return item
            if self._error is not None:
                raise self._error
            self._awaited = anyio.Event()
            if not self._items and self._error is None:  # the other thread saw no event when it added them
                self._on_demand()
                await self._awaited.wait()
        return END

    def stop(self) -> None:
        """Pass on nothing more; a thread that reads the iterator stops after the item that it waits for."""
        self._stopped = True
        if self._awaited is not None:
            self._awaited.set()

    async def wait_stopped(self, timeout: float) -> None:
        """Do nothing: the caller's thread closes the iterator."""

    # ------------------------------------------------------------------------------------------- in the caller's thread

    @property
    def wanted(self) -> bool:
        """Whether so few items are left that a thread which waits for results should read more. From any thread."""
        return self.has_room and len(self._items) <= self._max_items // 2

    @property
    def has_room(self) -> bool:
        """Whether another item may be read."""
        ends = self._ended or self._stopped or self._error is not None
        return not ends and len(self._items) < self._max_items

    @property
    def has_results(self) -> bool:
        """Whether results are ready, which should not wait for another item."""
        return self._buffer is not None and self._buffer.has_results

    @property
    def stopped(self) -> bool:
        """Whether the batch takes no more items."""
        return self._stopped

    def read(self) -> None:
        """Read an item and pass it on. An `Exception` of the iterator is passed on too; others, interrupts, raise."""
        self._thread = threading.get_ident()
        if not self._read:
            one = itertools.islice(self._source, 1)
            try:
                self._read.extend(one)
            except Exception as error:
                if self._read:  # a signal handler's, after the item
                    raise
                self._error = error
            except BaseException:
                self._interrupted = not self._read  # a generator that an exception has left is at its end
                raise
        if self._read:
            self._read_messages()
            self._pass_on()
        self.wake()

    def _read_messages(self) -> None:
        """Read the messages of the item as a list if they are lazy: their code belongs to this thread as well."""
        if (messages := lazy_messages(self._read[0])) is None:
            return
        # None until all are read: after an interrupt, the iterator would have only the rest of them.
        item = {**cast("Mapping[str, Any]", self._read[0]), "messages": ()}
        self._read[0] = item
        try:
            item["messages"] = list(messages)
        except Exception as error:  # noqa: BLE001 - of the user's own code: it is that of the request
            item["messages"] = _Unreadable(error)

    def _pass_on(self) -> None:
        is_end = self._read[0] is END
        if is_end and self._interrupted:
            self._error = RuntimeError(_INTERRUPTED)
            return
        self._interrupted = False
        self._items.extend(map(self._read.pop, (0,)))
        self._ended = is_end  # if an interrupt prevents it, another END is read

    def wake(self) -> None:
        """Wake the batch if it waits for what is there; called again after an interrupt that may have prevented it."""
        awaited = self._awaited
        if awaited is None or awaited is self._woken or not (self._items or self._error):
            return
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and the batch with it
                self._loop.call_soon_threadsafe(awaited.set)
        self._woken = awaited

    def close(self) -> None:
        """Close the iterator if it is a generator, and this thread has read it. Idempotent."""
        iterator: object = self._iterator
        if isinstance(iterator, GeneratorType) and self._thread in {None, threading.get_ident()}:
            iterator.close()
