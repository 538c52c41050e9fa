"""The history: page by page, in both documented forms, each generation once."""

from __future__ import annotations

import asyncio
import json

import pytest

from neuralbox_async import (
    AuthenticationError,
    GenerationFailedError,
    HistoryEntry,
    InvalidParameterError,
    NeuralBoxError,
    ResponseError,
)
from neuralbox_async._call import pages
from neuralbox_async.testing import FakeResponse, FakeTransport


@pytest.fixture(params=["a", "b"])
async def made(request, serve, connect):
    """A server of either dialect and a client of it, with seven generations: five texts, one failed, one of music."""
    server = serve(dialect=request.param, failing_models=["broken"], stop_on_disconnect=True)
    client = connect(server)
    for number in range(5):
        await client.generate("gpt-5", f"Prompt {number}")
    with pytest.raises(GenerationFailedError):
        await client.generate("broken", "Fail")
    await client.generate("musicgen", "A song")
    return server, client


async def test_pages(made):
    """All generations arrive, newest first, whatever the size of a page; a page is requested when it is needed."""
    server, client = made
    for limit in (1, 3, 7, 100):
        before = len(server.requests)
        history = client.list_generations(limit=limit)
        assert (None, before) == (history.total, len(server.requests))
        entries = [entry async for entry in history]

        assert ["A song", "Fail", *(f"Prompt {number}" for number in reversed(range(5)))] == [
            entry.prompt for entry in entries
        ]
        assert 7 == history.total
        assert -(-7 // limit) == len(server.requests) - before


async def test_entries(made):
    """An entry has what the list reports, under one name in both dialects; what was billed agrees with the bills."""
    server, client = made
    entries = [entry async for entry in client.list_generations()]

    assert server.balance == 1_000_000 - sum(entry.tokens_used for entry in entries)
    assert ["completed", "failed", *["completed"] * 5] == [entry.status for entry in entries]
    assert ("musicgen", "audio", 9, None) == (
        entries[0].model,
        entries[0].category,
        entries[0].tokens_used,
        entries[0].content,
    )
    assert [()] * 7 == [entry.problems for entry in entries]
    assert all(entry.created_at.tzinfo for entry in entries)
    assert "You said: Prompt 0" == (await client.retrieve(entries[-1].id)).content


@pytest.mark.parametrize(
    "filters, count",
    [
        ({"category": "text"}, 6),
        ({"category": "audio"}, 1),
        ({"model": "gpt-5"}, 5),
        ({"status": "failed"}, 1),
        ({"model": "gpt-5", "status": "failed"}, 0),
        ({"page": 3}, 3),
        ({"page": 9}, 0),
    ],
)
async def test_filters(made, filters, count):
    """A filter is sent under both documented names, of which each server knows one."""
    _, client = made

    assert count == len([entry async for entry in client.list_generations(limit=2, **filters)])


async def test_favorites(serve, connect):
    """*favorites_only* is sent as the vendor documents it."""
    server = serve(dialect="b")
    client = connect(server)
    await client.generate("gpt-5", "Hi")

    assert [] == [entry async for entry in client.list_generations(favorites_only=True)]
    assert {"favorites_only": "true", "page": "1", "limit": "100"} == dict(server.requests[-1].query)


async def test_leaving_early(made):
    """Who leaves the loop pays for no further request."""
    server, client = made
    before = len(server.requests)
    async for entry in client.list_generations(limit=2):
        if entry.prompt == "Prompt 4":
            break

    assert 2 == len(server.requests) - before


async def test_growing_history(made):
    """A generation that is made meanwhile moves an entry to the next page, which is not repeated."""
    _, client = made
    history = client.list_generations(limit=2)
    first = [await anext(history), await anext(history)]
    await client.generate("gpt-5", "Meanwhile")
    prompts = [entry.prompt for entry in first] + [entry.prompt async for entry in history]

    assert 7 == len(prompts) == len(set(prompts))


@pytest.mark.parametrize("count", [1, 9, 10, 11, 25, 60])
async def test_history_that_grows_by_pages(make_client, count):
    """However many generations are made between two reads, none of those before is left out or repeated."""
    entries = [{"id": number} for number in range(100, 0, -1)]

    class Growing(FakeTransport):
        async def send(self, request):
            number = int(request.url.partition("page=")[2].partition("&")[0])
            items, pages = entries[10 * (number - 1) : 10 * number], -(-len(entries) // 10)
            if number == 3:
                entries[:0] = [{"id": 1000 - new} for new in range(count)]
            request.stage = "sent"
            return FakeResponse(json.dumps({"items": items, "pages": pages}).encode())

    async with make_client(Growing()) as client:
        found = [entry.id async for entry in client.list_generations(limit=10)]

    assert [*range(100, 0, -1)] == [number for number in found if number <= 100]
    assert len(found) == len(set(found))


async def test_the_same_page_of_many(make_client):
    """A server that sends one page again and again, and reports many, is asked for a few more, and then no more."""
    transport = FakeTransport(*[{"items": ENTRIES, "pages": 10**9}] * 100)
    async with make_client(transport) as client:
        found = [entry.id async for entry in client.list_generations()]

    assert [0, 1, 2, 3] == found
    assert len(transport.requests) <= 30


async def test_cancelled_read(made):
    """A read that is cancelled loses nothing: reading on requests the page again."""
    server, client = made
    history = client.list_generations(limit=4)
    entries = [await anext(history)]
    entries += [await anext(history) for _ in range(3)]
    server.delay(60, method="GET", path="/user/history")
    before = len(server.requests)
    task = asyncio.ensure_future(anext(history))
    while len(server.requests) == before:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert 7 == len([*entries, *[entry async for entry in history]])


async def test_error_between_pages(made):
    """After an error, reading on continues with the page that was not received."""
    server, client = made
    history = client.list_generations(limit=4, max_retries=0)
    entries = [await anext(history) for _ in range(4)]
    server.fail(500, code="internal", method="GET", path="/user/history")
    with pytest.raises(NeuralBoxError) as caught:
        await anext(history)

    assert "no" == caught.value.billed
    assert 7 == len([*entries, *[entry async for entry in history]])


async def test_several_readers(made):
    """Two tasks that read one list get each entry once."""
    _, client = made
    history = client.list_generations(limit=2)

    async def read():
        return [entry.id async for entry in history]

    ids = [generation_id for found in await asyncio.gather(read(), read(), read()) for generation_id in found]
    assert 7 == len(ids) == len(set(ids))


async def test_read_batch(made):
    """A batch is the rest of a page, or the next page; there is none at the end."""
    _, client = made
    history = client.list_generations(limit=4)
    await anext(history)

    assert [3, 3, 0, 0] == [len(await history.read_batch()) for _ in range(4)]
    with pytest.raises(StopAsyncIteration):
        await anext(history)


ENTRIES = [{"id": number, "status": "completed"} for number in range(4)]


@pytest.mark.parametrize(
    "bodies, ids",
    [
        ([[*ENTRIES[:2]], [*ENTRIES[2:]], []], [0, 1, 2, 3]),
        (
            [{"items": ENTRIES[:2], "total": 4, "limit": 2}, {"items": ENTRIES[2:], "total": 4, "limit": 2}],
            [0, 1, 2, 3],
        ),
        ([{"items": ENTRIES[:2], "pages": 2}, {"items": ENTRIES[2:], "pages": 2}], [0, 1, 2, 3]),
        ([{"items": ENTRIES[:2], "pages": "two"}, {"items": ENTRIES[2:]}, {"items": []}], [0, 1, 2, 3]),
        ([{"items": ENTRIES}, {"items": ENTRIES}], [0, 1, 2, 3]),
        ([ENTRIES[:2], ENTRIES[2:], ENTRIES[:2]], [0, 1, 2, 3]),
        ([{"items": [{}, {}]}, {"items": [{}, {}]}], [None, None]),
        ([{"items": [], "total": 5}], []),
        ([{"items": ENTRIES[:2], "total": 2, "limit": 0}], [0, 1]),
    ],
    ids=[
        "arrays",
        "total",
        "pages",
        "odd pages",
        "one page again and again",
        "two pages in turn",
        "no ids",
        "nothing",
        "no limit",
    ],
)
async def test_ends(make_client, fake, bodies, ids):
    """The list ends where the API reports it, or with a page that has nothing new, whatever it reports."""
    transport = fake(*bodies)
    async with make_client(transport) as client:
        found = [entry.id async for entry in client.list_generations()]

    assert (ids, len(bodies)) == (found, len(transport.requests))


async def test_pages_without_end(make_client, fake, monkeypatch):
    """A server whose pages do not end is read up to a limit, and only some of the entries are remembered."""
    monkeypatch.setattr(pages, "_MAX_PAGES", 50)
    monkeypatch.setattr(pages, "_MAX_RECENT", 10)
    transport = fake(*([{"id": 3 * page + number} for number in range(3)] for page in range(100)))
    found = []
    async with make_client(transport) as client:
        history = client.list_generations(page=7)
        for _ in range(2):
            with pytest.raises(ResponseError, match="does not end after 50 pages") as caught:
                while True:
                    found.append((await anext(history)).id)

    assert [*range(150)] == found
    assert ("no", 50) == (caught.value.billed, len(transport.requests))
    assert 10 == len(history._pages._recent)


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": True},
        {"page": 0},
        {"model": ""},
        {"category": 5},
        {"status": b"failed"},
        {"favorites_only": 1},
        {"timeout": 0},
        {"extra_headers": {"A b": "c"}},
    ],
    ids=str,
)
def test_invalid_parameters(parameters, make_client, fake):
    """An invalid parameter raises at once, and names itself."""
    with pytest.raises(InvalidParameterError) as caught:
        make_client(fake({})).list_generations(**parameters)

    assert caught.value.parameter.startswith(next(iter(parameters)))


async def test_errors(server, connect):
    """An error of the API is raised by the loop, each time."""
    history = connect(server).with_options(api_key="nb_wrong").list_generations()
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await anext(history)


def test_entries_are_values():
    """Entries can be compared and put into sets; *raw* and *problems* take no part."""
    assert 1 == len({HistoryEntry(id=1, raw={"id": 1}), HistoryEntry(id=1, problems=("$.url",))})
