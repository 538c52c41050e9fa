"""`Deadline`: it ends what is late, takes back only its own cancellation, and swallows nobody else's."""

from __future__ import annotations

import asyncio
import math
import time

import anyio
import pytest

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
