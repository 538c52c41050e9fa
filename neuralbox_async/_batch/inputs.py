"""The input of a batch: requests, dicts or prompts, read one by one and made into valid requests."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from typing import Any, Final, Self, TypeAlias

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._lazy_imports import anyio, hashlib
from neuralbox_async._types import GenerateRequest
from neuralbox_async._validation import is_integer, is_mapping

RequestLike: TypeAlias = GenerateRequest | str | Mapping[str, Any]
"""
One request of a batch: a `GenerateRequest`, a prompt, or a dict.

A dict has ``messages`` or ``prompt``, may have ``key`` and the other fields of `GenerateRequest`, and further members
for the body.
"""
Requests: TypeAlias = Iterable[RequestLike] | AsyncIterable[RequestLike]

END: Final = object()
"""Follows the last item."""

_KEY_LENGTH = 32  # hexadecimal digits of a body's hash


@attrs.frozen(kw_only=True)
class RequestDefaults:
    """The fields of requests that do not have them. Validated when made; raises `InvalidParameterError`."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        self.request({"prompt": "", "model": "any" if self.model is None else self.model})

    def request(self, item: object) -> GenerateRequest:
        """Return the request that *item* describes. Raises `InvalidParameterError`."""
        if isinstance(item, GenerateRequest):
            return item
        if isinstance(item, str):
            item = {"prompt": item}
        if not is_mapping(item):
            raise InvalidParameterError("requests[]", item, "a GenerateRequest, a dict or a string")
        return GenerateRequest.from_dict(
            item, model=self.model, system=self.system, temperature=self.temperature, max_tokens=self.max_tokens
        )


class InputReader:
    """The items of *requests*, each read when it is needed. A context manager; `run` must run while it is entered."""

    def __init__(self, requests: Requests) -> None:
        self.taken = 0
        self.total: int | None = len(requests) if isinstance(requests, Sized) else None
        # An object that is both is meant to be read without blocking.
        self._async = _AsyncReader(aiter(requests)) if isinstance(requests, AsyncIterable) else None
        self._sync: Iterator[RequestLike] = iter(()) if isinstance(requests, AsyncIterable) else iter(requests)

    def __enter__(self) -> Self:
        if self._async is not None:
            self._async.open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._async is not None:
            self._async.close()

    async def next(self) -> object:
        """Return the next item, or `END`. Raises the errors of the user's iterator."""
        item = next(self._sync, END) if self._async is None else await self._async.next()
        if item is END:
            self.total = self.taken
        else:
            self.taken += 1
        return item

    async def run(self) -> None:
        """Read an async iterator for `next`, in a task of its own; return at once for other iterables."""
        if self._async is not None:
            await self._async.run()


class _AsyncReader:
    """
    Reads an async iterator, one item for each `next`, all in the task of `run`.

    Scopes that the iterator holds across its yields (a timeout, a task group) belong to that task, and may cancel it.
    """

    def __init__(self, iterator: AsyncIterator[RequestLike]) -> None:
        self._iterator = iterator

    def open(self) -> None:
        self._demand, self._demands = anyio.create_memory_object_stream[None](1)
        self._send, self._items = anyio.create_memory_object_stream[tuple[object, Exception | None]](1)

    def close(self) -> None:
        for stream in (self._demand, self._demands, self._send, self._items):
            stream.close()

    async def next(self) -> object:
        self._demand.send_nowait(None)
        try:
            item, error = await self._items.receive()
        except anyio.EndOfStream:  # a scope of the iterator cancelled its task
            return END
        if error is not None:
            raise error
        return item

    async def run(self) -> None:
        with self._send:
            async for _ in self._demands:
                try:
                    item, error = await anext(self._iterator, END), None
                except Exception as raised:  # noqa: BLE001 - an error of the user's code is for the reader
                    item, error = END, raised
                self._send.send_nowait((item, error))
                if item is END:
                    break


def check_requests(requests: Any) -> None:
    """Raise `InvalidParameterError` unless *requests* is an iterable of requests."""
    if not isinstance(requests, Iterable | AsyncIterable) or isinstance(requests, str | bytes | Mapping):
        raise InvalidParameterError("requests", requests, "an iterable or async iterable of requests, dicts or strings")


def content_key(body: bytes) -> str:
    """Return the key of a request without one. It must never change: journals identify requests by it."""
    return hashlib.sha256(body).hexdigest()[:_KEY_LENGTH]


def key_of(item: object) -> str | None:
    """Return the key in *item*, which is not a valid request, if there is one."""
    if isinstance(item, GenerateRequest):
        return item.key
    key = item.get("key") if is_mapping(item) else None
    if not (is_integer(key) or isinstance(key, str)) or key == "":
        return None
    return str(key).encode(errors="replace").decode()  # the key may be what makes the request invalid
