"""
Time within an event loop: the clock, timers and deadlines.

This is the one place where the core uses asyncio's timers, and its cancellation for deadlines, instead of anyio's.
`anyio.fail_after` around a call costs 12 % of a call one by one and 20 % at 64 in flight (benchmark scenarios `call`
and `call-64`). With NEURALBOX_FAST_PATHS=off, deadlines are anyio's cancel scopes and each timer is a `loop.call_at`.
The one difference: in a block that swallows a cancellation and waits again, a cancel scope cancels that wait too.
"""

from __future__ import annotations

import math
import time
import weakref
from typing import TYPE_CHECKING, Self, cast

from neuralbox_async import _fast_paths
from neuralbox_async._errors import UnsupportedEventLoopError
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> float:
    """
    Return the time of the running event loop, in seconds.

    `anyio.current_time` is the same clock at eight times the cost. Raises `UnsupportedEventLoopError` outside asyncio.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        raise _no_loop() from None


def clock() -> Callable[[], float]:
    """Return the function that `now` calls, for callers that need the time often. Raises the same error."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        raise _no_loop() from None


def time_since(started: float) -> float:
    """Return the seconds since *started* (of `now`). Outside a loop too, by the clock that loops have."""
    try:
        return asyncio.get_running_loop().time() - started
    except RuntimeError:
        return time.monotonic() - started


def time_after(seconds: float | None) -> float:
    """Return the time (of `now`) that is *seconds* away, or infinity for None."""
    return math.inf if seconds is None else now() + seconds


def _no_loop() -> UnsupportedEventLoopError:
    return UnsupportedEventLoopError(
        "AsyncNeuralBox runs on asyncio (uvloop included), and no asyncio event loop is running here;"
        " from trio, call neuralbox_sync.NeuralBox through trio.to_thread.run_sync"
    )


