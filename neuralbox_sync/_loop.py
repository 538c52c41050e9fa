"""A private event loop in a daemon thread. It runs between calls too, to notice when servers close idle connections."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import queue
import select
import selectors
import sys
import threading
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from neuralbox_async import ClientClosedError, preload
from neuralbox_async._loading import anyio, asyncio

T = TypeVar("T")

_MAIN_POLL, _POLL = 0.1, 1.0  # seconds; a signal, for the main thread, just before a wait is seen when that ends
_UNWIND, _CLOSE = 1.0, 2.0  # the longest waits: for an interrupted call, for the end of a loop

_starting = threading.RLock()  # a signal handler may make its first call within a first call
_started: set[EventLoop] = set()
_inherited: list[object] = []  # by a fork; collected, it would clean up in the parent's name
_exiting = threading.Event()


class EventLoop:
    """
    Runs coroutines for any number of threads, on one loop in each process that it is forked into.

    *aclose* is awaited before the loop ends, 1 s at most. *forget* is called in forks, where nothing open is theirs.
    """

    def __init__(self, aclose: Callable[[], Awaitable[None]], forget: Callable[[], None]) -> None:
        self._aclose, self._forget = aclose, forget
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inboxes: dict[asyncio.AbstractEventLoop, deque[_Call[Any]]] = {}  # what each loop has to begin with
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
            call.given_up = True  # unless it is done: a second interrupt may come before it is cancelled
            if _exiting.is_set() and threading.current_thread() is not threading.main_thread():
                threading.Event().wait(2 * _CLOSE)  # a daemon thread would print an error; it ends with the process

    def close(self, timeout: float = _CLOSE) -> None:
        """End the loop and what runs on it; wait for that, *timeout* seconds at most. Idempotent, from any thread."""
        self.closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended, or this is its thread
                self._loop.call_soon_threadsafe(self._stopping.set)
                self._thread.join(timeout)

    def drop(self) -> None:
        """Close, without waiting for anything, because the client has been collected."""
        if self in _started and not self.closed:
            self.close(timeout=0)
            warnings.warn("a client was never closed: use it in a `with` block", ResourceWarning, stacklevel=2)

    def disown(self) -> None:
        """In a forked child: let go without a word to the parent's servers, or to the selector that both share."""
        _started.discard(self)
        self._forget()
        with selectors.DefaultSelector() as fresh:
            os.dup2(fresh.fileno(), self._selector.fileno(), inheritable=False)
        _inherited.append((self._loop, asyncio.all_tasks(self._loop)))
        self._loop = None

    def _live_loop(self) -> asyncio.AbstractEventLoop:
        if self.closed or _exiting.is_set():
            raise ClientClosedError.when("before")
        with _starting:
            if self._loop is None:
                with contextlib.suppress(Exception):  # it is raised again in the call that needs the module
                    preload()
            if (loop := self._loop) is None or loop.is_closed() or self._stopping.is_set():
                loop = self._start()
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("a call on its own event loop never returns: await there, or use asyncio.to_thread")
        return loop

    def _start(self) -> asyncio.AbstractEventLoop:
        if (threading.get_ident.__module__, select.select.__module__) != ("_thread", "select"):
            patch = "monkey.patch_all(thread=False, queue=False, select=False)"
            raise RuntimeError(f"no event loop runs in gevent's threads: {patch}, or use asyncio in its threadpool")
        stopping = self._stopping = asyncio.Event()
        self._selector = selectors.DefaultSelector()
        loop = asyncio.SelectorEventLoop(self._selector)  # the one kind that shows its descriptor, for `disown`
        self._inboxes[loop] = deque()
        context = contextvars.Context()  # since Python 3.14 a thread may inherit one, and with it "inside trio"
        self._thread = threading.Thread(None, context.run, "neuralbox", (self._run, loop, stopping), daemon=True)
        try:
            self._loop = loop
            _started.add(self)
            self._thread.start()
        except BaseException:  # out of threads; since Python 3.12, the main thread has ended; or Ctrl-C
            loop.call_soon_threadsafe(self._stopping.set)
            _started.discard(self)
            self._loop = None
            raise
        return loop

    def _carry_out(self, call: _Call[Any], loop: asyncio.AbstractEventLoop) -> None:
        poll = _MAIN_POLL if threading.current_thread() is threading.main_thread() else _POLL
        try:
            (inbox := self._inboxes.get(loop, deque())).append(call)
            while not call.done:
                if (loop.is_closed() or loop is not self._loop) and not call.done:
                    raise ClientClosedError.when("during")  # noqa: TRY301 - it is abandoned as well
                with contextlib.suppress(RuntimeError, IndexError):  # the loop has just ended; or has just begun all
                    if not (first := inbox[0]).announced:  # it is woken once for all that come until it looks
                        loop.call_soon_threadsafe(self._begin, loop)
                        first.announced = True
                with contextlib.suppress(queue.Empty):
                    call.answer.get(timeout=poll)
                    return
                with contextlib.suppress(anyio.NoEventLoopError):  # this is no worker thread of anyio
                    anyio.from_thread.check_cancelled()
        except BaseException:
            call.abandon(loop)  # only this thread was interrupted, and what ran on would be billed
            raise

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        while inbox := self._inboxes[loop]:
            call = inbox.popleft()
            if self._stopping.is_set() or loop is not self._loop:
                call.finish(ClientClosedError.when("before"))
            elif not (call.done or call.given_up):
                call.task = loop.create_task(self._answer(call), context=call.context)

    async def _answer(self, call: _Call[Any]) -> None:
        call.begun = True
        try:
            call.results.append(await call.function())
            call.finish()
        except BaseException as error:  # noqa: BLE001 - SystemExit is for this caller, and would end the loop of all
            cancelled = isinstance(error, asyncio.CancelledError)  # by the loop's end, or because nobody waits any more
            call.finish(ClientClosedError.when("during") if cancelled else error)

    def _run(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        with contextlib.closing(loop):  # also when it never runs
            anyio.run(self._main, stopping, backend_options={"loop_factory": lambda: loop})
        del self._inboxes[loop]

    async def _main(self, stopping: asyncio.Event) -> None:
        if sniffio := sys.modules.get("sniffio"):
            sniffio.thread_local.name = "asyncio"  # whatever the context of a caller in trio says
        try:
            if not self.closed:
                await stopping.wait()
            if self.closed:  # otherwise its start was interrupted, and the next call starts another
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
        self.task: asyncio.Task[None] | None = None
        self.announced = self.begun = self.done = self.given_up = False
        self.results: list[T] = []
        self.errors: list[BaseException] = []
        # A signal cannot break it; one in a Condition's wait can leave its lock held, and the loop would freeze on it.
        self.answer: queue.SimpleQueue[None] = queue.SimpleQueue()

    def finish(self, *errors: BaseException) -> None:
        self.errors.extend(errors)
        self.task, self.done = None, True  # freed by the main thread, a task's weak references swallow interrupts
        self.answer.put(None)

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError, queue.Empty):  # RuntimeError: the loop has ended, and the call with it
            loop.call_soon_threadsafe(self._cancel)
            if self.begun and not self.done:
                self.answer.get(timeout=_UNWIND)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if not self.begun:
            self.finish()


@atexit.register
def _close_all() -> None:
    _exiting.set()
    for timeout in (0, _CLOSE):  # all are told before one is waited for
        for loop in (loops := list(_started)):
            loop.close(timeout / len(loops))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)
    os.register_at_fork(after_in_child=lambda: list(map(EventLoop.disown, tuple(_started))))
