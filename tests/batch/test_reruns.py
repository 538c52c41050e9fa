"""Reruns with the journal of earlier runs: no request is billed twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from answers import done, said
from journals import HEADER, entries, opened, opened_and_closed, run

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    Generation,
    NotFoundError,
    OutcomeUnknownError,
    ProviderError,
    RetryPolicy,
    _sending,
)
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

LOST = APIConnectionError("reset", request_sent=True)


# -------------------------------------------------------------------------------------------------------------- reruns


async def test_what_is_done_is_skipped(client, neuralbox_server, journal):
    """A rerun generates what is missing, and nothing twice."""
    prompts = [str(number) for number in range(60)]
    first = client.generate_many(prompts[:25], model="gpt-5", journal=journal)
    assert 25 == len(await run(first))
    told = []
    second = client.generate_many(prompts, model="gpt-5", journal=journal, on_progress=told.append, ordered=True)
    assert list(range(25, 60)) == [result.index for result in await run(second)]
    third = client.generate_many(prompts, model="gpt-5", journal=journal)
    assert [] == await run(third)

    assert 60 == len(neuralbox_server.billed) == len(entries(journal, "done"))
    assert (25, 35, 0) == (second.report.skipped, second.report.completed, second.report.not_started)
    assert (25, 60) == (told[-1].skipped, told[-1].total)
    assert (60, 0) == (third.report.skipped, third.report.tokens_used)


async def test_keys(client, neuralbox_server, journal):
    """A key stands for its request, whatever is in it; another model or prompt without a key is another request."""
    await run(client.generate_many([{"key": "a", "prompt": "x"}, "y"], model="gpt-5", journal=journal))
    again = [{"key": "a", "prompt": "changed"}, "y", "z"]
    assert [2] == [r.index for r in await run(client.generate_many(again, model="gpt-5", journal=journal))]
    assert 1 == len(await run(client.generate_many(["y"], model="gpt-5-nano", journal=journal)))
    assert 4 == len(neuralbox_server.billed)


async def test_repeated_prompts_are_numbered(make, journal):
    """Without keys a prompt given n times is generated n times, over reruns too."""
    client, transport = make()
    first = await run(client.generate_many(["x"] * 3 + ["y"], model="gpt-5", journal=journal, ordered=True))
    second = await run(client.generate_many(["x"] * 100 + ["y"], model="gpt-5", journal=journal, ordered=True))

    base = first[0].key
    assert [base, f"{base}-2", f"{base}-3"] == [result.key for result in first[:3]]
    assert [f"{base}-{number}" for number in range(4, 101)] == [result.key for result in second]
    assert 101 == len(transport.asked)


async def test_repeated_keys_are_refused(make, journal):
    """The same key twice in one run would make two outcomes of one: the second is an error."""
    client, transport = make()
    requests = [{"key": "a", "prompt": "x"}, {"key": "a", "prompt": "y"}]
    results = await run(client.generate_many(requests, model="gpt-5", journal=journal, ordered=True))

    assert [None, "key"] == [result.error and result.error.parameter for result in results]
    assert 1 == len(transport.asked)


async def test_failures_are_tried_again(make, journal):
    """What failed without a bill is sent again by a rerun."""
    failing = {"1", "3"}
    client, _ = make(
        lambda asked: (
            ProviderError("500", status=500, code="provider_error") if said(asked) in failing else done(asked)
        ),
        max_retries=0,
    )
    await run(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))
    failing.clear()
    results = await run(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))

    assert {1, 3} == {result.index for result in results}
    assert 5 == len(entries(journal, "done"))


@pytest.fixture
async def doubtful(make, journal):
    """Leave a journal in which "lost" was answered by a reset, "open" was in flight at the end, and "done" is done."""
    client, _ = make(lambda asked: LOST if said(asked) == "lost" else done(asked))
    requests = [{"key": name, "prompt": name} for name in ("done", "lost")]
    await run(client.generate_many(requests, model="gpt-5", journal=journal))
    late = opened(journal)
    late.start("open", "key-of-then", "gpt-5", None)
    late.close()
    return [*requests, {"key": "open", "prompt": "open"}, {"key": "new", "prompt": "new"}]


async def test_unknown_outcomes_are_skipped(make, journal, doubtful):
    """By default what may have been billed is not sent again; its result says so, and the report lists it."""
    client, transport = make()
    batch = client.generate_many(doubtful, model="gpt-5", journal=journal, ordered=True)
    results = await run(batch)

    assert [OutcomeUnknownError, OutcomeUnknownError, None] == [r.error and type(r.error) for r in results]
    assert ("unknown", ("lost",), None, 0) == (
        results[0].error.billed,
        results[0].error.keys,
        results[0].tokens,
        results[0].attempts,
    )
    assert (("lost", "open"), 2, 1, 1) == (
        batch.report.unknown_keys,
        batch.report.unknown,
        batch.report.skipped,
        batch.report.completed,
    )
    assert ["new"] == [said(asked) for asked in transport.asked]


async def test_unknown_outcomes_are_retried(make, journal, doubtful):
    """When told to, what may have been billed is sent again, under the header of then."""
    client, transport = make()
    results = await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown="retry"))

    assert {"lost", "open", "new"} == {result.key for result in results if result.error is None}
    (headers,) = (asked["headers"] for asked in transport.asked if said(asked) == "open")
    assert "key-of-then" == headers["Idempotency-Key"]
    assert [] == await run(client.generate_many(doubtful, model="gpt-5", journal=journal))


async def test_unknown_outcomes_are_asked_about(make, journal, doubtful):
    """With ``"ask"`` entering raises an error with the keys, and nothing is sent."""
    client, transport = make()
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="2 requests") as caught:
            await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown="raise"))
        assert {"lost", "open"} == set(caught.value.keys)
    assert [] == transport.asked


async def test_unknown_outcomes_are_decided_on(make, journal, doubtful):
    """A function decides key by key."""
    client, _ = make()
    batch = client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown=lambda key: key == "open")
    results = await run(batch)

    assert {"lost"} == {result.key for result in results if result.error}
    assert {"open", "new"} == {result.key for result in results if result.error is None}


async def test_the_decision_raises(make, journal, doubtful):
    """What the function raises is raised to the reader, and nothing more is sent."""
    client, _ = make()
    with pytest.raises(ZeroDivisionError):
        await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown=lambda _key: 1 // 0))


async def test_what_was_cancelled_unsent_is_in_no_doubt(make, journal):
    """A request that had not left when the batch was left is simply sent by the rerun."""
    client, transport = make(lambda _asked: APIConnectionError("refused"), retry_policy=RetryPolicy(backoff=60))
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert 1 == len(results.report.cancelled_keys)
    assert () == opened_and_closed(journal).unknown


async def test_what_was_cancelled_in_flight_is_in_doubt(make, journal):
    """A request that was in flight when the batch was left may have been billed."""
    client, transport = make(pause=lambda _asked: 10**9)
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.in_flight:
            await asyncio.sleep(0)

    assert results.report.cancelled_keys == results.report.unknown_keys == opened_and_closed(journal).unknown


async def test_refused_requests_are_in_no_doubt(make, journal):
    """A process that dies while it waits for a limit leaves nothing in doubt: refused requests are known as such."""
    body = b'{"error": "rate_limit_exceeded", "retry_after": 60}'
    client, _ = make(lambda _asked: FakeResponse(body, status_code=429))
    async with client.generate_many(map(str, range(9)), model="gpt-5", journal=journal, max_concurrency=4) as results:
        while results.report.rate_limited < 4:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        lines = journal.read_bytes()
    journal.write_bytes(lines)

    assert () == opened_and_closed(journal).unknown
    assert 4 == len(entries(journal, "failed"))


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_refused_repetition_leaves_the_doubt(make, journal, accepted):
    """What was sent again and refused is in doubt as before: the first attempt may be billed all the same."""
    first = {"event": "start", "key": "k", "idempotency_key": "of-then", "model": "gpt-5", "reserved": 2}
    again = {**first, "idempotency_key": "of-later"}
    refused = {"event": "failed", "key": "k", "error": "RateLimitError", "billed": "no"}
    told = [{"event": "pending", "key": "k", "id": "gen"}] if accepted else []
    lines = [first, *told, again, refused, again, refused]
    journal.write_bytes(HEADER + b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))

    late = opened_and_closed(journal)
    assert [2] == [doubt.reserved for doubt in late.doubts]
    client, transport = make(lambda _asked: {"id": "gen", "status": "completed", "content": "x", "tokens_used": 2})
    requests = [{"key": "k", "prompt": "k"}]
    if accepted:
        (result,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
        assert ["GET"] == [asked["method"] for asked in transport.asked]
    else:
        assert ("k",) == late.unknown
        (result,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
        assert OutcomeUnknownError is type(result.error)
        assert [] == transport.asked
        batch = client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry")
        (result,) = await run(batch)
        assert ["of-then"] == [asked["headers"]["Idempotency-Key"] for asked in transport.asked]
        assert 2 == batch.report.tokens_possibly_billed
    assert result.generation.content == "x"


def test_all_that_was_sent_twice(journal):
    """However often a key was sent without an answer, each time counts; until it is done, and after."""
    late = opened(journal)
    for reserved in (1, 2, 4):
        late.start("k", "i", "m", reserved)
    late.close()
    assert 7 == sum(doubt.reserved for doubt in opened_and_closed(journal).doubts)
    late = opened(journal)
    late.done("k", Generation(id="g"), b'{"id":"g","content":"x"}', attempts=1, seconds=0.0, tokens=4)
    late.close()

    assert 3 == sum(doubt.reserved for doubt in opened_and_closed(journal).doubts)


# ------------------------------------------------------------------------------------------------------------- pending


@pytest.fixture
def slow():
    """Start a server whose generations take a moment."""
    with NeuralBoxServer(pending_models=["slow"], pending_seconds=0.3) as server:
        yield server


async def test_pending_generations_are_found_again(slow, journal, monkeypatch):
    """A rerun asks for what was accepted, by its id; nothing is generated twice."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    async with AsyncNeuralBox(**slow.client_options) as client:
        prompts = ["a", "b", "c"]
        async with client.generate_many(prompts, model="slow", journal=journal) as results:
            while len(entries(journal, "pending")) < 3:
                await asyncio.sleep(0.005)
        assert 3 == results.report.unknown
        rerun = client.generate_many(prompts, model="slow", journal=journal, budget=100)
        contents = {result.generation.content for result in await run(rerun)}

    assert {f"You said: {prompt}" for prompt in prompts} == contents
    assert 3 == len(slow.billed) == len(entries(journal, "done"))
    assert 3 == sum(request.method == "POST" and "price" not in request.path for request in slow.requests)
    assert 3 == rerun.report.tokens_used


