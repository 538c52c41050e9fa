"""
A private event loop in a daemon thread.

It also runs between calls: only then does it notice that a server closes an idle connection.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import enum
import functools
import os
import queue
import select
import selectors
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from neuralbox_async import ClientClosedError, preload
from neuralbox_async._fork_delay import forks_wait_for_thread
from neuralbox_async._lazy_imports import anyio, asyncio
from neuralbox_sync._caller_key import current_call

T = TypeVar("T")

# Seconds. A signal that arrives just before the main thread waits is handled after the first of them.
_MAIN_POLL, _POLL, _JOIN_POLL = 0.1, 1.0, 0.01
_UNWIND_TIMEOUT, _CLOSE_TIMEOUT = 1.0, 2.0  # for an interrupted call, for the end of a loop

_starting = threading.RLock()  # a signal handler may make its first call within a first call
_started: set[EventLoop] = set()
_inherited: list[object] = []  # from the parent of a fork; kept alive, because their finalizers would harm the parent
_exiting = threading.Event()


class EventLoop:
    """
    Runs coroutines for any number of threads, on one loop in each process that it is forked into.

    *aclose* is awaited before the loop ends, at most 1 s.
    """

    def __init__(self, aclose: Callable[[], Awaitable[None]]) -> None:
        self._aclose = aclose
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started_loop: asyncio.AbstractEventLoop | None = None  # the same, once no interrupt can undo its start
        self._inboxes: dict[asyncio.AbstractEventLoop, deque[_Call[Any]]] = {}  # the calls that each loop is to start
        self.closed: bool = False

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the coroutine *function*. An interrupt cancels it; it has 1 s to unwind."""
        call = _Call(function)
        try:
            self._run_or_abandon(call)
            if call.errors:
                # An error left there would keep this frame alive, and with it the client.
                raise call.errors.pop()  # noqa: TRY301 - another frame would only lengthen the traceback
        except BaseException:
            if _exiting.is_set() and threading.current_thread() is not threading.main_thread():
                # A daemon thread would print an error; it ends with the process.
                threading.Event().wait(2 * _CLOSE_TIMEOUT)
            raise
        return call.results[0]

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """End the loop and its calls; wait for that at most *timeout* seconds. Idempotent, from any thread."""
        self.closed = True
        deadline = time.monotonic() + timeout
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # it has ended, or this is its thread
                loop.call_soon_threadsafe(self._stopping.set)
                self._thread.join(timeout)
                while not loop.is_closed() and time.monotonic() < deadline:
                    time.sleep(_JOIN_POLL)  # before Python 3.13, an interrupted `join` takes the thread for ended

    def finalize(self) -> None:
        """Close without waiting, because the client has been garbage-collected."""
        if self in _started:
            closed = self.closed
            self.close(timeout=0)
            if not closed:  # otherwise `close` was interrupted
                warnings.warn("a client was never closed: use it in a `with` block", ResourceWarning, stacklevel=2)

    def reset_after_fork(self) -> None:
        """
        In a forked child: drop the loop; the next call starts another.

        The child shares the parent's epoll, and a change there would reach the parent. So the loop's descriptor is
        pointed at a new epoll. The connections are reset by the transport.
        """
        _started.discard(self)
        with selectors.DefaultSelector() as fresh:
            os.dup2(fresh.fileno(), self._selector.fileno(), inheritable=False)
        _inherited.append((self._loop, asyncio.all_tasks(self._loop)))
        self._loop = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self.closed or _exiting.is_set():
            raise _closed("before")
        loop = self._started_loop
        if loop is None or loop is not self._loop or not self._runs():
            # Not for each call: since Python 3.14, an interrupt at the beginning of a `with` can leave the lock held.
            with _starting:
                if self._loop is None:
                    with contextlib.suppress(Exception):  # it is raised again in the call that needs the module
                        preload()
                while (loop := self._loop) is None or not self._runs():
                    self._start()
                self._started_loop = loop
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "a blocking call from its own event loop would deadlock: await there, or use asyncio.to_thread"
            )
        return loop

    def _runs(self) -> bool:
        # Its thread has no identity yet: a signal handler makes a call, and the frame that starts the thread waits.
        ends = self._loop is None or self._loop.is_closed() or self._stopping.is_set()
        return not ends and self._thread.ident is not None

    def _start(self) -> None:
        if (threading.get_ident.__module__, select.select.__module__) != ("_thread", "select"):
            patch = "monkey.patch_all(thread=False, queue=False, select=False)"
            raise RuntimeError(f"no event loop runs in gevent's threads: {patch}, or use asyncio in its threadpool")
        selector = selectors.DefaultSelector()
        # The one kind of loop whose selector is known, for `reset_after_fork`.
        loop = asyncio.SelectorEventLoop(selector)
        stopping = asyncio.Event()
        context = contextvars.Context()  # since Python 3.14 a thread may inherit one, and with it "inside trio"
        thread = threading.Thread(None, context.run, "neuralbox", (self._run, loop, stopping), daemon=True)
        self._inboxes[loop] = deque()
        self._selector, self._stopping, self._thread = selector, stopping, thread
        try:
            self._loop = loop
            _started.add(self)
            thread.start()
        except BaseException:  # out of threads; since Python 3.12, the main thread has ended; or Ctrl-C
            if self._loop is loop:
                self._loop = None  # first: a second interrupt may arrive
                _started.discard(self)
            loop.call_soon_threadsafe(stopping.set)
            raise
        if self._loop is not loop:  # a signal handler made a call before this thread ran, and started another
            loop.call_soon_threadsafe(stopping.set)

    def _run_or_abandon(self, call: _Call[Any]) -> None:
        loop = self._running_loop()
        try:
            self._submit_and_wait(call, loop)
        except BaseException as error:
            if not call.done:  # only this thread was interrupted, and a request that ran on would be billed
                try:
                    despite_interrupt(functools.partial(call.abandon, loop))
                finally:  # also after a second interrupt
                    # Its own error may have a text that is paid for; behind a cancellation, that of a repair.
                    failed = (
                        e for e in call.errors if isinstance(e, Exception) and not isinstance(e, ClientClosedError)
                    )
                    # Only a cause that there is: the signal handler may have given the interrupt one of its own.
                    if cause := next(failed, call.errors[0].__cause__ if call.errors else None):
                        error.__cause__ = cause
            elif generation_id := getattr(next(iter(call.results), None), "id", None):
                error.add_note(f"the call that it interrupted had returned generation {generation_id}")
            raise

    def _submit_and_wait(self, call: _Call[Any], loop: asyncio.AbstractEventLoop) -> None:
        poll = _MAIN_POLL if threading.current_thread() is threading.main_thread() else _POLL
        (inbox := self._inboxes.get(loop, deque())).append(call)
        while not call.done:
            if (loop.is_closed() or loop is not self._loop) and not call.done:
                raise _closed("during" if call.take() is None else "before")
            with contextlib.suppress(RuntimeError, IndexError):  # the loop has just ended; or has just started all
                if not (first := inbox[0]).wakeup_scheduled:  # one wake-up for all calls until the loop looks
                    loop.call_soon_threadsafe(self._drain_inbox, loop)
                    first.wakeup_scheduled = True
            with contextlib.suppress(queue.Empty):
                if (work := call.done_queue.get(timeout=poll)) is None:
                    return
                work()
            with contextlib.suppress(anyio.NoEventLoopError):  # this is not a worker thread of anyio
                anyio.from_thread.check_cancelled()

    def _drain_inbox(self, loop: asyncio.AbstractEventLoop) -> None:
        while inbox := self._inboxes[loop]:
            call = inbox.popleft()
            if self._stopping.is_set() or loop is not self._loop:
                call.finish(_closed("before"))
            else:
                call.task = loop.create_task(self._execute(call), context=call.context)

    async def _execute(self, call: _Call[Any]) -> None:
        # Not before: an interrupt may arrive between the making of the task and its first step.
        if (function := call.take()) is None:
            call.finish()
            return
        call.state = CallState.RUNNING
        current_call.set(call)
        try:
            call.results.append(await function())
            call.finish()
        except BaseException as error:  # noqa: BLE001 - SystemExit is for this caller, and would end the loop of all
            if isinstance(error, asyncio.CancelledError):  # by the end of the loop, or by its own thread
                closed = _closed("during")
                closed.__cause__ = error.__cause__  # what was paid for, as of a repair
                call.finish(closed)
            else:
                call.finish(error)
        finally:
            current_call.set(None)  # the call has this context: its result would stay until the garbage collector runs

    def _run(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        with forks_wait_for_thread(), contextlib.closing(loop):  # also when it never runs
            anyio.run(self._main, stopping, backend_options={"loop_factory": lambda: loop})
        del self._inboxes[loop]

    async def _main(self, stopping: asyncio.Event) -> None:
        if sniffio := sys.modules.get("sniffio"):
            sniffio.thread_local.name = "asyncio"  # the context of a caller in trio may have another value
        try:
            if not self.closed:
                await stopping.wait()
            if self.closed:  # otherwise its start was interrupted, and the next call starts another
                with anyio.move_on_after(_CLOSE_TIMEOUT / 2):
                    await self._aclose()
        finally:
            stopping.set()  # SystemExit in a callback ends a loop too; the next call starts another
            if self._loop is asyncio.get_running_loop():
                _started.discard(self)


class CallState(enum.Enum):
    """
    The states of a blocking call. Only the loop's thread changes them.

        PENDING --its task starts--> RUNNING --result or error--> DONE
           |                                                       ^
           +--its caller is interrupted, or the loop stops---------+

    A call whose caller is interrupted before its task starts never runs: each of the two takes its function, and only
    one can have it. It stays PENDING if the loop ends before it sees it.
    """

    PENDING = enum.auto()
    RUNNING = enum.auto()
    DONE = enum.auto()


class _Call(Generic[T]):
    """A coroutine and its result; made before it is submitted, so that an interrupt always has a call to cancel."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = [function]
        self._cancelled = False
        self.context = contextvars.copy_context()
        self.task: asyncio.Task[None] | None = None
        self.state = CallState.PENDING
        self.wakeup_scheduled = False
        self.results: list[T] = []
        self.errors: list[BaseException] = []
        # A signal cannot break it. In a Condition's wait a signal can leave its lock held, and the loop would freeze.
        # Before its end, marked by None, it has what the waiting thread is to run.
        self.done_queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    @property
    def done(self) -> bool:
        """Whether it has a result or an error."""
        return self.state is CallState.DONE

    def take(self) -> Callable[[], Awaitable[T]] | None:
        """Return the function at the first call, from any thread, and None at all others."""
        try:
            return self._function.pop()
        except IndexError:
            return None

    def finish(self, *errors: BaseException) -> None:
        """Store the errors, if any, and wake the waiting thread."""
        self.errors.extend(errors)
        self.task = None  # if the main thread freed it, its weak references would swallow interrupts
        self.state = CallState.DONE
        self.done_queue.put(None)

    async def run_in_caller(self, function: Callable[[], object]) -> object:
        """Return the result of *function*, which the waiting thread runs. For the loop's thread."""
        loop = asyncio.get_running_loop()
        results: list[object] = []
        errors: list[Exception] = []
        ended = asyncio.Event()

        def work() -> None:
            try:
                results.append(function())
            except Exception as error:  # noqa: BLE001 - of the user's own code; what interrupts it is the caller's
                errors.append(error)
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
                loop.call_soon_threadsafe(ended.set)

        self.done_queue.put(work)
        await ended.wait()
        if errors:
            raise errors.pop()
        return results.pop()

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Prevent its start; if it runs, cancel it and wait at most 1 s for it to unwind. For the waiting thread."""
        if self.take() is None:
            with contextlib.suppress(RuntimeError, queue.Empty):  # RuntimeError: the loop has ended, and the call too
                loop.call_soon_threadsafe(self._cancel)
                while not self.done and self.done_queue.get(timeout=_UNWIND_TIMEOUT) is not None:
                    pass  # work that is not wanted any more

    def _cancel(self) -> None:
        if self.state is CallState.PENDING:  # an interrupted `abandon` has taken the function
            self.finish()
        elif self.task is not None and not self._cancelled:
            self._cancelled = True  # once: a second cancellation would interrupt its unwinding
            self.task.cancel()


def despite_interrupt(function: Callable[[], object]) -> None:
    """Call *function*, and once more if an interrupt, which is then raised, ends it."""
    try:
        function()
    except BaseException:
        function()
        raise


def _closed(when: str) -> ClientClosedError:
    return ClientClosedError(f"the client was closed {when} the call", request_sent=when == "during")


@atexit.register
def _close_all() -> None:
    _exiting.set()
    for timeout in (0, _CLOSE_TIMEOUT):  # all are stopped before one is waited for
        for loop in (loops := list(_started)):
            loop.close(timeout / len(loops))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)
    os.register_at_fork(after_in_child=lambda: list(map(EventLoop.reset_after_fork, tuple(_started))))
