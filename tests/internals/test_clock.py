"""`DeadlineScope` cancels a late block, and neither swallows nor adds a cancellation, on either path."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import time
import weakref

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import UnsupportedEventLoopError
from neuralbox_async._clock import DeadlineScope, Timer, now

pytestmark = pytest.mark.usefixtures("no_task_left", "fast_paths")


@pytest.fixture(params=[True, False], ids=["fast path", "general path"])
def fast_paths(request, monkeypatch):
    """Run each test with the fast path and with anyio's cancel scopes."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: request.param)


@pytest.fixture
def fast_paths_on(fast_paths, monkeypatch):
    """Switch the fast path on."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: True)


async def test_in_time():
    """A block that ends in time is not cancelled."""
    for when in (now() + 60, math.inf):
        with DeadlineScope(when) as deadline_scope:
            await asyncio.sleep(0)
        assert not deadline_scope.expired


@pytest.mark.parametrize("late", [0.01, 0.0, -5.0])
async def test_too_late(late):
    """A late block is cancelled and left, and the task continues as if it had not been cancelled."""
    with DeadlineScope(now() + late) as deadline_scope:
        await asyncio.sleep(60)
    assert deadline_scope.expired
    assert 0 == asyncio.current_task().cancelling()
    await asyncio.sleep(0)


@pytest.mark.parametrize("others", [[], [60.0]], ids=["in the queue", "with a timer of its own"])
async def test_a_late_timer_fires_after_the_reads(others):
    """When the loop was blocked beyond the time of a timer, a reader of data that has arrived can cancel it."""

    class Recorder(Timer):
        def fire(self):
            fired.append(self)

    async def read(connection, timer):
        data = await asyncio.get_running_loop().sock_recv(connection, 1)
        timer.cancel()
        return data

    fired = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        later = [Recorder(now() + other) for other in others]
        near = Recorder(now() + 0.05)
        for timer in (*later, near):
            timer.start()
        reading = asyncio.create_task(read(ours, near))
        await asyncio.sleep(0)
        theirs.send(b"x")
        time.sleep(0.1)

        assert b"x" == await reading
        await asyncio.sleep(0.02)

    assert [] == fired
    for timer in later:
        timer.cancel()


async def test_other_exceptions_pass():
    """An exception of the block propagates, before the deadline and after it."""
    with pytest.raises(ZeroDivisionError), DeadlineScope(now() + 60):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), DeadlineScope(now()) as deadline_scope:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None
    assert not deadline_scope.expired
    assert 0 == asyncio.current_task().cancelling()


async def test_cancellation_passes():
    """A cancellation from elsewhere propagates."""

    async def run() -> None:
        with DeadlineScope(now() + 60):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_in_the_same_iteration_passes():
    """A cancellation in the same iteration of the loop as the deadline is not lost."""
    for offset in (-0.001, 0.0, 0.001):

        async def run() -> str:
            with DeadlineScope(now() + 0.02):
                await asyncio.sleep(60)
            return "continued"

        task = asyncio.ensure_future(run())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02 + offset, task.cancel)
        time.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_inside_other_scopes():
    """Nested with anyio's scopes, asyncio's timeouts and other deadlines, each ends only its own block."""
    with anyio.move_on_after(0.01) as scope, DeadlineScope(now() + 60) as deadline_scope:
        await asyncio.sleep(60)
    assert (True, False) == (scope.cancelled_caught, deadline_scope.expired)

    with anyio.move_on_after(60) as scope:
        with DeadlineScope(now() + 0.01) as deadline_scope:
            await asyncio.sleep(60)
        await anyio.lowlevel.checkpoint()
    assert (False, True) == (scope.cancelled_caught, deadline_scope.expired)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            with DeadlineScope(now() + 60):
                await asyncio.sleep(60)

    with DeadlineScope(now() + 60) as outer:
        with DeadlineScope(now() + 0.01) as inner:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
    assert (False, True) == (outer.expired, inner.expired)


def test_outside_asyncio():
    """Without a running event loop, `now` raises an error that names the reason."""
    with pytest.raises(UnsupportedEventLoopError, match="no asyncio event loop"):
        now()


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=30))
async def test_many_at_once(plan):
    """Of many deadlines, started in any order, each ends its own block at its time, and none fires afterwards."""
    started = now()

    async def run(milliseconds: int, waits: bool) -> bool:
        when = started + milliseconds / 1000
        with DeadlineScope(when) as deadline_scope:
            await asyncio.sleep(60 if waits else 0)
        assert now() >= when - 0.001 or not deadline_scope.expired
        return deadline_scope.expired

    expired = await asyncio.gather(*(run(*each) for each in plan))

    # A block that does not wait expires only if its time had already come.
    assert all(late for late, (_, waits) in zip(expired, plan, strict=True) if waits)
    await asyncio.sleep(0.07)
    assert 0 == asyncio.current_task().cancelling()


async def test_after_the_loop_was_blocked():
    """Deadlines that expire while the loop is blocked end their blocks as soon as it runs again."""

    async def run(after: float) -> bool:
        with DeadlineScope(now() + after) as deadline_scope:
            await asyncio.sleep(60)
        return deadline_scope.expired

    tasks = [asyncio.ensure_future(run(index / 1000)) for index in range(50)]
    await asyncio.sleep(0)
    time.sleep(0.1)

    assert all(await asyncio.wait_for(asyncio.gather(*tasks), 10))


@pytest.mark.usefixtures("fast_paths_on")
async def test_one_timer_of_the_loop_for_many(monkeypatch):
    """Deadlines with the same timeout share one timer of the loop, and an earlier one among them is not late."""
    loop = asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **kwargs: timers.append(args) or call_at(*args, **kwargs))

    for _ in range(100):
        with DeadlineScope(now() + 60):
            pass
    assert 1 == len(timers)

    with DeadlineScope(now() + 70), DeadlineScope(now() + 0.01) as deadline_scope:
        await asyncio.sleep(60)
    assert deadline_scope.expired


@pytest.mark.usefixtures("fast_paths_on")
async def test_replaced_timers_are_cancelled(monkeypatch):
    """A timer of the loop that an earlier one replaces is cancelled."""
    loop = asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args: timers.append(call_at(*args)) or timers[-1])

    for step in range(100):
        with DeadlineScope(now() + 60 - step / 10):
            pass

    assert 1 == sum(not timer.cancelled() for timer in timers)


async def test_a_timer_that_raises():
    """An exception of a timer is reported to the loop, and stops no other timer."""

    class Broken(Timer):
        __slots__ = ()

        def fire(self) -> None:
            raise ZeroDivisionError

    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(type(context["exception"])))
    when = now() + 0.01
    Broken(when).start()

    with DeadlineScope(when) as deadline_scope:
        await asyncio.sleep(60)

    assert deadline_scope.expired
    assert [ZeroDivisionError] == reported


def test_loops_are_freed():
    """A loop is freed with the timers that it had."""

    async def run() -> None:
        with DeadlineScope(now() + 600):
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()

    assert reference() is None


# On the general path, anyio keeps the state of a task that never ends, and with it the loop.
@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("fast_paths_on")
def test_loops_with_waiting_tasks_are_freed():
    """A loop is freed with timers that have not fired, and with tasks that still wait."""

    async def wait() -> None:
        with DeadlineScope(now() + 600):
            await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task._log_destroy_pending = False

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()

    assert reference() is None


async def test_without_a_task():
    """A deadline at infinity needs no task, so that a coroutine can be driven without one."""
    outcomes = []
    asyncio.get_running_loop().call_soon(lambda: outcomes.append(DeadlineScope(math.inf).__enter__().expired))
    await asyncio.sleep(0)

    assert [False] == outcomes


@pytest.mark.usefixtures("fast_paths_on")
async def test_deadlines_are_freed_without_the_garbage_collector():
    """A deadline that was not missed is freed at once: a cycle for each call would keep the collector busy."""

    def count() -> int:
        return sum(issubclass(type(thing), DeadlineScope) for thing in gc.get_objects())

    before = count()
    gc.disable()
    try:
        for _ in range(10):
            with DeadlineScope(now() + 60):
                pass
        assert before == count()
    finally:
        gc.enable()
