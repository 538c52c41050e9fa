"""`AsyncNeuralBox.generate_many`: parameters, results, progress, and leaving a batch."""

from __future__ import annotations

import asyncio
import gc
import itertools

import anyio
import pytest
from answers import REFUSED, results_of

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
        ("on_unknown", {"on_unknown": "raise"}),
        ("budget", {"budget": 0}),
        ("budget", {"budget": 1.5}),
        ("pace", {"pace": 0}),
        ("pace", {"pace": "fast"}),
        ("pace", {"pace": True}),
        ("pace", {"pace": float("inf")}),
        ("on_progress", {"on_progress": 5}),
        ("timeout", {"timeout": 0}),
        ("max_retries", {"max_retries": -1}),
    ],
)
async def test_invalid_parameters(make, parameter, options):
    """A wrong parameter is told at the call."""
    client, _ = make()
    with pytest.raises(InvalidParameterError) as caught:
        client.generate_many(**{"requests": ["Hi"], **options})

    assert parameter == caught.value.parameter


async def test_nothing_to_do(make):
    """A batch without requests is done at once."""
    client, _ = make()
    assert [] == await results_of(client.generate_many([]))


# --------------------------------------------------------------------------------------------- how many, in what order


async def test_read_batch(make):
    """Results can be taken in bulk: all that are there, at least one, none at the end."""
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
    """A read that times out loses no result; the next one goes on."""
    client, _ = make(pause=lambda _asked: 30)
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
    """Progress is told now and then, and at the end, as frozen snapshots."""
    told = []
    await results_of(client.generate_many(["a", "b", 5], model="gpt-5", on_progress=told.append))

    last = told[-1]
    assert (2, 1, 0, 0, 3, 4, 0.0, None) == (
        last.done,
        last.failed,
        last.skipped,
        last.in_flight,
        last.total,
        last.tokens_used,
        last.eta_seconds,
        last.waiting_until,
    )
    assert last.rate > 0
    assert len(told) <= 10
    with pytest.raises(AttributeError):
        last.done = 0


async def test_progress_is_not_told_too_often(make):
    """However many results there are, progress is told some 10 times a second."""
    client, _ = make()
    told = []
    batch = client.generate_many(map(str, range(2000)), model="gpt-5", on_progress=told.append)
    await results_of(batch)

    assert len(told) <= 10 * batch.report.elapsed + 3
    assert 2000 == told[-1].total == told[-1].done


async def test_progress_raises(make):
    """What *on_progress* raises is raised to the reader, and no more is sent."""
    client, transport = make()

    def on_progress(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await results_of(client.generate_many(map(str, range(1000)), model="gpt-5", on_progress=on_progress))
    assert len(transport.asked) < 200


# ------------------------------------------------------------------------------------------------------------- leaving


async def test_leaving_early(client, neuralbox_server):
    """Leaving cancels what is in flight, on the server too, and the report says what was left."""
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
    """A batch that is left before it did anything has nothing to read, and frees its journal."""
    client, transport = make()
    for _ in range(2):
        async with client.generate_many(["a", "b"], model="gpt-5", journal=journal) as results:
            pass
        assert [] == [result async for result in results]
        assert (2, 0, ()) == (results.report.not_started, results.report.unknown, results.report.cancelled_keys)
    assert [] == transport.asked


async def test_leaving_before_anything_is_sent(make):
    """What was not sent when the batch was left is in no doubt."""
    client, transport = make(lambda _asked: REFUSED, max_retries=100, retry_policy=RetryPolicy(max_retries=100))
    async with client.generate_many(["a"], model="gpt-5") as results:
        while not transport.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    report = results.report

    assert (0, 1) == (report.unknown, len(report.cancelled_keys))


async def test_reading_after_leaving(make):
    """What was answered and not read can be read after the batch was left, in order if asked for."""
    client, _ = make(pause=lambda asked: 3 if asked["messages"][0]["content"] != "0" else 10**9)
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
    """After `stop` nothing more is sent, and what is in flight is finished."""
    client, transport = make(pause=lambda _asked: 20)
    async with client.generate_many([str(n) for n in range(100)], model="gpt-5", max_concurrency=4) as results:
        await anext(results)
        asked = len(transport.asked)
        results.stop()
        rest = [result async for result in results]

    assert asked == 1 + len(rest) == len(transport.asked)
    assert (100 - asked, None, 0) == (
        results.report.not_started,
        results.report.stopped_by,
        results.report.unknown,
    )


async def test_the_client_is_closed(client, neuralbox_server):
    """When the client is closed the batch ends, and says so."""
    neuralbox_server.delay(30, times=3)
    async with client.generate_many([str(n) for n in range(50)], model="gpt-5", max_concurrency=3) as results:
        await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
        await client.aclose()
        rest = [result async for result in results]

    assert [ClientClosedError] * len(rest) == [type(result.error) for result in rest]
    assert ClientClosedError is type(results.report.stopped_by)
    assert 50 - len(rest) == results.report.not_started


async def test_a_batch_that_is_dropped(make):
    """A batch that nobody holds any more gives up what is in flight."""
    client, transport = make(pause=lambda _asked: 10**9)
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
    """A batch is used in its `async with`, once."""
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
    assert 1 == batch.progress.done
