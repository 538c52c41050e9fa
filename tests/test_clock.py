"""`Deadline`: it ends what is late, takes back only its own cancellation, and swallows nobody else's."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import time
import weakref

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async import UnsupportedEventLoopError
from neuralbox_async._clock import Deadline, Timer, now

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_in_time():
    """What is in time is left alone."""
    for moment in (now() + 60, math.inf):
        with Deadline(moment) as deadline:
            await asyncio.sleep(0)
        assert not deadline.expired


@pytest.mark.parametrize("late", [0.01, 0.0, -5.0])
async def test_too_late(late):
    """What is late is cancelled, the block is left, and the task goes on as if it had not been cancelled."""
    with Deadline(now() + late) as deadline:
        await asyncio.sleep(60)
    assert deadline.expired
    assert 0 == asyncio.current_task().cancelling()
    await asyncio.sleep(0)


@pytest.mark.parametrize("others", [[], [60.0]], ids=["in the queue", "with a timer of its own"])
async def test_what_comes_with_the_moment_is_seen_first(others):
    """When the loop was busy beyond the moment, whoever waited for what has come meanwhile is not late."""

    class Bell(Timer):
        def fire(self):
            rung.append(self)

    async def read(connection, bell):
        data = await asyncio.get_running_loop().sock_recv(connection, 1)
        bell.cancel()
        return data

    rung = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        later = [Bell(now() + other) for other in others]
        near = Bell(now() + 0.05)
        for bell in (*later, near):
            bell.start()
        reading = asyncio.create_task(read(ours, near))
        await asyncio.sleep(0)
        theirs.send(b"x")
        time.sleep(0.1)

        assert b"x" == await reading
        await asyncio.sleep(0.02)

    assert [] == rung
    for bell in later:
        bell.cancel()


async def test_other_exceptions_pass():
    """An exception of the block passes, before the deadline and after it."""
    with pytest.raises(ZeroDivisionError), Deadline(now() + 60):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), Deadline(now()) as deadline:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None
    assert not deadline.expired
    assert 0 == asyncio.current_task().cancelling()


async def test_cancellation_passes():
    """A cancellation from elsewhere passes."""

    async def run() -> None:
        with Deadline(now() + 60):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_in_the_same_iteration_passes():
    """A cancellation that comes in the same iteration of the loop as the deadline is not lost."""
    for offset in (-0.001, 0.0, 0.001):

        async def run() -> str:
            with Deadline(now() + 0.02):
                await asyncio.sleep(60)
            return "went on"

        task = asyncio.ensure_future(run())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02 + offset, task.cancel)
        time.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_inside_other_scopes():
    """Within anyio's scopes and asyncio's timeouts each ends what is its own, nested either way."""
    with anyio.move_on_after(0.01) as scope, Deadline(now() + 60) as deadline:
        await asyncio.sleep(60)
    assert (True, False) == (scope.cancelled_caught, deadline.expired)

    with anyio.move_on_after(60) as scope:
        with Deadline(now() + 0.01) as deadline:
            await asyncio.sleep(60)
        await anyio.lowlevel.checkpoint()
    assert (False, True) == (scope.cancelled_caught, deadline.expired)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            with Deadline(now() + 60):
                await asyncio.sleep(60)

    with Deadline(now() + 60) as outer:
        with Deadline(now() + 0.01) as inner:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
    assert (False, True) == (outer.expired, inner.expired)


def test_outside_asyncio():
    """Without a running loop there is no clock, and the error says why."""
    with pytest.raises(UnsupportedEventLoopError, match="no asyncio event loop"):
        now()


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
async def test_many_at_once(plan):
    """Of many deadlines, set in any order, each ends its own block, not before its time; those left ring no more."""
    begun = now()

    async def run(milliseconds: int, patient: bool) -> bool:
        moment = begun + milliseconds / 1000
        with Deadline(moment) as deadline:
            await asyncio.sleep(60 if patient else 0)
        assert now() >= moment - 0.001 or not deadline.expired
        return deadline.expired

    expired = await asyncio.gather(*(run(*each) for each in plan))

    # What does not wait may be late only where its time had come already.
    assert all(late for late, (_, patient) in zip(expired, plan, strict=True) if patient)
    await asyncio.sleep(0.07)
    assert 0 == asyncio.current_task().cancelling()


async def test_after_the_loop_was_busy():
    """Deadlines that passed while the loop was blocked all end their blocks as soon as it runs again."""

    async def run(after: float) -> bool:
        with Deadline(now() + after) as deadline:
            await asyncio.sleep(60)
        return deadline.expired

    tasks = [asyncio.ensure_future(run(index / 1000)) for index in range(50)]
    await asyncio.sleep(0)
    time.sleep(0.1)

    assert all(await asyncio.wait_for(asyncio.gather(*tasks), 10))


async def test_one_timer_for_many(monkeypatch):
    """Deadlines equally far away cost the loop one timer, and an earlier one between them is not late."""
    loop = asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **kwargs: timers.append(args) or call_at(*args, **kwargs))

    for _ in range(100):
        with Deadline(now() + 60):
            pass
    assert 1 == len(timers)

    with Deadline(now() + 70), Deadline(now() + 0.01) as deadline:
        await asyncio.sleep(60)
    assert deadline.expired


async def test_timers_do_not_pile_up(monkeypatch):
    """A timer that an earlier one took the place of is cancelled."""
    loop = asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args: timers.append(call_at(*args)) or timers[-1])

    for step in range(100):
        with Deadline(now() + 60 - step / 10):
            pass

    assert 1 == sum(not timer.cancelled() for timer in timers)


async def test_a_ring_that_fails():
    """An alarm whose ring raises is reported to the loop, and silences no other."""

    class Broken(Timer):
        __slots__ = ()

        def fire(self) -> None:
            raise ZeroDivisionError

    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(type(context["exception"])))
    moment = now() + 0.01
    Broken(moment).start()

    with Deadline(moment) as deadline:
        await asyncio.sleep(60)

    assert deadline.expired
    assert [ZeroDivisionError] == reported


@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("pending", [False, True])
def test_no_loop_is_kept(pending):
    """A loop is freed although an alarm was set in it and has not rung, even one that still waits."""

    async def wait() -> None:
        with Deadline(now() + 600):
            await asyncio.Event().wait()

    async def run() -> None:
        with Deadline(now() + 600):
            await asyncio.sleep(0)
        if pending:
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task._log_destroy_pending = False

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    loop.close()
    kept = weakref.ref(loop)
    del loop
    gc.collect()

    assert kept() is None


async def test_without_a_task():
    """A deadline that never comes needs no task, so that a coroutine can be driven by hand."""
    found = []
    asyncio.get_running_loop().call_soon(lambda: found.append(Deadline(math.inf).__enter__().expired))
    await asyncio.sleep(0)

    assert [False] == found


async def test_nothing_is_left_to_the_garbage_collector():
    """A deadline that was met is freed at once: a cycle for each call would keep the collector busy."""

    def count() -> int:
        return sum(isinstance(thing, Deadline) for thing in gc.get_objects())

    before = count()
    gc.disable()
    try:
        for _ in range(10):
            with Deadline(now() + 60):
                pass
        assert before == count()
    finally:
        gc.enable()
