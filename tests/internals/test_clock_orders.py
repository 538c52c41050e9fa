"""`DeadlineScope` has the same outcome on both paths, in any order of deadlines, cancellations and results."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from neuralbox_async._clock import DeadlineScope, now

pytestmark = pytest.mark.usefixtures("no_task_left")

STEPS = ["deadline", "outer deadline", "cancel", "wake", "next iteration"]
ORDERS = [order for length in range(5) for order in itertools.product(STEPS, repeat=length)]


async def wait(event):
    """Wait for the event."""
    await event.wait()


async def wait_and_clean_up(event):
    try:
        await event.wait()
    finally:
        event.clear()


async def wait_and_fail(event):
    """Turn a cancellation into another exception."""
    try:
        await event.wait()
    except asyncio.CancelledError:
        raise ZeroDivisionError from None


async def wait_and_swallow(event):
    """Ignore a cancellation, and end without another wait."""
    try:
        await event.wait()
    except asyncio.CancelledError:
        return


async def end(event):
    """End without a wait."""


class Running(DeadlineScope):
    """A deadline whose time comes when a test says so: once, and only while its block runs."""

    __slots__ = ("is_due",)

    def __enter__(self):
        self.is_due = True
        return super().__enter__()

    def __exit__(self, *error):
        self.is_due = False
        return super().__exit__(*error)

    def expire(self):
        if self.is_due:
            self.is_due = False
            self.cancel()
            self.fire()


async def outcome(order, block):
    """Take the steps of *order* while a task runs *block* under two deadlines; return all that the task observes."""
    event, deadlines, observed = asyncio.Event(), [], []

    async def run():
        task = asyncio.current_task()
        with Running(now() + 60) as outer:
            deadlines.append(outer)
            with Running(now() + 60) as inner:
                deadlines.append(inner)
                await block(event)
            observed.append(("inner", inner.expired, task.cancelling()))
            await asyncio.sleep(0)
        observed.append(("outer", outer.expired, task.cancelling()))
        await asyncio.sleep(0)
        return "continued"

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    for step in order:
        match step:
            case "deadline":
                deadlines[1].expire()
            case "outer deadline":
                deadlines[0].expire()
            case "cancel":
                task.cancel()
            case "wake":
                event.set()
            case "next iteration":
                await asyncio.sleep(0)
    event.set()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return observed, result if isinstance(result, str) else type(result), task.cancelling()


async def differences(monkeypatch, orders, block):
    """Return the orders whose outcomes differ, with both outcomes."""
    outcomes = {}
    for enabled in True, False:
        monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda enabled=enabled: enabled)
        outcomes[enabled] = {order: await outcome(order, block) for order in orders}
    return {
        order: (fast, outcomes[False][order])
        for order, fast in outcomes[True].items()
        if fast != outcomes[False][order]
    }


@pytest.mark.long
@pytest.mark.parametrize("block", [wait, wait_and_clean_up, wait_and_fail, end])
async def test_both_paths_have_the_same_outcome(monkeypatch, block):
    """Any order of up to four steps has the same outcome with the fast path and without it."""
    assert {} == await differences(monkeypatch, ORDERS, block)


async def test_a_block_that_swallows_a_cancellation(monkeypatch):
    """A block that ends although it was cancelled has the same outcome, unless a scope around it expired as well."""
    # Then anyio cancels the task again at its next wait.
    orders = [order for order in ORDERS if "outer deadline" not in order]

    assert {} == await differences(monkeypatch, orders, wait_and_swallow)


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_result_that_has_arrived(monkeypatch, enabled):
    """A deadline does not discard a result for which the task has been woken up already."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: enabled)

    assert (
        [("inner", False, 0), ("outer", False, 0)],
        "continued",
        0,
    ) == await outcome(("wake", "deadline"), wait)
