"""`AsyncNeuralBox.generate_many`: parameters, results, progress, and leaving a batch."""

from __future__ import annotations

import asyncio
import gc
import itertools

import anyio
import pytest
from transports import NOT_CONNECTED, results_of

from neuralbox_async import (
    BatchReport,
    BatchResult,
    BatchStateError,
    ClientClosedError,
    InvalidParameterError,
    RetryPolicy,
)

pytestmark = pytest.mark.usefixtures("no_task_left")


# ------------------------------------------------------------------------------------------------- what goes and comes


@pytest.mark.parametrize(
    "parameter, options",
    [
        ("requests", {"requests": "a string"}),
        ("requests", {"requests": b"bytes"}),
        ("requests", {"requests": {"prompt": "x"}}),
        ("requests", {"requests": 5}),
        ("model", {"model": ""}),
        ("system", {"system": 5}),
        ("temperature", {"temperature": 3}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_concurrency", {"max_concurrency": 0}),
        ("max_concurrency", {"max_concurrency": 1.5}),
        ("journal", {"journal": 5}),
        ("journal", {"journal": ""}),
        ("on_unknown", {"on_unknown": "ask"}),
        ("budget", {"budget": 0}),
        ("budget", {"budget": 1.5}),
        ("max_rate", {"max_rate": 0}),
        ("max_rate", {"max_rate": "fast"}),
        ("max_rate", {"max_rate": True}),
        ("max_rate", {"max_rate": float("inf")}),
        ("on_progress", {"on_progress": 5}),
        ("timeout", {"timeout": 0}),
        ("max_retries", {"max_retries": -1}),
    ],
)
async def test_invalid_parameters(make, parameter, options):
    """An invalid parameter raises an error at the call."""
    client, _ = make()
    with pytest.raises(InvalidParameterError) as caught:
        client.generate_many(**{"requests": ["Hi"], **options})

    assert parameter == caught.value.parameter


async def test_no_requests(make):
    """A batch without requests ends at once."""
    client, _ = make()
    assert [] == await results_of(client.generate_many([]))


# --------------------------------------------------------------------------------------------- how many, in what order


async def test_read_batch(make):
    """Results can be read in bulk: all that are ready, at least one, none at the end."""
    client, _ = make()
    async with client.generate_many(map(str, range(100)), model="gpt-5") as results:
        bulks = []
        while bulk := await results.read_batch():
            bulks.append(bulk)
        assert [] == await results.read_batch()

    assert set(range(100)) == {result.index for bulk in bulks for result in bulk}


async def test_several_readers(make):
    """Any number of tasks may read; each result goes to one of them."""
    client, _ = make()
    seen = []

    async def read(results):
        async for result in results:
            seen.append(result.index)
            await asyncio.sleep(0)

    async with client.generate_many(map(str, range(100)), model="gpt-5") as results:
        await asyncio.gather(*(read(results) for _ in range(3)))

    assert list(range(100)) == sorted(seen)


async def test_a_cancelled_read_loses_nothing(make):
    """A read that is cancelled loses no result; the next read continues."""
    client, _ = make(delay=lambda _request: 30)
    indexes = set()
    async with client.generate_many(map(str, range(20)), model="gpt-5", max_concurrency=3) as results:
        for number in itertools.count():
            reading = asyncio.ensure_future(anext(results, None))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError) if reading.cancelled() else anyio.CancelScope():
                found = await asyncio.gather(reading, return_exceptions=True)
                if isinstance(found[0], BatchResult):
                    indexes.add(found[0].index)
                elif found[0] is None:
                    break

    assert set(range(20)) == indexes


# ------------------------------------------------------------------------------------------------ failures, and the end


async def test_progress(client):
    """Progress is reported repeatedly and at the end, as frozen snapshots."""
    reports = []
    await results_of(client.generate_many(["a", "b", 5], model="gpt-5", on_progress=reports.append))

    last = reports[-1]
    assert (2, 1, 0, 0, 3, 4, 0.0, None) == (
        last.completed,
        last.failed,
        last.skipped,
        last.in_flight,
        last.total,
        last.tokens_used,
        last.eta_seconds,
        last.waiting_until,
    )
    assert last.rate > 0
    assert len(reports) <= 10
    with pytest.raises(AttributeError):
        last.completed = 0


async def test_progress_is_throttled(make):
    """However many results there are, progress is reported some 10 times a second."""
    client, _ = make()
    reports = []
    batch = client.generate_many(map(str, range(2000)), model="gpt-5", on_progress=reports.append)
    await results_of(batch)

    assert len(reports) <= 10 * batch.report.elapsed + 3
    assert 2000 == reports[-1].total == reports[-1].completed


