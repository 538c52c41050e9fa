"""Exceptions that are not errors, out of the user's own code: cancellations, and those of test frameworks."""

from __future__ import annotations

import asyncio

import pytest
from transports import FunctionTransport, completed

from neuralbox_async import AsyncNeuralBox

pytestmark = pytest.mark.usefixtures("no_task_left")


class FailedTest(BaseException):
    """Not an `Exception`, like the one of `pytest.fail`."""


class Places:
    """The places of a batch in which the user's own code runs; *exception* is raised in one of them, once."""

    def __init__(self, place, exception):
        self.place, self.exception = place, exception

    def visit(self, place):
        """Raise the exception if it belongs to *place*."""
        if self.place == place and self.exception is not None:
            exception, self.exception = self.exception, None
            raise exception

    def requests(self):
        """Return an iterable of six prompts."""
        return self.async_prompts() if self.place == "async iterator" else self.prompts()

    def prompts(self):
        """Yield six prompts, synchronously."""
        for number in range(6):
            if number == 3:
                self.visit("iterator")
            yield str(number)

    async def async_prompts(self):
        """Yield six prompts, asynchronously."""
        for number in range(6):
            await asyncio.sleep(0)
            if number == 3:
                self.visit("async iterator")
            yield str(number)

    async def key(self):
        """Return the key."""
        await asyncio.sleep(0)
        self.visit("key function")
        return "nb-key"

    def on_progress(self, _progress):
        """Take the progress."""
        self.visit("progress function")


@pytest.mark.parametrize("place", ["iterator", "async iterator", "key function", "progress function"])
@pytest.mark.parametrize("exception", [asyncio.CancelledError, FailedTest], ids=["cancelled", "not an Exception"])
async def test_the_reader_gets_it(place, exception):
    """The reader never takes it for the end of the batch: it gets the exception, or that a task was cancelled."""
    places = Places(place, exception())
    client = AsyncNeuralBox(places.key, transport=FunctionTransport(completed), max_retries=0)
    expected = RuntimeError if exception is asyncio.CancelledError else FailedTest
    results = []

    async with asyncio.timeout(10):
        async with client.generate_many(
            places.requests(), model="gpt-5", max_concurrency=2, on_progress=places.on_progress
        ) as batch:
            with pytest.raises(expected):
                async for result in batch:
                    results.append(result)
    report = batch.report

    assert len(results) == report.completed + report.failed
    assert places.exception is None


async def test_a_cancellation_lets_the_others_finish():
    """A request that the user's own code cancels does not cancel the others, which are paid for."""
    places = Places("key function", asyncio.CancelledError())
    client = AsyncNeuralBox(places.key, transport=FunctionTransport(completed, lambda _request: 20), max_retries=0)
    results = []

    async with client.generate_many(map(str, range(4)), model="gpt-5", max_concurrency=4) as batch:
        with pytest.raises(RuntimeError, match="cancelled"):
            async for result in batch:
                results.append(result)

    assert [None] * 3 == [result.error for result in results]
    assert batch.report.unknown == 0


async def test_tasks_cancelled_from_outside():
    """A batch whose tasks are all cancelled from outside does not end like a complete one."""
    client = AsyncNeuralBox("nb-key", transport=FunctionTransport(completed, lambda _request: 10**9))

    async with client.generate_many(map(str, range(4)), model="gpt-5", max_concurrency=4) as batch:
        for _ in range(50):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(RuntimeError, match="cancelled"):
            await anext(batch)

    assert batch.report.unknown == 4
