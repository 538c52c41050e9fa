"""`Deadline`: it ends what is late, takes back only its own cancellation, and swallows nobody else's."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async import UnsupportedEventLoopError
from neuralbox_async._seam import Deadline, now

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


def test_no_loop_is_kept():
    """A loop is freed although an alarm was set in it and has not rung."""

    async def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        with Deadline(now() + 600):
            await asyncio.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(run())
    gc.collect()

    assert loop() is None


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
