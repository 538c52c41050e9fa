"""What a batch is given: requests, dicts or strings, read one by one and made into requests that can be sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from typing import Any, Final, TypeAlias, cast

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._loading import asyncio, hashlib
from neuralbox_async._types import GenerateRequest, is_mapping

RequestLike: TypeAlias = GenerateRequest | str | Mapping[str, Any]
"""
What a batch takes for one request: a `GenerateRequest`, a prompt, or a dict.

A dict has ``messages`` or ``prompt``, may have ``key`` and the other fields of `GenerateRequest`, and further members
for the body.
"""
Requests: TypeAlias = Iterable[RequestLike] | AsyncIterable[RequestLike]

END: Final = object()
"""Comes after the last item."""

_FIELDS = ("model", "system", "temperature", "max_tokens", "key")
_KEY_LENGTH = 32  # hexadecimal digits of a content's hash


@attrs.frozen(kw_only=True)
class Defaults:
    """The fields of requests that do not have them. Checked when it is made; raises `InvalidParameterError`."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        self.request({"prompt": "", "model": "any" if self.model is None else self.model})

    def request(self, given: object) -> GenerateRequest:
        """Return the request that *given* stands for. Raises `InvalidParameterError`."""
        if isinstance(given, GenerateRequest):
            return given
        if isinstance(given, str):
            # As most are; twice as fast as the way of the others.
            return GenerateRequest(
                cast("str", self.model),
                given,
                system=self.system,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
        if is_mapping(given):
            members = {name: value for name, value in given.items() if value is not None}
            return self._request(_messages_of(members), members)
        raise InvalidParameterError("requests[]", given, "a GenerateRequest, a dict or a string")

    def _request(self, messages: Any, members: dict[str, Any]) -> GenerateRequest:
        known = {name: members.pop(name) for name in _FIELDS if name in members}
        extra_body = members.pop("extra_body", {})
        if members and is_mapping(extra_body):
            extra_body = {**members, **extra_body}
        key = known.get("key")
        return GenerateRequest(
            # None is refused, as any wrong value is.
            cast("str", known.get("model", self.model)),
            messages,
            system=known.get("system", self.system),
            temperature=known.get("temperature", self.temperature),
            max_tokens=known.get("max_tokens", self.max_tokens),
            extra_body=extra_body,
            key=_text_of(key),
        )


def _text_of(key: Any) -> Any:
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else key


def _messages_of(members: dict[str, Any]) -> Any:
    prompt = members.pop("prompt", None)
    if prompt is None:
        return members.pop("messages", None)
    if "messages" in members or not isinstance(prompt, str):
        raise InvalidParameterError("prompt", prompt, "a string, in place of 'messages'")
    return prompt


class Items:
    """What a batch was given, each read when it is asked for."""

    def __init__(self, requests: Requests) -> None:
        self.taken = 0
        self.total: int | None = len(requests) if isinstance(requests, Sized) else None
        # What is of both kinds is meant to be read without blocking.
        self._awaited = _Reader(aiter(requests)) if isinstance(requests, AsyncIterable) else None
        self._plain: Iterator[RequestLike] = iter(()) if isinstance(requests, AsyncIterable) else iter(requests)

    async def next(self) -> object:
        """Return the next, or `END`. Raises what the user's iterator raises."""
        given = next(self._plain, END) if self._awaited is None else await self._awaited.read()
        if given is END:
            self.total = self.taken
        else:
            self.taken += 1
        return given

    async def aclose(self, timeout: float) -> None:
        """Stop reading; wait for the user's iterator to unwind, *timeout* seconds at most."""
        if self._awaited is not None:
            await self._awaited.aclose(timeout)


class _Reader:
    """
    Reads an async iterator, one item for each `read`, all in one task.

    What it opens while it runs (a timeout, a task group) belongs to the task that it runs in, and may cancel that one.
    """

    def __init__(self, iterator: AsyncIterator[RequestLike]) -> None:
        self._iterator = iterator
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._answer: asyncio.Future[object] | None = None

    async def read(self) -> object:
        """Return the next item, or `END`. Raises what the iterator raises."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._wanted.set()
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await self._answer

    async def aclose(self, timeout: float) -> None:
        """Stop, as a task that is cancelled does."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=timeout)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                outcome, error = await anext(self._iterator, END), None
            except Exception as raised:  # noqa: BLE001 - whatever the user's code raises is for who reads
                outcome, error = END, raised
            answer = self._answer
            if answer is None or answer.done():
                return  # nobody waits any more
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(outcome)
            if outcome is END:
                return


def check_requests(requests: Any) -> None:
    """Raise `InvalidParameterError` unless *requests* is what a batch takes."""
    if not _is_series(requests):
        raise InvalidParameterError("requests", requests, "an iterable or async iterable of requests, dicts or strings")


def _is_series(value: Any) -> bool:
    return isinstance(value, Iterable | AsyncIterable) and not isinstance(value, str | bytes | Mapping)


def content_key(body: bytes) -> str:
    """Return the key of a request without one, from what is sent. It must never change: journals are known by it."""
    return hashlib.sha256(body).hexdigest()[:_KEY_LENGTH]


def key_of(given: object) -> str | None:
    """Return the key that is in *given*, which makes no request, if there is one."""
    if isinstance(given, GenerateRequest):
        return given.key
    key = given.get("key") if is_mapping(given) else None
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        return None
    return str(key).encode(errors="replace").decode()  # it may be what makes the request invalid