class Timer:
    """
    Calls `fire` at the time *when* (of `now`), unless it was cancelled before.

    It fires a few iterations of the loop later: first the loop reads the data that has arrived, and its reader may
    cancel the timer. They are more when it is late, because the loop was blocked or the process was stopped: what is in
    the sockets may take many reads. See `_Grace`.
    """

    __slots__ = ("_handle", "_queue", "when")

    def __init__(self, when: float) -> None:
        self.when = when
        self._queue: _TimerQueue | None = None
        self._handle: asyncio.Handle | None = None

    def fire(self) -> None:
        """Do the timer's work."""
        raise NotImplementedError

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start it in *loop*, by default the running event loop. At the time infinity it never fires."""
        if self.when != math.inf:
            loop = loop or asyncio.get_running_loop()
            self._queue = _TimerQueue.of(loop) if _fast_paths.enabled() else None
            if self._queue is None or not self._queue.add(self, loop):
                self._queue, self._handle = None, loop.call_at(self.when, self._fire_after_reads, loop)

    def _fire_after_reads(self, loop: asyncio.AbstractEventLoop, grace: _Grace | None = None) -> None:
        grace = grace or _Grace(loop, self.when)
        if grace.is_over():
            self._handle = loop.call_soon(self.fire)
        else:
            self._handle = loop.call_soon(self._fire_after_reads, loop, grace)

    def cancel(self) -> None:
        """Do not fire any more. Idempotent."""
        if self._queue is not None:
            self._queue.waiting.pop(self, None)
        if self._handle is not None:
            self._handle.cancel()


class DeadlineScope(Timer):
    """
    Cancels the current task inside ``with DeadlineScope(when):`` at the time *when* (of `now`).

    *expired* is True afterwards if that happened; the block is then left without an exception. A cancellation from
    elsewhere propagates, also when it coincides with the deadline. A result that arrives before the deadline in the
    same iteration of the loop is not discarded. Not across a `yield`.
    """

    __slots__ = ("_cancelling", "_scope", "_task", "expired")

    def __enter__(self) -> Self:
        self.expired = False
        self._scope: anyio.CancelScope | None = None
        if self.when != math.inf:
            loop = asyncio.get_running_loop()
            if _fast_paths.enabled():
                self._task = cast("asyncio.Task[object]", asyncio.current_task(loop))
                self._cancelling = self._task.cancelling()
            else:
                self._scope = anyio.CancelScope()
                self._scope.__enter__()
            self.start(loop)
        return self

    def fire(self) -> None:
        """Cancel the block; if its task has just been woken up, after the task has run, unless it left the block."""
        if self._scope is not None:
            self._scope.cancel()
        elif _has_result(self._task):
            self._handle = self._task.get_loop().call_soon(self.fire)
        else:
            self.expired = True
            self._task.cancel()

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: object) -> bool:
        self.cancel()
        if self._scope is not None:
            self.expired = self._scope.__exit__(exc_type, exc, None)
        elif self.expired:
            # A request to cancel from elsewhere, if there is one, is still counted: then the cancellation is theirs.
            self.expired = self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError
        return self.expired


def _has_result(task: asyncio.Task[object]) -> bool:
    """Return whether *task* is about to receive a result. To cancel it now would discard that, perhaps a response."""
    waiter: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)  # as anyio's cancel scopes do
    return waiter is not None and waiter.done() and not waiter.cancelled()


class _Grace:
    """
    The iterations of *loop* in which it reads what has arrived, before a timer of the time *when* fires.

    It is bounded, also where the loop never stops reading: to a few iterations for a timer that is on time, and for a
    late one to a quarter of a second (at least those few).
    """

    __slots__ = ("_ends_at", "_iterations", "_time")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._time = loop.time
        time = loop.time()
        self._ends_at = time + _LATE_GRACE if time - when > _LATE else time
        self._iterations = 0

    def is_over(self) -> bool:
        """Count an iteration, and return whether it was the last."""
        self._iterations += 1
        if self._iterations < _MIN_ITERATIONS:
            return False
        return self._iterations >= _MAX_ITERATIONS or self._time() >= self._ends_at


_LATE = 0.02  # seconds
_LATE_GRACE = 0.25  # seconds
# uvloop runs timers and callbacks before it reads. One iteration reads the response, and the next wakes its reader.
_MIN_ITERATIONS = 5
_MAX_ITERATIONS = 1000  # those without data take 10 us each; each of the others reads 64 KiB or more


class _TimerQueue:
    """
    The timers of one loop that were started in the order of their times: one `loop.call_at` does for all of them.

    Calls with the same timeout come in that order, and so do reads with the same stall timeout. A `loop.call_at` for
    each costs 7 % of a call (benchmark scenario `call-64`).
    """

    # Referenced by its timers and by the loop's timer only: a loop that is dropped is freed with all its timers.
    __slots__ = ("__weakref__", "_fires_at", "_handle", "_last", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Timer, None] = {}
        self._last = 0.0  # the time of the timer added last
        self._fires_at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _TimerQueue:
        """Return the queue of *loop*."""
        reference = _queues.get(loop)
        queue = None if reference is None else reference()
        if queue is None:
            queue = cls()
            _queues[loop] = weakref.ref(queue)
        return queue

    def add(self, timer: Timer, loop: asyncio.AbstractEventLoop) -> bool:
        """Take *timer* and return True, unless it fires before one that is waiting."""
        when = timer.when
        if when < self._last and self.waiting and when < next(reversed(self.waiting)).when:
            return False
        self._last = when
        self.waiting[timer] = None
        if when < self._fires_at:
            self._fire_at(when, loop)
        return True

    def _fire_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._fires_at = when
        self._handle = loop.call_at(when, self._fire)

    def _fire(self) -> None:
        loop = asyncio.get_running_loop()
        # The loop may have been busy, and may call a little too early.
        due, first = max(self._fires_at, loop.time()), next(iter(self.waiting), None)
        self._fires_at, self._handle = math.inf, None
        if first is None:
            return
        if first.when <= due:
            self._fire_after_reads(loop, due, _Grace(loop, first.when))
        else:
            self._fire_at(first.when, loop)

    def _fire_after_reads(self, loop: asyncio.AbstractEventLoop, due: float, grace: _Grace) -> None:
        if not grace.is_over():
            loop.call_soon(self._fire_after_reads, loop, due, grace)
            return
        for timer in self.waiting:
            if timer.when > due:
                if timer.when < self._fires_at:
                    self._fire_at(timer.when, loop)
                break
            loop.call_soon(self._fire_one, timer)  # each in a callback of its own: an exception stops no other timer

    def _fire_one(self, timer: Timer) -> None:
        if timer in self.waiting:
            del self.waiting[timer]
            timer.fire()


_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_TimerQueue]] = weakref.WeakKeyDictionary()
