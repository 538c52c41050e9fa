"""Requests that have changed since an earlier run sent others with their keys."""

from __future__ import annotations

import asyncio

import pytest
from journals import HEADER, entries, opened, opened_and_closed
from transports import completed, prompt_of, results_of

from neuralbox_async import (
    APIConnectionError,
    Generation,
    InvalidParameterError,
    OutcomeUnknownError,
    ProviderError,
    RequestChangedError,
)
from neuralbox_async._batch.key_status import KeyStatus

pytestmark = pytest.mark.usefixtures("no_task_left")

RESET = APIConnectionError("reset", request_sent=True)
FAILED = ProviderError("500", status_code=500, code="provider_error")


def rows(*prompts):
    """Return requests with the keys 0, 1, 2, ..."""
    return [{"key": key, "prompt": prompt} for key, prompt in enumerate(prompts)]


def prompts_of(transport):
    """Return the prompts that were sent, and forget them."""
    prompts = [prompt_of(request) for request in transport.requests]
    transport.requests.clear()
    return prompts


async def run(client, requests, journal, **options):
    """Run a batch in order and return its results."""
    return await results_of(client.generate_many(requests, model="m", journal=journal, ordered=True, **options))


@pytest.fixture
async def done(make, journal):
    """Leave a journal in which the requests a, b and c are done."""
    client, transport = make()
    await run(client, rows("a", "b", "c"), journal)
    transport.requests.clear()
    return client, transport


async def test_the_same_requests(done, journal):
    """Requests that have not changed are skipped as before; that their rows carry something else is no change."""
    client, transport = done
    again = [{**row, "stars": 5} for row in rows("a", "b", "c", "d")]
    assert [3] == [result.key for result in await run(client, again, journal)]
    assert ["d"] == prompts_of(transport)


async def test_an_error_at_entering(done, journal):
    """Changed requests of a collection are one error when the batch is entered, with all keys, before any is sent."""
    client, transport = done
    changed = rows("a", "B", "C", "new")
    before = journal.read_bytes()
    batch = client.generate_many(changed, model="m", journal=journal)
    with pytest.raises(RequestChangedError) as caught:
        await batch.__aenter__()
    assert ((1, 2), "no") == (caught.value.keys, caught.value.billed)
    assert "on_changed" in str(caught.value)
    assert ([], before) == (prompts_of(transport), journal.read_bytes())
    opened_and_closed(journal)  # it is released


@pytest.mark.parametrize("options", [{"model": "other"}, {"system": "s"}, {"temperature": 1}, {"max_tokens": 5}])
async def test_changed_defaults(done, journal, options):
    """Another model or another setting of the batch changes all requests."""
    client, _ = done
    with pytest.raises(RequestChangedError) as caught:
        await results_of(client.generate_many(rows("a", "b", "c"), journal=journal, **{"model": "m", **options}))
    assert (0, 1, 2) == caught.value.keys


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_iterator(done, journal, is_async):
    """A changed request of an iterator, which can be read only once, ends the batch where it is read."""
    client, transport = done

    async def iterate():
        for row in rows("a", "B", "C", "new"):
            yield row

    requests = iterate() if is_async else iter(rows("a", "B", "C", "new"))
    batch = client.generate_many(requests, model="m", journal=journal)
    with pytest.raises(RequestChangedError) as caught:
        await results_of(batch)
    assert ((1,), caught.value) == (caught.value.keys, batch.report.stopped_by)
    assert [] == prompts_of(transport)


async def test_results_before_a_changed_request(done, journal):
    """Results of the requests before a changed one are read first; the error follows."""
    client, _ = done
    requests = [{"key": "new", "prompt": "n"}, *rows("A")]
    async with client.generate_many(iter(requests), model="m", journal=journal) as results:
        assert "new" == (await anext(results)).key
        with pytest.raises(RequestChangedError):
            await anext(results)


async def test_skip(done, journal):
    """With ``"skip"`` the earlier requests count: nothing is sent for their keys."""
    client, transport = done
    changed = rows("a", "B", "C", "new")
    assert [3] == [result.key for result in await run(client, changed, journal, on_changed="skip")]
    assert ["new"] == prompts_of(transport)
    results = await run(client, changed, journal, on_changed="skip", include_done=True)
    assert ["a", "b", "c", "new"] == [result.unwrap().content for result in results]


