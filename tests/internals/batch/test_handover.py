"""Tests of the passing of items between tasks."""

import asyncio

from neuralbox_async._batch.handover import Handover


async def start_waiting(handover, count=1):
    """Return *count* tasks that wait for an item."""
    tasks = [asyncio.create_task(handover.take()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_items_wait_for_tasks():
    """Items that nobody waits for are taken in their order, also after the end; then there are no more."""
    handover = Handover()
    for item in "ab":
        handover.put(item)
    handover.end()
    assert ["a", "b", None, None] == [await handover.take() for _ in range(4)]


async def test_tasks_wait_for_items():
    """Each item goes to one of the tasks that wait, and the end to all others."""
    handover = Handover()
    tasks = await start_waiting(handover, 4)
    handover.put("a")
    handover.put("b")
    handover.end()
    assert ["a", "b", None, None] == await asyncio.gather(*tasks)


async def test_cancelled_tasks_get_nothing():
    """A task that was cancelled while it waited is passed over, at the end as well."""
    handover = Handover()
    cancelled, waiting, other = await start_waiting(handover, 3)
    cancelled.cancel()
    handover.put("a")
    assert "a" == await waiting
    other.cancel()
    handover.end()
    await asyncio.wait([cancelled, other])
    assert cancelled.cancelled()
    assert other.cancelled()


async def test_an_item_that_comes_with_a_cancellation_is_not_lost():
    """An item whose task is cancelled before it wakes goes to the next task, whether that waits or comes later."""
    handover = Handover()
    first, second = await start_waiting(handover, 2)
    handover.put("a")
    first.cancel()
    assert "a" == await asyncio.wait_for(second, 10)
    assert first.cancelled()
    [third] = await start_waiting(handover)
    handover.put("b")
    third.cancel()
    await asyncio.wait([third])
    assert "b" == await handover.take()
