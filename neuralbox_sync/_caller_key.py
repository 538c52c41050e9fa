"""Functions that return the key of a blocking client: called in the thread of the caller, not on the loop."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from neuralbox_async._api_key import as_secret_result

K = TypeVar("K")

_REENTRANT = "the api_key function must not call the client whose key it returns: use another client there"


class RunsInCaller(Protocol):
    """What has a thread of the caller: a blocking call, or a batch."""

    async def run_in_caller(self, function: Callable[[], object]) -> object:
        """Return the result of *function*, which the thread runs."""
        ...


class BlockingCall(RunsInCaller, Protocol):
    """A call for which a thread waits until it is *done*."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...


current_call: ContextVar[BlockingCall | None] = ContextVar("neuralbox_call", default=None)
current_batch: ContextVar[RunsInCaller | None] = ContextVar("neuralbox_batch", default=None)


class CallerKey:
    """An ``api_key`` for the async client: it calls *function*, a plain one, in the thread that made the call."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._running: set[int] = set()  # the threads that are in the function
        self.is_awaited = False
        """Whether its last result was awaitable, so that it can be used only once."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallerKey) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        return f"CallerKey({self._function!r})"

    async def __call__(self) -> str:
        call, batch = current_call.get(), current_batch.get()
        caller = batch if call is None or call.done else call  # the call that entered the batch is done
        if caller is batch and self.is_awaited:
            # In effect an async function, of which the batch has no last result to use while the thread is busy: its
            # iterator may wait for the result of this request.
            caller = None
        result = self.call() if caller is None else await caller.run_in_caller(self.call)
        return cast("str", await cast("Awaitable[object]", result) if isinstance(result, Awaitable) else result)

    def call(self) -> object:
        """Return the result of the function, as a secret."""
        thread = threading.get_ident()
        if thread in self._running:
            raise RuntimeError(_REENTRANT)
        self._running.add(thread)
        try:
            result = as_secret_result(self._function())
            self.is_awaited = isinstance(result, Awaitable)
            return result
        finally:
            self._running.discard(thread)


def called_in_caller(api_key: K) -> K:
    """Return *api_key*; a plain function that returns keys as a `CallerKey`, and an async one unchanged."""
    function: Any = api_key
    if isinstance(function, str | CallerKey) or not callable(function):
        return api_key
    call: Any = getattr(function, "__call__", None)  # noqa: B004 - of an object with an async method
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        return api_key
    return cast("K", CallerKey(function))