async def test_retry(done, journal):
    """With ``"retry"`` changed requests are sent and paid for, once; then they are those of their keys."""
    client, transport = done
    changed = rows("a", "B", "c")
    batch = client.generate_many(changed, model="m", journal=journal, on_changed="retry")
    assert [1] == [result.key for result in await results_of(batch)]
    assert ["B"] == prompts_of(transport)
    assert (3, 4) == (batch.report.tokens_used_before, batch.report.tokens_used_total)

    assert ["B"] == [r.generation.content for r in await run(client, changed, journal, include_done=True)][1:2]
    with pytest.raises(RequestChangedError):
        await run(client, rows("a", "b", "c"), journal)
    assert [] == prompts_of(transport)
    assert ["b", "B"] == [entry.generation.content for entry in entries(journal, "done") if entry.key == "1"]
    assert 4 == opened_and_closed(journal).spent


async def test_a_retry_that_fails(make, done, journal):
    """A changed request that was not billed leaves the earlier one done; one that may have been is unknown."""
    failing, _ = make(lambda request: FAILED if prompt_of(request) == "B" else RESET, max_retries=0)
    await run(failing, rows("a", "B", "C"), journal, on_changed="retry")
    client, transport = done
    assert ["a", "b"] == [r.unwrap().content for r in await run(client, rows("a", "b"), journal, include_done=True)]
    with pytest.raises(RequestChangedError) as caught:
        await run(client, rows("a", "B", "c"), journal)
    assert (1, 2) == caught.value.keys
    (result,) = await run(client, rows("a", "b", "C"), journal)
    assert OutcomeUnknownError is type(result.error)
    assert [] == prompts_of(transport)


@pytest.mark.parametrize("on_changed, sent", [("skip", []), ("retry", ["B"])])
async def test_unknown_requests(make, journal, on_changed, sent):
    """A changed request is never sent in place of an unknown one, with its idempotency key; only as one of its own."""
    lost, _ = make(lambda _request: RESET, max_retries=0)
    await run(lost, rows("a", "b"), journal)
    first = entries(journal, "start")
    client, transport = make()
    with pytest.raises(RequestChangedError):
        await run(client, rows("a", "B"), journal, on_unknown="retry")
    results = await run(client, rows("a", "B"), journal, on_unknown="retry", on_changed=on_changed)

    keys = {prompt_of(request): request["headers"]["Idempotency-Key"] for request in transport.requests}
    assert ["a", *sent] == prompts_of(transport)
    assert first[0].idempotency_key == keys["a"]
    assert keys.get("B") not in {entry.idempotency_key for entry in first}
    assert (OutcomeUnknownError if not sent else type(None)) is type(results[1].error)
    assert 2 - len(sent) == 2 - sum(entry.key == "1" for entry in entries(journal, "done"))


@pytest.mark.parametrize("on_changed, sent", [("skip", "GET"), ("retry", "POST")])
async def test_pending_requests(make, journal, on_changed, sent):
    """With ``"skip"`` the outcome of an accepted request is retrieved; with ``"retry"`` the changed one is sent."""
    late = opened(journal)
    late.write_start("0", "k", "m", None, "0" * 31 + "1")
    late.write_pending("0", "gen_1")
    late.close()
    client, transport = make(
        lambda request: (
            completed(request)
            if request["method"] == "POST"
            else {"id": "gen_1", "status": "completed", "content": "earlier"}
        )
    )
    with pytest.raises(RequestChangedError):
        await run(client, rows("a"), journal)
    (result,) = await run(client, rows("a"), journal, on_changed=on_changed)

    assert ("earlier" if sent == "GET" else "a") == result.unwrap().content
    assert [sent] == [request["method"] for request in transport.requests]


async def test_failed_requests(make, journal):
    """A request that was not billed may change: nothing is paid for."""
    failing, _ = make(lambda _request: FAILED, max_retries=0)
    await run(failing, rows("a"), journal)
    client, transport = make()
    assert 1 == len(await run(client, rows("b"), journal))
    assert ["b"] == prompts_of(transport)