async def test_progress_raises(make):
    """An error of *on_progress* is raised to the reader, and no more requests are sent."""
    client, transport = make()

    def on_progress(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await results_of(client.generate_many(map(str, range(1000)), model="gpt-5", on_progress=on_progress))
    assert len(transport.requests) < 200


# ------------------------------------------------------------------------------------------------------------- leaving


async def test_leaving_early(client, neuralbox_server):
    """Leaving cancels the requests in flight, on the server too, and the report counts them."""
    neuralbox_server.delay(30, times=3)
    async with client.generate_many([str(n) for n in range(50)], model="gpt-5", max_concurrency=3) as results:
        await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
    report = results.report

    assert isinstance(report, BatchReport)
    assert (0, 3, 3, 47) == (report.completed, report.unknown, len(report.cancelled_keys), report.not_started)
    assert set(report.cancelled_keys) == set(report.unknown_keys)
    await neuralbox_server.wait_for_disconnect_async(count=3)
    assert [] == [result async for result in results]


async def test_leaving_at_once(make, journal):
    """A batch that is left before it sent anything has no results, and releases its journal."""
    client, transport = make()
    for _ in range(2):
        async with client.generate_many(["a", "b"], model="gpt-5", journal=journal) as results:
            pass
        assert [] == [result async for result in results]
        assert (2, 0, ()) == (results.report.not_started, results.report.unknown, results.report.cancelled_keys)
    assert [] == transport.requests


async def test_leaving_before_a_request_is_sent(make):
    """A request that was not sent when the batch was closed is not unknown."""
    client, transport = make(lambda _request: NOT_CONNECTED, max_retries=100, retry_policy=RetryPolicy(max_retries=100))
    async with client.generate_many(["a"], model="gpt-5") as results:
        while not transport.requests:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    report = results.report

    assert (0, 1) == (report.unknown, len(report.cancelled_keys))


async def test_reading_after_leaving(make):
    """Results that were not read can be read after the batch was closed, in order if it is ordered."""
    client, _ = make(delay=lambda request: 3 if request["messages"][0]["content"] != "0" else 10**9)
    async with client.generate_many(map(str, range(100)), model="gpt-5", max_concurrency=4, ordered=True) as results:
        for _ in range(300):
            await asyncio.sleep(0)
    left = [result.index for result in results.report and await results.read_batch()]

    assert list(range(1, len(left) + 1)) == left
    assert left
    assert 1 == len(results.report.cancelled_keys)
    assert None is results.report.not_started


async def test_leaving_in_a_cancelled_task(client, neuralbox_server):
    """A cancelled reader leaves nothing running."""
    neuralbox_server.delay(30, times=3)
    with anyio.move_on_after(5) as scope:
        async with client.generate_many(map(str, range(50)), model="gpt-5", max_concurrency=3) as results:
            await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
            scope.cancel()
            await anext(results)

    assert scope.cancelled_caught
    await neuralbox_server.wait_for_disconnect_async(count=3)


async def test_stop(make):
    """After `stop` nothing more is sent, and requests in flight finish."""
    client, transport = make(delay=lambda _request: 20)
    async with client.generate_many([str(n) for n in range(100)], model="gpt-5", max_concurrency=4) as results:
        await anext(results)
        sent = len(transport.requests)
        results.stop()
        rest = [result async for result in results]

    assert sent == 1 + len(rest) == len(transport.requests)
    assert (100 - sent, None, 0) == (
        results.report.not_started,
        results.report.stopped_by,
        results.report.unknown,
    )


async def test_the_client_is_closed(client, neuralbox_server):
    """When the client is closed the batch ends, and its report has the error."""
    neuralbox_server.delay(30, times=3)
    async with client.generate_many([str(n) for n in range(50)], model="gpt-5", max_concurrency=3) as results:
        await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
        await client.aclose()
        rest = [result async for result in results]

    assert [ClientClosedError] * len(rest) == [type(result.error) for result in rest]
    assert ClientClosedError is type(results.report.stopped_by)
    assert 50 - len(rest) == results.report.not_started


async def test_a_batch_without_references(make):
    """A batch that nothing references any more cancels its requests in flight."""
    client, transport = make(delay=lambda _request: 10**9)
    batch = client.generate_many(map(str, range(50)), model="gpt-5", max_concurrency=3)
    await batch.__aenter__()
    while transport.in_flight < 3:
        await asyncio.sleep(0)
    del batch
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0)

    assert 0 == transport.in_flight


async def test_states(make):
    """A batch is usable within its `async with`, once."""
    client, _ = make()
    batch = client.generate_many(["a"], model="gpt-5")
    for use in (lambda: anext(batch), batch.read_batch):
        with pytest.raises(BatchStateError):
            await use()
    with pytest.raises(BatchStateError):
        batch.report
    await results_of(batch)
    with pytest.raises(BatchStateError):
        await batch.__aenter__()
    await batch.aclose()
    assert 1 == batch.progress.completed
