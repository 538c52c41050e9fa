"""
A private event loop in a daemon thread, for callers that block.

It starts with the first call, runs between calls (so that it notices when a server closes an idle connection), and never
holds the interpreter. No wait is unbounded: a signal that comes just before a wait begins is seen only when it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import selectors
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio.from_thread

T = TypeVar("T")
Closed = Callable[[bool], Exception]

_MAIN_POLL, _POLL = 0.1, 1.0  # seconds; only the main thread sees signals
_UNWIND, _START, _CLOSE = 1.0, 10.0, 2.0  # the longest waits for an interrupted call, the loop's start, its end

_lock = threading.RLock()  # a signal handler may make its first call within a first call
_workers: set[_Worker] = set()
_exiting = threading.Event()


class EventLoop:
    """
    Runs coroutines for any number of threads, on one loop in each process that it is forked into.

    *aclose* is awaited on the loop before it ends, for 1 s at most. *forget* is called in a forked child, where everything that
    is open belongs to the parent. *closed* makes the error of a call that came too late (False) or was cut short (True).
    """

    def __init__(self, aclose: Callable[[], Awaitable[None]], forget: Callable[[], None], closed: Closed) -> None:
        self._make_worker = lambda: _Worker(aclose, forget, closed)
        self._closed_error = closed
        self._closed = False
        self._worker: _Worker | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """
        Return what the coroutine function *function* returns; it sees the caller's context variables.

        When the wait is interrupted (Ctrl-C, a cancelled `anyio.to_thread`), it is cancelled and has 1 s to unwind.
        Raises `RuntimeError` on the loop's own thread, where the wait would never end.
        """
        worker = self._live_worker()
        call = _Call(function)
        try:
            worker.submit(call)
            worker.wait(call)
        except BaseException:
            worker.abandon(call)  # only this thread was interrupted, and what ran on would be billed
            raise
        if call.errors:
            raise call.errors.pop()  # kept there, it would keep this frame alive, and with it the client
        return call.result

    def close(self) -> None:
        """End the loop and what runs on it, within 2 s; from any thread, any number of times."""
        with _lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.stop()
            if not worker.is_this_thread():
                worker.thread.join(_CLOSE)

    def _live_worker(self) -> _Worker:
        with _lock:
            if self._closed or _exiting.is_set():
                raise self._closed_error(False)
            if self._worker is None or not self._worker.is_usable():
                self._worker = self._make_worker()
                weakref.finalize(self, self._worker.drop).atexit = False
                self._worker.thread.start()
            worker = self._worker
        if worker.is_this_thread():
            raise RuntimeError(
                "a blocking call on the event loop that has to answer it would wait for ever: "
                "await the asynchronous client here, or make the call in another thread (asyncio.to_thread)"
            )
        return worker


class _Call(Generic[T]):
    """One coroutine and its answer; made before it is submitted, so that an interrupt always has something to cancel."""

    result: T

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.born = time.monotonic()
        self.context = contextvars.copy_context()
        self.function = function
        self.scope: anyio.CancelScope | None = None
        self.errors: list[BaseException] = []
        self.done = False
        # A signal cannot break it; one in a Condition's wait can leave its lock held, and the loop would freeze on it.
        self.answer: queue.SimpleQueue[None] = queue.SimpleQueue()

    def cancel(self) -> None:
        """Cancel; a callback of the loop, which keeps their order: a call without a scope by now never gets one."""
        if self.scope is None:
            self.finish()
        else:
            self.scope.cancel()

    def finish(self) -> None:
        if not _exiting.is_set():  # then only daemon threads still wait, and would print an error
            self.done = True
            self.answer.put(None)


class _Worker:
    """A thread and its loop. Refers to no public object: a client that is dropped is collected, and ends it."""

    def __init__(self, aclose: Callable[[], Awaitable[None]], forget: Callable[[], None], closed: Closed) -> None:
        self._aclose, self._forget, self._closed_error = aclose, forget, closed
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)  # no other loop shows its descriptors, for `disown`
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # Since 3.14 a thread may inherit the context, and with it "inside trio".
        context: dict[str, Any] = {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}
        self.thread = threading.Thread(target=self._run, name="neuralbox", daemon=True, **context)
        _workers.add(self)

    def is_usable(self) -> bool:
        return self._pid == os.getpid() and self.thread.is_alive()

    def is_this_thread(self) -> bool:
        return self.thread.ident == threading.get_ident()

    def submit(self, call: _Call[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._spawn, call, context=call.context)
        except RuntimeError:  # the loop has just been closed
            raise self._closed_error(False) from None

    def wait(self, call: _Call[Any]) -> None:
        poll = _MAIN_POLL if threading.get_ident() == threading.main_thread().ident else _POLL
        while not call.done:
            with contextlib.suppress(queue.Empty):
                call.answer.get(timeout=poll)
                return
            with contextlib.suppress(anyio.NoEventLoopError):  # this is no worker thread of anyio
                anyio.from_thread.check_cancelled()
            if not self.thread.is_alive() and not call.done and not _exiting.is_set():
                raise self._closed_error(True)
            if not self._loop.is_running() and time.monotonic() > call.born + _START:
                raise RuntimeError("the event loop's thread does not start; uWSGI needs --enable-threads for that")

    def abandon(self, call: _Call[Any]) -> None:
        with contextlib.suppress(RuntimeError, queue.Empty):  # RuntimeError: the loop has ended, and the call with it
            self._loop.call_soon_threadsafe(call.cancel)
            if not call.done:
                call.answer.get(timeout=_UNWIND)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)

    def drop(self) -> None:
        if self.is_usable() and not self._stopping.is_set():
            self.stop()
            warnings.warn("a client was never closed: use it in a `with` block", ResourceWarning, stacklevel=2)

    def disown(self) -> None:
        """
        In a forked child, put dead descriptors in the place of the parent's.

        To close those would take leave of the server in the parent's name, and drop them from the selector that both share.
        """
        self._forget()
        dead, peer = socket.socketpair()
        with dead, peer, selectors.DefaultSelector() as fresh:
            for descriptor in self._selector.get_map() or ():
                os.dup2(dead.fileno(), descriptor, inheritable=False)
            os.dup2(fresh.fileno(), self._selector.fileno(), inheritable=False)

    def _spawn(self, call: _Call[Any]) -> None:
        call.scope = anyio.CancelScope()
        task = self._loop.create_task(self._answer(call, call.scope), context=call.context)
        self._tasks.add(task)  # the loop itself keeps no strong reference
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: _Call[Any], scope: anyio.CancelScope) -> None:
        try:
            with scope:
                if not scope.cancel_called:
                    call.result = await call.function()
        except asyncio.CancelledError:  # by the end of the loop: nobody else has the task
            call.errors.append(self._closed_error(True))
        except BaseException as error:  # noqa: BLE001 - SystemExit is for this caller, and would end the loop of all
            call.errors.append(error)
        call.finish()

    def _run(self) -> None:
        anyio.run(self._main, backend="asyncio", backend_options={"loop_factory": lambda: self._loop})

    async def _main(self) -> None:
        with contextlib.suppress(ImportError):
            import sniffio

            sniffio.thread_local.name = "asyncio"  # before the context of a caller that runs in trio says otherwise
        try:
            await self._stopping.wait()
        finally:
            with anyio.move_on_after(_CLOSE / 2):
                await self._aclose()
            _workers.discard(self)


@atexit.register
def _stop_all() -> None:
    _exiting.set()
    until = time.monotonic() + _CLOSE
    workers = [worker for worker in list(_workers) if worker.is_usable()]
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.thread.join(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it
    _lock = threading.RLock()
    for worker in _workers:  # and stays there: collected, it would clean up in the parent's name
        worker.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
