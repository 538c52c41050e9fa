"""The input of a batch: requests, dicts or prompts, read one by one and made into valid requests."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._lazy_imports import anyio, asyncio, hashlib
from neuralbox_async._request_members import has_model
from neuralbox_async._types import GenerateRequest
from neuralbox_async._validation import check_key, is_mapping

if TYPE_CHECKING:
    from neuralbox_async._batch.results import ResultBuffer

RequestLike: TypeAlias = GenerateRequest | str | Mapping[str, Any]
"""
One request of a batch: a `GenerateRequest`, a prompt, or a dict.

A dict has ``messages`` or ``prompt``, and may have ``key`` and the other fields of `GenerateRequest`; see
`GenerateRequest.from_dict`. Its further members are not sent; they are in `BatchResult.item`. An object with ``keys()``
that `dict` accepts, such as a `sqlite3.Row`, is a dict as well.
"""
Requests: TypeAlias = Iterable[RequestLike] | AsyncIterable[RequestLike]
"""*requests*: an iterable or async iterable of requests (`RequestLike`)."""

END: Final = object()
"""The sentinel after the last item."""

_CANCELLED = "the iterator of the requests cancelled the task that reads it"
_KEY_LENGTH = 32  # hexadecimal digits of a body's hash
# Iterating over a DataFrame yields the names of its columns, or the columns themselves: each would be a prompt.
_ROWS_OF_FRAMES: Final = {
    ("pandas", "DataFrame"): "df.to_dict('records')",
    ("polars", "DataFrame"): "df.to_dicts()",
    ("polars", "LazyFrame"): "df.collect().to_dicts()",
}


@attrs.frozen(kw_only=True, eq=False)
class RequestDefaults:
    """The fields of requests that do not have them. Validated when made; raises `InvalidParameterError`."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        self.request({"prompt": "any", "model": "any" if self.model is None else self.model})

    def request(self, item: object) -> GenerateRequest:
        """Return the request that *item* describes. Raises `InvalidParameterError`."""
        if isinstance(item, GenerateRequest):
            return item
        if isinstance(item, str):
            # Not by way of a dict, which takes twice as long: most items are prompts (benchmark scenario `batch`).
            model: Any = self.model  # the request raises the error if it is None
            return GenerateRequest(
                model, item, system=self.system, temperature=self.temperature, max_tokens=self.max_tokens
            )
        item = as_mapping(item)
        if not is_mapping(item):
            raise InvalidParameterError("requests[]", item, "a GenerateRequest, a dict or a string")
        return GenerateRequest.from_dict(
            item, model=self.model, system=self.system, temperature=self.temperature, max_tokens=self.max_tokens
        )

    def check_model(self, item: object) -> None:
        """Raise `InvalidParameterError` if neither these defaults nor *item*, the first of a batch, have a model."""
        try:
            lacks_model = self.model is None and not has_model(as_mapping(item))
        except Exception:  # noqa: BLE001 - of methods of the user's own values: the item is invalid
            return
        if lacks_model:
            raise InvalidParameterError("model", None, "an argument, or a member of each request", show=False)


class ItemReader(AsyncIterator[RequestLike]):
    """Reads items without blocking the loop."""

    total: int | None = None  # the number of items, if it is known before the end

    async def next(self) -> object:
        """Return the next item, or `END`. Raises the errors of the user's iterator."""
        raise NotImplementedError

    def stop(self) -> None:
        """Read nothing more: `next` returns `END`, also where it waits now. Idempotent."""
        raise NotImplementedError

    async def wait_stopped(self, timeout: float) -> None:
        """Wait until the iterator has unwound, at most *timeout* seconds."""
        raise NotImplementedError

    def start(self, buffer: ResultBuffer, max_in_flight: int) -> None:
        """Start, for a batch with at most *max_in_flight* requests in flight and *buffer* for their results."""

    async def __anext__(self) -> RequestLike:
        item = await self.next()
        if item is END:
            raise StopAsyncIteration
        return cast("RequestLike", item)


class InputReader:
    """
    The items of *requests*, each read when it is needed.

    *collection*: the items once more, if they can be read twice; otherwise None.
    """

    def __init__(self, requests: Requests) -> None:
        self.taken = 0
        self.collection = _collection(requests)
        self.total: int | None = len(requests) if isinstance(requests, Sized) else None
        self.ended = False  # no item follows
        self._async: ItemReader | None = None
        self._sync: Iterator[RequestLike] = iter(())
        if isinstance(requests, ItemReader):
            self._async, self.total = requests, requests.total
        elif isinstance(requests, AsyncIterable):  # an object that is both is meant to be read without blocking
            self._async = _AsyncReader(aiter(requests))
        else:
            self._sync = iter(requests)

    def start(self, buffer: ResultBuffer, max_in_flight: int) -> None:
        """Start, for a batch with at most *max_in_flight* requests in flight and *buffer* for their results."""
        if self._async is not None:
            self._async.start(buffer, max_in_flight)

    async def next(self) -> object:
        """Return the next item, or `END`. Raises the errors of the user's iterator."""
        item = next(self._sync, END) if self._async is None else await self._async.next()
        if item is not END:
            self.taken += 1
        elif not self.ended:
            self.ended, self.total = True, self.taken
        return item

    def stop(self) -> None:
        """Read nothing more: `next` returns `END`, also where it waits now. Idempotent."""
        self.ended = True
        if self._async is not None:
            self._async.stop()

    async def aclose(self, timeout: float) -> None:
        """Stop, and wait until an async iterator has unwound, at most *timeout* seconds."""
        self.stop()
        if self._async is not None:
            await self._async.wait_stopped(timeout)


