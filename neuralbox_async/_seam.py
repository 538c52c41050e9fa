"""
The seam between the SDK and the network: what `Transport` carries, and what comes back.

aiohttp stands behind it in `_transport`, `neuralbox_async.testing.FakeTransport` in tests.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Protocol, Self, cast

from neuralbox_async._errors import UnsupportedEventLoopError
from neuralbox_async._loading import asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
    """Return what gives the time of the running event loop, for those who ask often. Raises what `now` raises."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        raise _no_loop() from None


def _no_loop() -> UnsupportedEventLoopError:
    return UnsupportedEventLoopError(
        "AsyncNeuralBox runs on asyncio (uvloop included), and no asyncio event loop is running here;"
        " from trio, call neuralbox_sync.NeuralBox through trio.to_thread.run_sync"
    )


class Alarm:
    """
    Calls `ring` when the time *moment* (of `now`) has come, unless it was unset before.

    What `loop.call_at` does, at a third of its cost.
    """

    __slots__ = ("_queue", "_timer", "moment")

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self._queue: _Queue | None = None
        self._timer: asyncio.Handle | None = None

    def ring(self) -> None:
        """Do what is to be done."""
        raise NotImplementedError

    def set(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin to wait, in *loop*, the running event loop."""
        if self.moment != math.inf:
            loop = loop or asyncio.get_running_loop()
            queue = _Queue.of(loop)
            if queue.add(self, loop):
                self._queue, self._timer = queue, None
            else:
                self._queue, self._timer = None, loop.call_at(self.moment, self._ring_soon, loop)

    def _ring_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        # As `_Queue` does: whoever waits for what came together with the moment is woken first, and may unset it.
        self._timer = loop.call_soon(self.ring)

    def unset(self) -> None:
        """Do not ring any more."""
        if self._queue is not None:
            self._queue.waiting.pop(self, None)
        elif self._timer is not None:
            self._timer.cancel()


class Deadline(Alarm):
    """
    Cancels what runs in the current task inside ``with Deadline(moment):`` when the time *moment* (of `now`) has come.

    *expired* tells afterwards whether that happened; the cancellation has then been taken back, and the block is simply
    left. A cancellation from elsewhere passes, also when it comes together with the deadline. Not across a `yield`.
    What `asyncio.timeout_at` does, and an anyio scope, at a fraction of their cost: 9 % and 20 % of a call.
    """

    __slots__ = ("_cancelling", "_task", "expired")

    def __enter__(self) -> Self:
        self.expired = False
        if self.moment != math.inf:
            loop = asyncio.get_running_loop()
            self._task = cast("asyncio.Task[object]", asyncio.current_task(loop))
            self._cancelling = self._task.cancelling()
            self.set(loop)
        return self

    def ring(self) -> None:
        """Cancel: the time has come."""
        self.expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> bool:
        self.unset()
        if not self.expired:
            return False
        # Somebody else's request to cancel, if there is one, is still counted: then the cancellation is theirs.
        self.expired = self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
        return self.expired


class _Queue:
    """
    The alarms of one loop that were set in the order in which they come: one timer does for all of them.

    Calls with the same timeout are like that, and waits with the same patience. A timer for each costs 7 % of a call.
    """

    # Held by its alarms and by the loop's timer only: a loop that is given up is freed with all that waits in it.
    __slots__ = ("__weakref__", "_last", "_rings_at", "_timer", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Alarm, None] = {}
        self._last = 0.0  # the moment of the one added last
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Queue:
        """Return the one of *loop*."""
        reference = _queues.get(loop)
        queue = None if reference is None else reference()
        if queue is None:
            queue = cls()
            _queues[loop] = weakref.ref(queue)
        return queue

    def add(self, alarm: Alarm, loop: asyncio.AbstractEventLoop) -> bool:
        """Take *alarm*, and return True, unless it comes before one that waits."""
        moment = alarm.moment
        if moment < self._last and self.waiting and moment < next(reversed(self.waiting)).moment:
            return False
        self._last = moment
        self.waiting[alarm] = None
        if moment < self._rings_at:
            self._ring_at(moment, loop)
        return True

    def _ring_at(self, moment: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        soon = max(self._rings_at, loop.time())  # the loop may have been busy, and may ring a little too early
        self._rings_at, self._timer = math.inf, None
        for alarm in self.waiting:
            if alarm.moment > soon:
                self._ring_at(alarm.moment, loop)
                break
            loop.call_soon(self._ring_one, alarm)  # by itself: an exception is then nobody else's

    def _ring_one(self, alarm: Alarm) -> None:
        if alarm in self.waiting:
            del self.waiting[alarm]
            alarm.ring()


_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_Queue]] = weakref.WeakKeyDictionary()


class Delivery:
    """How far an attempt got: ``"waiting"`` (nothing done), ``"connecting"``, ``"sent"`` (a connection took it)."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = "waiting"

    @property
    def sent(self) -> bool:
        """Whether the request may have left this machine."""
        return self.stage == "sent"


class Response(Protocol):
    """An answer whose head has been read and whose body has not."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are looked up in lower case."""
        ...

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        """
        Return the whole body, decompressed, and give the connection back.

        One larger than *limit* bytes is cut there when *truncate* is true; otherwise it raises `ResponseError`.
        """
        ...

    @property
    def received(self) -> bytes:
        """What `read` has got so far; the whole or, when it failed, what there is."""
        ...

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        """
        Return the next bytes, at least one; ``b""`` at the end of the body.

        A cancelled read loses nothing. When none came by *deadline* (of `now`), the connection is closed
        and `APITimeoutError` raised; when it broke, `APIConnectionError`, after the bytes that had arrived.
        """
        ...

    def close(self) -> None:
        """Close the connection, unless the body was read whole. Wakes a reader. Idempotent; from the loop's thread."""
        ...


class Transport(Protocol):
    """What carries requests. Implement it to test without sockets, or to carry them otherwise."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, delivery: Delivery
    ) -> Response:
        """
        Send one request, once, following no redirect, and return the answer when its head is there.

        *url* is absolute. Raises `APIConnectionError` and its kinds.
        """
        ...

    async def aclose(self) -> None:
        """Close everything, readers of responses included. Idempotent."""
        ...