async def test_items_that_are_not_compared(done, journal):
    """Invalid items, requests without keys, and repeated keys are no changes; nor is what an iterator has not read."""
    client, transport = done
    odd = [*rows("a"), {"key": 0, "prompt": "A"}, {"key": 1, "prompt": ""}, 5, "b"]
    results = await run(client, odd, journal)

    assert [True, True, True, False] == [isinstance(r.error, InvalidParameterError) for r in results]
    assert ["b"] == prompts_of(transport)


async def test_a_queue_is_read_once(done, journal):
    """An iterable with a length that is emptied by reading is not read before its requests are taken."""
    client, _ = done

    class Queue:
        def __init__(self):
            self.items = rows("a", "b", "c", "d")

        def __len__(self):
            return len(self.items)

        def __iter__(self):
            while self.items:
                yield self.items.pop(0)

    assert ["d"] == [result.unwrap().content for result in await run(client, Queue(), journal)]


async def test_other_tasks_run(make, journal):
    """While the requests of a large collection are compared, other tasks run."""
    many = [str(number) for number in range(3000)]
    late = opened(journal)
    late.write_start("0", "k", "m", None, "0" * 31 + "1")
    late.write_done("0", Generation(content="x"), b"{}", attempts=1, elapsed=0, tokens_used=1)
    late.close()
    client, _ = make()
    turns = []

    async def count():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(count())
    with pytest.raises(RequestChangedError):
        await run(client, rows(*many), journal)
    task.cancel()
    assert len(turns) > 5


@pytest.mark.parametrize("value", ["ask", "", None, True, 5])
def test_options(make, value):
    """Another value of *on_changed* is an error at once."""
    client, _ = make()
    with pytest.raises(InvalidParameterError, match="on_changed"):
        client.generate_many(["x"], model="m", on_changed=value)


# ------------------------------------------------------------------------------------------------------------- journal

START = b'{"event":"start","key":"a","idempotency_key":"1","model":"m","reserved":null,"request_hash":"%b"}\n'
DONE = b'{"event":"done","key":"a","at":1.5,"attempts":1,"elapsed":0.5,"tokens_used":3,"generation":{"content":"x"}}\n'
HASH, OTHER = b"a" * 32, b"b" * 32


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("hashes, changed", [((HASH, HASH), False), ((HASH, OTHER), True), ((OTHER, HASH), True)])
def test_hashes(journal, spaced, hashes, changed):
    """A journal compares hashes, also on lines that a user has formatted."""
    line = START % hashes[0]
    journal.write_bytes(HEADER + (line.replace(b":", b": ") if spaced else line) + DONE)
    assert changed is opened_and_closed(journal).has_changed("a", hashes[1].decode())


@pytest.mark.parametrize("value", [b'"xyz"', b'""', b"7", b"null", b"[]", b'"-12345"', b'"\\u00e9"', b'"12"'])
def test_hashes_that_are_none(journal, value):
    """A hash that a user has edited is unknown or another one; the file can be read."""
    journal.write_bytes(HEADER + START.replace(b'"%b"', value) + DONE)
    assert opened_and_closed(journal).status_of("a") is KeyStatus.DONE


def test_a_start_after_the_end(journal):
    """After a key is done, only a start of another request makes it unknown; not being billed makes it done again."""
    not_billed = b'{"event":"failed","key":"a","billed":"no"}\n'
    for lines, status, left in [
        (START % HASH, KeyStatus.DONE, 1),
        (START.replace(b',"request_hash":"%b"', b""), KeyStatus.DONE, 1),
        (START % OTHER, KeyStatus.UNRESOLVED, 0),
        (START % OTHER + not_billed, KeyStatus.DONE, 1),
        (START % OTHER + START % b"cccccc" + not_billed, KeyStatus.UNRESOLVED, 0),
        (START % OTHER + START % b"cccccc" + not_billed + not_billed, KeyStatus.DONE, 1),
        (START % OTHER + DONE, KeyStatus.DONE, 1),
    ]:
        journal.write_bytes(HEADER + START % HASH + DONE + lines)
        found = opened_and_closed(journal)
        assert (status, left) == (found.status_of("a"), found.done_left), lines