class _AsyncReader(ItemReader):
    """
    Reads an async iterator, one item for each `next`, all in one task.

    Scopes that the iterator holds across its yields (a timeout, a task group) belong to that task, and may cancel it.
    It is a task of asyncio in no task group: it is cancelled once, so that the iterator can await while it unwinds
    (anyio would cancel that, too), and an iterator that does not unwind delays nothing.
    """

    def __init__(self, iterator: AsyncIterator[RequestLike]) -> None:
        self._iterator = iterator
        self._task: asyncio.Task[None] | None = None
        self._demand, self._reply, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._item: object = END
        self._error: BaseException | None = None
        self._stopped = False

    async def next(self) -> object:
        if self._stopped:
            return END
        self._reply = anyio.Event()
        self._demand.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(lambda _: self._ended.set())
        elif self._task.done():  # it was cancelled between two items
            raise RuntimeError(_CANCELLED)
        await self._reply.wait()
        if self._error is not None:
            raise self._error
        return self._item

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._send(END)
            if self._task is not None:
                self._task.cancel()

    async def wait_stopped(self, timeout: float) -> None:
        if self._task is not None:
            with anyio.move_on_after(timeout, shield=True):
                await self._ended.wait()

    async def _run(self) -> None:
        item: object = None
        try:
            while item is not END:
                await self._demand.wait()
                self._demand = anyio.Event()
                item = await anext(self._iterator, END)
                self._send(item)
        except asyncio.CancelledError:  # by a scope of the iterator, unless reading was stopped
            self._send(END, RuntimeError(_CANCELLED))
            raise
        except GeneratorExit:  # the loop was closed
            raise
        except BaseException as error:  # noqa: BLE001 - an error of the user's code is for the reader
            self._send(END, error)

    def _send(self, item: object, error: BaseException | None = None) -> None:
        if not self._reply.is_set():
            self._item, self._error = item, error
            self._reply.set()


def check_requests(requests: Any, defaults: RequestDefaults) -> None:
    """Raise `InvalidParameterError` unless *requests* is an iterable of requests; the first in a list needs a model."""
    check_iterable(requests)
    if _is_sequence(requests) and len(requests) > 0:
        defaults.check_model(requests[0])


def check_iterable(requests: Any) -> None:
    """Raise `InvalidParameterError` unless *requests* is an iterable of requests."""
    for kind in type(requests).__mro__:
        if rows := _ROWS_OF_FRAMES.get((kind.__module__.partition(".")[0], kind.__name__)):
            rule = f"rows, not a {kind.__name__}: write {rows}, with a column `prompt` or `messages`"
            raise InvalidParameterError("requests", None, rule, show=False)
    if not _is_iterable_of_requests(requests):
        raise InvalidParameterError("requests", requests, "an iterable or async iterable of requests, dicts or strings")


def _is_iterable_of_requests(value: object) -> bool:
    return isinstance(value, Iterable | AsyncIterable) and not isinstance(value, str | bytes | Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence)


def _collection(requests: Any) -> Iterable[object] | None:
    # Not everything that has a length can be iterated over twice: a queue may be emptied by that.
    if isinstance(requests, Iterator | AsyncIterable) or not isinstance(requests, Collection):
        return None
    return cast("Collection[object]", requests)


def as_mapping(item: object) -> object:
    """Return *item*; as a dict if it is a row that has names but is no mapping, such as a `sqlite3.Row`."""
    if isinstance(item, str) or is_mapping(item) or not hasattr(type(item), "keys"):
        return item
    return dict(cast("Mapping[str, Any]", item))


def content_key(body: bytes) -> str:
    """Return the key of a request without one. It must never change: journals identify requests by it."""
    return hashlib.sha256(body).hexdigest()[:_KEY_LENGTH]


def key_of(item: object) -> Any:
    """Return the key in *item*, which is not a valid request, if it has one that is valid; otherwise None."""
    try:
        item = as_mapping(item)
        key = item.key if isinstance(item, GenerateRequest) else item.get("key") if is_mapping(item) else None
        if key is not None:
            check_key(key)
    except Exception:  # noqa: BLE001 - of methods of the user's own values; the key may make the request invalid
        return None
    return key


def plain(text: str) -> str:
    """Return *text* as a `str`: a class derived from that may have other methods, which do not work."""
    return text if type(text) is str else str.__str__(text)
