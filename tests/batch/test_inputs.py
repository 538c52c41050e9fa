"""The requests of a batch: kinds, keys, when the batch reads them, and errors of their iterator."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from transports import results_of

from neuralbox_async import GenerateRequest, InvalidParameterError, Message

pytestmark = pytest.mark.usefixtures("no_task_left")


# ------------------------------------------------------------------------------------------------- what goes and comes


async def test_kinds_of_requests(make):
    """Strings, dicts and requests can be mixed; defaults are for strings, and for dicts without that member."""
    client, transport = make()
    user = {"role": "user", "content": "Hi"}
    requests = [
        "Hi",
        {"prompt": "Hi", "key": "a", "temperature": None},
        {"messages": [user], "model": "other", "system": "Be rude.", "temperature": 1, "max_tokens": 3, "seed": 4},
        {"prompt": "Hi", "key": 7, "extra_body": {"top_p": 1}, "seed": 4},
        GenerateRequest("mine", "Hi", key="b"),
        GenerateRequest("mine", [Message("user", "Hi")]),
    ]
    batch = client.generate_many(
        requests, model="gpt-5", system="Be brief.", temperature=0.5, max_tokens=9, ordered=True
    )
    results = await results_of(batch)

    ours = {"model": "gpt-5", "messages": [user], "system": "Be brief.", "temperature": 0.5, "max_tokens": 9}
    sent = [
        {name: value for name, value in request.items() if name not in {"method", "path", "headers"}}
        for request in transport.requests
    ]
    mine = {"model": "mine", "messages": [user]}
    assert [
        ours,
        ours,
        {**ours, "model": "other", "system": "Be rude.", "temperature": 1, "max_tokens": 3},
        {**ours, "top_p": 1},
        mine,
        mine,
    ] == sent
    keys = [result.key for result in results]
    assert ["a", 7, "b"] == [keys[1], keys[3], keys[4]]
    assert all(len(keys[n]) == 32 for n in (0, 2, 5))
    assert ["Hi"] * 6 == [result.request.messages[0].content for result in results]


async def test_content_keys_never_change(make):
    """The key of a request without one never changes: old journals identify requests by it."""
    client, _ = make()
    results = await results_of(client.generate_many(["Hi"], model="gpt-5", temperature=0.5))

    assert "4934b418bacacb6651affa8c3b0f62e4" == results[0].key


async def test_invalid_requests(make):
    """An invalid request has a result with the error, and stops nothing."""
    client, transport = make()
    requests = [5, {"key": "a"}, {"prompt": "x", "messages": []}, {"prompt": 5}, {"prompt": "x", "key": ""}, "good"]
    requests += [{"prompt": "x", "temperature": 9, "key": "\ud800"}, {"prompt": "x", "extra_body": {"seed": object()}}]
    requests += [GenerateRequest("m", "x", extra_body={"seed": object()}, key="b")]
    results = await results_of(client.generate_many(requests, model="gpt-5", ordered=True))

    assert [True] * 5 + [False] + [True] * 3 == [isinstance(r.error, InvalidParameterError) for r in results]
    assert ["#0", "a", "#2", "#3", "#4"] == [result.key for result in results[:5]]
    assert "b" == results[-1].key
    assert {(0, 0)} == {(result.attempts, result.tokens_used) for result in results if result.error}
    assert 1 == len(transport.requests)


# --------------------------------------------------------------------------------------------- how many, in what order


@pytest.mark.parametrize("ordered, bound", [(False, 2 * 5), (True, 4 * 5)])
async def test_requests_are_read_as_needed(make, ordered, bound):
    """A reader that reads nothing holds up the reading of requests; one that reads gets all results."""
    client, transport = make()
    taken = itertools.count()
    last = -1

    def requests():
        nonlocal last
        while True:
            last = next(taken)
            yield str(last)

    async with client.generate_many(requests(), model="gpt-5", max_concurrency=5, ordered=ordered) as results:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert bound == last + 1 == len(transport.requests)
        seen = [await anext(results) for _ in range(50)]
    assert 50 == len(seen)
    assert last < 50 + bound + 5


async def test_async_requests_are_read_in_one_task(make):
    """An async generator may hold a timeout and a task group across its yields: one task runs it."""
    client, _ = make()
    tasks = set()

    async def requests():
        async with asyncio.timeout(30), asyncio.TaskGroup():
            for number in range(30):
                tasks.add(asyncio.current_task())
                await asyncio.sleep(0)
                yield str(number)

    assert 30 == len(await results_of(client.generate_many(requests(), model="gpt-5", max_concurrency=4)))
    assert 1 == len(tasks)


async def test_async_requests_unwind(make):
    """A batch that is left early ends the async generator of its requests, in that task."""
    client, _ = make()
    unwound = []

    async def requests():
        try:
            async with asyncio.timeout(30):
                yield "a"
                await asyncio.sleep(30)
        finally:
            unwound.append(asyncio.current_task())

    async with client.generate_many(requests(), model="gpt-5") as results:
        await anext(results)
    assert 1 == len(unwound)


# ------------------------------------------------------------------------------------------------ failures, and the end


async def test_the_requests_raise(make):
    """An error of the iterator of the requests is raised to the reader, after all results."""
    client, _ = make()

    def requests():
        yield "a"
        yield "b"
        raise OSError("no such disk")

    seen = []
    with pytest.raises(OSError, match="no such disk"):
        async with client.generate_many(requests(), model="gpt-5") as results:
            async for result in results:
                seen.append(result.index)
    assert [0, 1] == sorted(seen)


async def test_the_async_requests_raise(make):
    """An error of an async iterator is raised to the reader as well."""
    client, _ = make()

    async def requests():
        yield "a"
        raise OSError("no such disk")

    async with client.generate_many(requests(), model="gpt-5") as results:
        assert 0 == (await anext(results)).index
        with pytest.raises(OSError, match="no such disk"):
            await anext(results)
