"""Reruns with the journal of earlier runs: no request is billed twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from journals import HEADER, entries, opened, opened_and_closed
from transports import completed, prompt_of, results_of

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    Generation,
    NotFoundError,
    OutcomeUnknownError,
    ProviderError,
    RetryPolicy,
)
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

CONNECTION_RESET = APIConnectionError("reset", request_sent=True)


# -------------------------------------------------------------------------------------------------------------- reruns


async def test_done_requests_are_skipped(client, neuralbox_server, journal):
    """A rerun generates what is missing, and nothing twice."""
    prompts = [str(number) for number in range(60)]
    first = client.generate_many(prompts[:25], model="gpt-5", journal=journal)
    assert 25 == len(await results_of(first))
    reports = []
    second = client.generate_many(prompts, model="gpt-5", journal=journal, on_progress=reports.append, ordered=True)
    assert list(range(25, 60)) == [result.index for result in await results_of(second)]
    third = client.generate_many(prompts, model="gpt-5", journal=journal)
    assert [] == await results_of(third)

    assert 60 == len(neuralbox_server.billed) == len(entries(journal, "done"))
    assert (25, 35, 0) == (second.report.skipped, second.report.completed, second.report.not_started)
    assert (25, 60) == (reports[-1].skipped, reports[-1].total)
    assert (60, 0) == (third.report.skipped, third.report.tokens_used)


async def test_keys(client, neuralbox_server, journal):
    """A key identifies its request; without a key, another model or prompt is another request."""
    await results_of(client.generate_many([{"key": "a", "prompt": "x"}, "y"], model="gpt-5", journal=journal))
    again = [{"key": "a", "prompt": "x"}, "y", "z"]
    assert [2] == [r.index for r in await results_of(client.generate_many(again, model="gpt-5", journal=journal))]
    assert 1 == len(await results_of(client.generate_many(["y"], model="gpt-5-nano", journal=journal)))
    assert 4 == len(neuralbox_server.billed)


async def test_repeated_prompts_are_numbered(make, journal):
    """A prompt without a key that occurs n times is generated n times, over reruns too."""
    client, transport = make()
    first = await results_of(client.generate_many(["x"] * 3 + ["y"], model="gpt-5", journal=journal, ordered=True))
    second = await results_of(client.generate_many(["x"] * 100 + ["y"], model="gpt-5", journal=journal, ordered=True))

    base = first[0].key
    assert [base, f"{base}-2", f"{base}-3"] == [result.key for result in first[:3]]
    assert [f"{base}-{number}" for number in range(4, 101)] == [result.key for result in second]
    assert 101 == len(transport.requests)


async def test_repeated_keys_are_refused(make, journal):
    """The second request with the same key in one run is an error."""
    client, transport = make()
    requests = [{"key": "a", "prompt": "x"}, {"key": "a", "prompt": "y"}]
    results = await results_of(client.generate_many(requests, model="gpt-5", journal=journal, ordered=True))

    assert [None, "key"] == [result.error and result.error.parameter for result in results]
    assert 1 == len(transport.requests)


async def test_failures_are_sent_again(make, journal):
    """A rerun sends requests again that failed and were not billed."""
    failing = {"1", "3"}
    client, _ = make(
        lambda request: (
            ProviderError("500", status_code=500, code="provider_error")
            if prompt_of(request) in failing
            else completed(request)
        ),
        max_retries=0,
    )
    await results_of(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))
    failing.clear()
    results = await results_of(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))

    assert {1, 3} == {result.index for result in results}
    assert 5 == len(entries(journal, "done"))


@pytest.fixture
async def unresolved_requests(make, journal):
    """Leave a journal in which "lost" got no response, "open" was in flight at the end, and "done" is done."""
    client, _ = make(lambda request: CONNECTION_RESET if prompt_of(request) == "lost" else completed(request))
    requests = [{"key": name, "prompt": name} for name in ("done", "lost")]
    await results_of(client.generate_many(requests, model="gpt-5", journal=journal))
    late = opened(journal)
    late.write_start("open", "key-of-then", "gpt-5", None)
    late.close()
    return [*requests, {"key": "open", "prompt": "open"}, {"key": "new", "prompt": "new"}]


async def test_unknown_outcomes_are_skipped(make, journal, unresolved_requests):
    """By default a request that may have been billed is not sent again; its result and the report show that."""
    client, transport = make()
    batch = client.generate_many(unresolved_requests, model="gpt-5", journal=journal, ordered=True)
    results = await results_of(batch)

    assert [OutcomeUnknownError, OutcomeUnknownError, None] == [r.error and type(r.error) for r in results]
    assert ("unknown", ("lost",), None, 0) == (
        results[0].error.billed,
        results[0].error.keys,
        results[0].tokens_used,
        results[0].attempts,
    )
    assert (("lost", "open"), 2, 1, 1) == (
        batch.report.unknown_keys,
        batch.report.unknown,
        batch.report.skipped,
        batch.report.completed,
    )
    assert ["new"] == [prompt_of(request) for request in transport.requests]


async def test_unknown_outcomes_are_retried(make, journal, unresolved_requests):
    """With ``"retry"`` a request that may have been billed is sent again, with the same idempotency key."""
    client, transport = make()
    results = await results_of(
        client.generate_many(unresolved_requests, model="gpt-5", journal=journal, on_unknown="retry")
    )

    assert {"lost", "open", "new"} == {result.key for result in results if result.error is None}
    (headers,) = (request["headers"] for request in transport.requests if prompt_of(request) == "open")
    assert "key-of-then" == headers["Idempotency-Key"]
    assert [] == await results_of(client.generate_many(unresolved_requests, model="gpt-5", journal=journal))


async def test_unknown_outcomes_raise(make, journal, unresolved_requests):
    """With ``"raise"`` entering raises an error with the keys, and nothing is sent."""
    client, transport = make()
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="2 requests") as caught:
            await results_of(
                client.generate_many(unresolved_requests, model="gpt-5", journal=journal, on_unknown="raise")
            )
        assert {"lost", "open"} == set(caught.value.keys)
    assert [] == transport.requests


async def test_unknown_outcomes_are_decided_by_key(make, journal, unresolved_requests):
    """A function decides for each key."""
    client, _ = make()
    batch = client.generate_many(
        unresolved_requests, model="gpt-5", journal=journal, on_unknown=lambda key: key == "open"
    )
    results = await results_of(batch)

    assert {"lost"} == {result.key for result in results if result.error}
    assert {"open", "new"} == {result.key for result in results if result.error is None}


async def test_an_async_function_decides(make, journal, unresolved_requests):
    """The function may be async: its result counts, not the coroutine, which is always true."""

    async def is_open(key):
        await asyncio.sleep(0)
        return key == "open"

    client, transport = make()
    results = await results_of(
        client.generate_many(unresolved_requests, model="gpt-5", journal=journal, on_unknown=is_open)
    )

    assert {"lost"} == {result.key for result in results if result.error}
    assert 2 == len(transport.requests)


async def test_the_decision_raises(make, journal, unresolved_requests):
    """An error of the function is raised to the reader, and nothing more is sent."""
    client, _ = make()
    with pytest.raises(ZeroDivisionError):
        await results_of(
            client.generate_many(unresolved_requests, model="gpt-5", journal=journal, on_unknown=lambda _key: 1 // 0)
        )


async def test_a_cancelled_request_that_was_not_sent(make, journal):
    """A request that was not sent when the batch was closed is sent by the rerun."""
    client, transport = make(lambda _request: APIConnectionError("refused"), retry_policy=RetryPolicy(backoff=60))
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.requests:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert 1 == len(results.report.cancelled_keys)
    assert () == opened_and_closed(journal).unresolved_keys


async def test_a_cancelled_request_in_flight(make, journal):
    """A request that was in flight when the batch was closed may have been billed."""
    client, transport = make(delay=lambda _request: 10**9)
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.in_flight:
            await asyncio.sleep(0)

    assert results.report.cancelled_keys == results.report.unknown_keys == opened_and_closed(journal).unresolved_keys


async def test_refused_requests_are_resolved(make, journal):
    """A process that is killed while it waits for a limit leaves no unresolved requests."""
    body = b'{"error": "rate_limit_exceeded", "retry_after": 60}'
    client, _ = make(lambda _request: FakeResponse(body, status_code=429))
    async with client.generate_many(map(str, range(9)), model="gpt-5", journal=journal, max_concurrency=4) as results:
        while results.report.rate_limited < 4:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        lines = journal.read_bytes()
    journal.write_bytes(lines)

    assert () == opened_and_closed(journal).unresolved_keys
    assert 4 == len(entries(journal, "failed"))


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_refused_repetition_stays_unresolved(make, journal, accepted):
    """A request that was sent again and refused stays unresolved: the first attempt may be billed."""
    first = {"event": "start", "key": "k", "idempotency_key": "of-then", "model": "gpt-5", "reserved": 2}
    again = {**first, "idempotency_key": "of-later"}
    refused = {"event": "failed", "key": "k", "error_type": "RateLimitError", "billed": "no"}
    pending = [{"event": "pending", "key": "k", "id": "gen"}] if accepted else []
    lines = [first, *pending, again, refused, again, refused]
    journal.write_bytes(HEADER + b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))

    late = opened_and_closed(journal)
    assert [2] == [one.reserved for one in late.unresolved]
    client, transport = make(lambda _request: {"id": "gen", "status": "completed", "content": "x", "tokens_used": 2})
    requests = [{"key": "k", "prompt": "k"}]
    if accepted:
        (result,) = await results_of(client.generate_many(requests, model="gpt-5", journal=journal))
        assert ["GET"] == [request["method"] for request in transport.requests]
    else:
        assert ("k",) == late.unresolved_keys
        (result,) = await results_of(client.generate_many(requests, model="gpt-5", journal=journal))
        assert OutcomeUnknownError is type(result.error)
        assert [] == transport.requests
        batch = client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry")
        (result,) = await results_of(batch)
        assert ["of-then"] == [request["headers"]["Idempotency-Key"] for request in transport.requests]
        assert 2 == batch.report.tokens_possibly_billed
    assert result.generation.content == "x"


def test_requests_that_were_sent_several_times(journal):
    """Each time that a key was sent without a response counts, also after it is done."""
    late = opened(journal)
    for reserved in (1, 2, 4):
        late.write_start("k", "i", "m", reserved)
    late.close()
    assert 7 == sum(one.reserved for one in opened_and_closed(journal).unresolved)
    late = opened(journal)
    late.write_done("k", Generation(id="g"), b'{"id":"g","content":"x"}', attempts=1, elapsed=0.0, tokens_used=4)
    late.close()

    assert 3 == sum(one.reserved for one in opened_and_closed(journal).unresolved)


# ------------------------------------------------------------------------------------------------------------- pending


@pytest.fixture
def slow_server():
    """Start a server whose generations are pending for a moment."""
    with NeuralBoxServer(pending_models=["slow"], pending_seconds=0.3) as server:
        yield server


async def test_pending_generations_are_retrieved(slow_server, journal, poll_every):
    """A rerun retrieves accepted generations by their ids; nothing is generated twice."""
    poll_every(0.02)
    async with AsyncNeuralBox(**slow_server.client_options) as client:
        prompts = ["a", "b", "c"]
        async with client.generate_many(prompts, model="slow", journal=journal) as results:
            while len(entries(journal, "pending")) < 3:
                await asyncio.sleep(0.005)
        assert 3 == results.report.unknown
        rerun = client.generate_many(prompts, model="slow", journal=journal, budget=100)
        contents = {result.generation.content for result in await results_of(rerun)}

    assert {f"You said: {prompt}" for prompt in prompts} == contents
    assert 3 == len(slow_server.billed) == len(entries(journal, "done"))
    assert 3 == sum(request.method == "POST" and "price" not in request.path for request in slow_server.requests)
    assert 3 == rerun.report.tokens_used


async def test_a_wait_that_timed_out(slow_server, journal, poll_every):
    """When the wait for a generation times out, a rerun continues to wait."""
    poll_every(0.02)
    async with AsyncNeuralBox(**slow_server.client_options) as client:
        (late,) = await results_of(client.generate_many(["a"], model="slow", journal=journal, timeout=0.1))
        assert ("unknown", "WaitTimeoutError") == (late.error.billed, type(late.error).__name__)
        (again,) = await results_of(client.generate_many(["a"], model="slow", journal=journal))

    assert "You said: a" == again.generation.content
    assert 1 == len(slow_server.billed)


async def test_an_id_that_is_not_found(client, journal):
    """When the API does not know a generation any more, its outcome is unknown."""
    lost = opened(journal)
    lost.write_pending("a", "gen_gone")
    lost.close()
    requests = [{"key": "a", "prompt": "x"}]
    (gone,) = await results_of(client.generate_many(requests, model="gpt-5", journal=journal))
    assert (NotFoundError, "unknown") == (type(gone.error), gone.error.billed)
    (skipped,) = await results_of(client.generate_many(requests, model="gpt-5", journal=journal))
    assert OutcomeUnknownError is type(skipped.error)
    (again,) = await results_of(client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry"))
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
def test_killed_repeatedly(journal, start, kills):
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

    unknown = set(opened_and_closed(journal).unresolved_keys)
    found = Counter(entry.key for entry in entries(journal, "done"))
    keys = {f"row {number}" for number in range(rows)}
    assert {1} == set(found.values())
    assert keys == set(found) | unknown
    assert set() == set(found) & unknown
    assert len(unknown) <= 16 * kills
    times = {key: billed[key.replace("row", "prompt")] for key in keys}
    assert {1} == {times[key] for key in found}
    assert {times[key] for key in unknown} <= {0, 1}
