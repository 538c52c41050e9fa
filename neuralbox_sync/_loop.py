"""A private event loop in a daemon thread. It runs between calls too, to notice when servers close idle connections."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import select
import selectors
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar

import anyio.from_thread

with contextlib.suppress(ImportError):  # here: an import in a thread may be cut off by a fork
    import sniffio

T = TypeVar("T")
Closed = Callable[[Literal["before", "during"]], Exception]

_MAIN_POLL, _POLL = 0.1, 1.0  # seconds; a signal, for the main thread, just before a wait is seen when that ends
_UNWIND, _START, _CLOSE = 1.0, 10.0, 2.0  # the longest waits: for an interrupted call, the loop's start, its end

_lock = threading.RLock()  # a signal handler may make its first call within a first call
_started: set[EventLoop] = set()
_inherited: list[object] = []  # by a fork; collected, it would clean up in the parent's name
_exiting = threading.Event()


class EventLoop:
    """
    Runs coroutines for any number of threads, on one loop in each process that it is forked into.

    *aclose* is awaited before the loop ends, for 1 s at most. *forget* is called in a forked child, where what is open
    is the parent's. *closed_error* makes the error of a call, told whether the loop was closed before or during it.
    """

    def __init__(self, aclose: Callable[[], Awaitable[None]], forget: Callable[[], None], closed_error: Closed) -> None:
        self._aclose, self._forget, self._closed_error = aclose, forget, closed_error
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return what the coroutine *function* returns. An interrupt of the wait cancels it; it has 1 s to unwind."""
        call = _Call(function)
        try:
            self._carry_out(call, self._live_loop())
            if call.errors:
                raise call.errors.pop()  # kept there, it would keep this frame alive, and with it the client
            return call.results.pop()
        finally:
            while _exiting.is_set() and threading.current_thread() is not threading.main_thread():
                time.sleep(_POLL)  # a daemon thread, which would print an error; it ends with the process

    def close(self, timeout: float = _CLOSE) -> None:
        """End the loop and what runs on it; wait for that, *timeout* seconds at most. Idempotent, from any thread."""
        self.closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)
            if self._thread.ident not in {None, threading.get_ident()}:
                self._thread.join(timeout)

    def drop(self) -> None:
        """Close, without waiting for anything, because the client has been collected."""
        if self in _started and not self.closed:
            self.close(timeout=0)
            warnings.warn("a client was never closed: use it in a `with` block", ResourceWarning, stacklevel=2)

    def disown(self) -> None:
        """In a forked child: let go without a word to the parent's servers, or to the selector that both share."""
        self._forget()
        with selectors.DefaultSelector() as fresh:
            os.dup2(fresh.fileno(), self._selector.fileno(), inheritable=False)
        _inherited.append((self._loop, self._tasks))
        self._loop = None

    def _live_loop(self) -> asyncio.AbstractEventLoop:
        if self.closed or _exiting.is_set():
            raise self._closed_error("before")
        with _lock:
            loop = self._start() if self._loop is None or self._stopping.is_set() else self._loop
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("a call on its own event loop never returns: await there, or use asyncio.to_thread")
        return loop

    def _start(self) -> asyncio.AbstractEventLoop:
        if (threading.get_ident.__module__, select.select.__module__) != ("_thread", "select"):
            patched = "monkey.patch_all(thread=False, queue=False, select=False)"
            raise RuntimeError(
                f"an event loop needs real threads, not gevent's: {patched}, or asyncio in its threadpool"
            )
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop's own references are weak
        self._selector = selectors.DefaultSelector()
        loop = asyncio.SelectorEventLoop(self._selector)  # the one kind that shows its descriptor, for `disown`
        self._thread = threading.Thread(target=self._run, args=(loop,), name="neuralbox", daemon=True)
        self._loop = loop
        _started.add(self)
        try:
            self._thread.start()
        except RuntimeError:  # out of threads; or, since Python 3.12, too late: the interpreter is ending
            self._loop = None
            raise
        return loop

    def _carry_out(self, call: _Call[Any], loop: asyncio.AbstractEventLoop) -> None:
        try:
            with contextlib.suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._spawn, call, context=call.context)
            self._wait(call, loop)
        except BaseException:
            call.abandon(loop)  # only this thread was interrupted, and what ran on would be billed
            raise

    def _wait(self, call: _Call[Any], loop: asyncio.AbstractEventLoop) -> None:
        poll = _MAIN_POLL if threading.current_thread() is threading.main_thread() else _POLL
        while not call.done:
            closed = loop.is_closed()
            with contextlib.suppress(queue.Empty):
                call.answer.get(timeout=0 if closed else poll)
                return
            if closed:
                raise self._closed_error("during")
            with contextlib.suppress(anyio.NoEventLoopError):  # this is no worker thread of anyio
                anyio.from_thread.check_cancelled()
            if self._thread.ident is None and time.monotonic() > call.born + _START:
                self._loop = None
                raise RuntimeError("the event loop's thread does not start; uWSGI needs --enable-threads for that")

    def _spawn(self, call: _Call[Any]) -> None:
        loop = asyncio.get_running_loop()
        if self._stopping.is_set() or loop is not self._loop:
            call.finish(self._closed_error("before"))
            return
        task = loop.create_task(self._answer(call), context=call.context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: _Call[Any]) -> None:
        try:
            with anyio.CancelScope() as call.scope:
                if not call.done:
                    call.results.append(await call.function())
            call.finish()
        except asyncio.CancelledError:  # by the end of the loop: nobody else has the task
            call.finish(self._closed_error("during"))
        except BaseException as error:  # noqa: BLE001 - SystemExit is for this caller, and would end the loop of all
            call.finish(error)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        # In an empty context: since Python 3.14 a thread may inherit one, and with it "inside trio".
        contextvars.Context().run(lambda: anyio.run(self._main, backend_options={"loop_factory": lambda: loop}))

    async def _main(self) -> None:
        with contextlib.suppress(NameError):
            sniffio.thread_local.name = "asyncio"  # pyright: ignore[reportPossiblyUnboundVariable] - before a caller in trio says so
        stopping = self._stopping
        try:
            if not self.closed:
                await stopping.wait()
            with anyio.move_on_after(_CLOSE / 2):
                await self._aclose()
        finally:
            stopping.set()  # SystemExit in a callback ends a loop too; the next call starts another
            _started.discard(self)


class _Call(Generic[T]):
    """A coroutine and its answer; made before it is submitted, so that an interrupt always has something to cancel."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.born = time.monotonic()
        self.scope: anyio.CancelScope | None = None
        self.done = False  # or ended before it began
        self.results: list[T] = []
        self.errors: list[BaseException] = []
        # A signal cannot break it; one in a Condition's wait can leave its lock held, and the loop would freeze on it.
        self.answer: queue.SimpleQueue[None] = queue.SimpleQueue()

    def finish(self, *errors: BaseException) -> None:
        self.errors.extend(errors)
        self.done = True
        self.answer.put(None)

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError, queue.Empty):  # RuntimeError: the loop has ended, and the call with it
            loop.call_soon_threadsafe(lambda: self.scope.cancel() if self.scope else self.finish())
            if not self.done:
                self.answer.get(timeout=_UNWIND)


@atexit.register
def _close_all() -> None:
    _exiting.set()
    for loop in (loops := list(_started)):
        loop.close(timeout=0)
    for loop in loops:
        loop.close(_CLOSE / len(loops))


def _after_fork() -> None:
    _lock.release()
    for loop in _started:
        loop.disown()
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