async def test_a_wait_that_fails_is_taken_up_again(slow, journal, monkeypatch):
    """When the wait for a generation times out, a rerun goes on waiting."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    async with AsyncNeuralBox(**slow.client_options) as client:
        (late,) = await run(client.generate_many(["a"], model="slow", journal=journal, timeout=0.1))
        assert ("unknown", "WaitTimeoutError") == (late.error.billed, type(late.error).__name__)
        (again,) = await run(client.generate_many(["a"], model="slow", journal=journal))

    assert "You said: a" == again.generation.content
    assert 1 == len(slow.billed)


async def test_an_id_that_leads_nowhere(client, journal):
    """When the API no longer knows a generation, its outcome is unknown."""
    lost = opened(journal)
    lost.pending("a", "gen_gone")
    lost.close()
    requests = [{"key": "a", "prompt": "x"}]
    (gone,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
    assert (NotFoundError, "unknown") == (type(gone.error), gone.error.billed)
    (skipped,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
    assert OutcomeUnknownError is type(skipped.error)
    (again,) = await run(client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry"))
    assert again.error is None


# ------------------------------------------------------------------------------------------------------ other processes


WORKER = """
    import asyncio, sys
    from neuralbox_async import AsyncNeuralBox

    async def main(base_url, key, journal, count):
        async with AsyncNeuralBox(key, base_url=base_url) as client:
            requests = ({"key": f"row {number}", "prompt": f"prompt {number}"} for number in range(int(count)))
            async with client.generate_many(
                requests, model="gpt-5-nano", journal=journal, max_concurrency=16, limit_to_balance=True
            ) as results:
                async for result in results:
                    pass

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kills", [12])
def test_killed_again_and_again(journal, start, kills):
    """Killed at any moment and run again, a batch has one outcome for each key, and bills none twice."""
    rng = random.Random()
    rows = 70 * kills
    with NeuralBoxServer(latency=0.002) as server:
        size = 0
        for _ in range(kills):
            worker = start(WORKER, server.base_url, server.api_key, journal, rows)
            target = size + rng.randrange(30 * 400)
            while worker.poll() is None and (not journal.exists() or journal.stat().st_size < target):
                pass
            worker.kill()
            worker.wait()
            size = journal.stat().st_size
        worker = start(WORKER, server.base_url, server.api_key, journal, rows)
        assert 0 == worker.wait(30)
        billed = Counter(server.requests[bill.request_index].json["messages"][0]["content"] for bill in server.billed)

    unknown = set(opened_and_closed(journal).unknown)
    found = Counter(entry.key for entry in entries(journal, "done"))
    keys = {f"row {number}" for number in range(rows)}
    assert {1} == set(found.values())
    assert keys == set(found) | unknown
    assert set() == set(found) & unknown
    assert len(unknown) <= 16 * kills
    times = {key: billed[key.replace("row", "prompt")] for key in keys}
    assert {1} == {times[key] for key in found}
    assert {times[key] for key in unknown} <= {0, 1}
