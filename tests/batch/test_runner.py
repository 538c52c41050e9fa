"""How a batch runs its requests: concurrency, results, retries, and failures that stop the rest."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transports import NOT_CONNECTED, FunctionTransport, completed, prompt_of, results_of

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncNeuralBox,
    AuthenticationError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    PermissionDeniedError,
)
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

CONNECTION_RESET = APIConnectionError("reset", request_sent=True)


def error_response(status_code, **members):
    """Return a response with an error status."""
    return FakeResponse(str(members or {}).replace("'", '"').encode(), status_code=status_code)


# ------------------------------------------------------------------------------------------------- what goes and comes


async def test_results(client, neuralbox_server):
    """Each request has one result, with its generation, key, cost and duration."""
    prompts = [f"prompt {number}" for number in range(100)]
    batch = client.generate_many(prompts, model="gpt-5", max_concurrency=8)
    results = await results_of(batch)

    assert set(range(100)) == {result.index for result in results}
    assert {(n, f"You said: {prompt}") for n, prompt in enumerate(prompts)} == {
        (result.index, result.generation.content) for result in results
    }
    assert 100 == len({result.key for result in results})
    assert {(None, 1, 2)} == {(result.error, result.attempts, result.tokens_used) for result in results}
    assert all(0 < result.elapsed < 60 for result in results)
    assert 8 >= neuralbox_server.peak_in_flight
    report = batch.report
    assert (100, {}, 0, 0, None, 200) == (
        report.completed,
        report.failed_by_type,
        report.skipped,
        report.not_started,
        report.stopped_by,
        report.tokens_used,
    )
    assert 0 < report.elapsed < 60


async def test_each_request_has_its_idempotency_key(make):
    """Each request has an `Idempotency-Key` of its own, the same on each attempt."""
    failures = iter([NOT_CONNECTED])
    client, transport = make(lambda request: next(failures, None) or {"id": "1", "content": "x"})
    await results_of(client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1))
    keys = [request["headers"]["Idempotency-Key"] for request in transport.requests]

    assert keys[0] == keys[1] != keys[2]


# --------------------------------------------------------------------------------------------- how many, in what order


@given(
    delays=st.lists(st.integers(0, 7), max_size=60),
    maximum=st.integers(1, 9),
    ordered=st.booleans(),
    is_async=st.booleans(),
    failing=st.sets(st.integers(0, 59)),
)
def test_every_request_has_one_result(delays, maximum, ordered, is_async, failing):
    """Whatever the delays and failures, each request has one result, and concurrency stays within its maximum."""

    def respond(request):
        return CONNECTION_RESET if int(prompt_of(request)) in failing else completed(request)

    async def async_prompts():
        for number in range(len(delays)):
            await asyncio.sleep(0)
            yield str(number)

    async def run():
        transport = FunctionTransport(respond, lambda request: delays[int(prompt_of(request))])
        client = AsyncNeuralBox("key", transport=transport)
        requests = async_prompts() if is_async else map(str, range(len(delays)))
        batch = client.generate_many(requests, model="m", max_concurrency=maximum, ordered=ordered)
        return await results_of(batch), transport.peak, batch.report

    results, peak, report = asyncio.run(run())
    indexes = [result.index for result in results]
    assert list(range(len(delays))) == (indexes if ordered else sorted(indexes))
    assert peak <= maximum
    lost = failing & set(indexes)
    assert lost == {result.index for result in results if result.error is not None}
    assert (len(delays) - len(lost), len(lost)) == (report.completed, report.unknown)
    assert {result.key for result in results if result.error} == set(report.unknown_keys)


async def test_the_maximum_is_used(make):
    """As many requests are in flight as *max_concurrency* allows."""
    client, transport = make(delay=lambda _request: 50)
    await results_of(client.generate_many(map(str, range(400)), model="gpt-5", max_concurrency=40))

    assert 40 == transport.peak


async def test_a_single_call_gets_a_connection(neuralbox_server):
    """A batch leaves connections to calls that are not part of it."""
    neuralbox_server.delay(30, times=3)
    async with AsyncNeuralBox(**neuralbox_server.client_options, max_connections=4) as client:
        async with client.generate_many(map(str, range(50)), model="gpt-5") as results:
            await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
            reply = await client.generate("gpt-5", "Hi", timeout=20)

    assert "You said: Hi" == reply.content
    assert 3 == len(results.report.cancelled_keys)


async def test_one_connection_is_enough(neuralbox_server):
    """A client with one connection can run a batch."""
    async with AsyncNeuralBox(**neuralbox_server.client_options, max_connections=1) as client:
        assert 3 == len(await results_of(client.generate_many(["a", "b", "c"], model="gpt-5")))


async def test_no_more_workers_than_work(make):
    """A high *max_concurrency* starts no more workers than there are requests."""
    client, _ = make()
    before = len(asyncio.all_tasks())
    async with client.generate_many(["a", "b"], model="gpt-5", max_concurrency=10_000) as results:
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - before < 10
        assert 2 == len([result async for result in results])


async def test_no_two_batches_share_an_idempotency_key(make):
    """The same requests in another batch of the same client have other keys: they are another purchase."""
    client, transport = make()
    for _ in range(2):
        async with client.generate_many(map(str, range(5)), model="gpt-5") as results:
            assert 5 == len([result async for result in results])

    assert 10 == len({request["headers"]["Idempotency-Key"] for request in transport.requests})


# ------------------------------------------------------------------------------------------------ failures, and the end


async def test_a_failure_stops_nothing(client, neuralbox_server):
    """A request that fails has a result; the other requests go on."""
    neuralbox_server.fail(400)
    neuralbox_server.drop("after")
    batch = client.generate_many(map(str, range(30)), model="gpt-5")
    results = await results_of(batch)

    assert 30 == len(results)
    assert {"BadRequestError": 1, "APIConnectionError": 1} == batch.report.failed_by_type
    assert {("no", 0), ("unknown", None)} == {(r.error.billed, r.tokens_used) for r in results if r.error}
    (unknown,) = (result.key for result in results if result.error and result.error.billed == "unknown")
    assert (1, (unknown,), 28, 56) == (
        batch.report.unknown,
        batch.report.unknown_keys,
        batch.report.completed,
        batch.report.tokens_used,
    )


@pytest.mark.parametrize(
    "status_code, code, error_type",
    [
        (401, "unauthorized", AuthenticationError),
        (402, "insufficient_tokens", InsufficientTokensError),
        (403, "insufficient_plan", PermissionDeniedError),
    ],
)
async def test_fatal_errors(make, status_code, code, error_type):
    """After an error that each request would get, nothing more is sent, and requests in flight finish."""
    client, transport = make(
        lambda request: error_response(status_code, error=code) if prompt_of(request) == "7" else completed(request),
        lambda request: 2 if prompt_of(request) == "7" else 9,
    )
    batch = client.generate_many([str(number) for number in range(100)], model="gpt-5", max_concurrency=4)
    results = await results_of(batch)

    assert error_type is type(batch.report.stopped_by)
    assert len(results) == len(transport.requests) < 15
    assert {code: 1} == {result.error.code: 1 for result in results if result.error}
    assert 100 - len(results) == batch.report.not_started
    assert 0 == batch.report.unknown


async def test_other_status_errors_stop_nothing(make):
    """A 403 for another reason is an ordinary failure."""
    client, _ = make(
        lambda request: error_response(403, error="region") if prompt_of(request) == "3" else completed(request)
    )
    batch = client.generate_many(map(str, range(20)), model="gpt-5")
    assert 20 == len(await results_of(batch))
    assert batch.report.stopped_by is None


async def test_the_key_function_raises():
    """An error of the user's key function is raised to the reader."""

    def api_key():
        raise LookupError("no key in the vault")

    client = AsyncNeuralBox(api_key, transport=FunctionTransport(completed))
    with pytest.raises(LookupError):
        await results_of(client.generate_many(["a", "b"], model="gpt-5"))


async def test_a_request_times_out(client, neuralbox_server):
    """The timeout holds for each request, not for the batch."""
    neuralbox_server.delay(30)
    batch = client.generate_many(map(str, range(20)), model="gpt-5", timeout=0.5, max_concurrency=2)
    results = await results_of(batch)

    assert [APITimeoutError] == [type(result.error) for result in results if result.error]


async def test_retries(make):
    """A request is retried as a single call is; a 5xx that may have been billed is not."""
    answers = iter(
        [
            NOT_CONNECTED,
            error_response(503, error="model_unavailable"),
            {"id": "1", "content": "x"},
            error_response(502),
        ]
    )
    client, _ = make(lambda _request: next(answers))
    results = await results_of(client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1))

    assert [3, 1] == [result.attempts for result in results]
    assert [None, InternalServerError] == [result.error and type(result.error) for result in results]


async def test_pending_generations_are_polled(poll_every):
    """A generation that the API reports as pending is polled until it is finished."""
    poll_every(0.02)
    with NeuralBoxServer(pending_models=["slow"], failing_models=["broken"], pending_seconds=0.05) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [{"prompt": "a", "model": "slow"}, {"prompt": "b", "model": "broken"}]
            results = await results_of(client.generate_many(requests, ordered=True))

    assert "You said: a" == results[0].generation.content
    assert GenerationFailedError is type(results[1].error)
    assert (1, 0) == (results[0].tokens_used, results[1].tokens_used)


# --------------------------------------------------------------------------------------------------------- concurrency


@pytest.mark.parametrize("polls", [0, 1, 5])
async def test_pending_generations_count_as_in_flight(make, poll_every, polls):
    """A generation that is being polled keeps its place: no more than *max_concurrency* are unfinished."""
    poll_every(0.001)
    unfinished, peak = {}, 0

    def respond(request):
        nonlocal peak
        if request["method"] == "POST":
            unfinished[f"gen_{prompt_of(request)}"] = polls
            peak = max(peak, len(unfinished))
            return {"id": f"gen_{prompt_of(request)}", "status": "pending"}
        name = request["path"].rpartition("/")[2]
        unfinished[name] -= 1
        if unfinished[name] > 0:
            return {"id": name, "status": "pending"}
        del unfinished[name]
        return {"id": name, "status": "completed", "content": "x", "tokens_used": 1}

    client, _ = make(respond)
    batch = client.generate_many(map(str, range(40)), model="m", max_concurrency=4)
    results = await results_of(batch)

    assert {None} == {result.error for result in results}
    assert (40, 4) == (len(results), peak)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_the_maximum_stays_in_flight(make, ordered, is_async):
    """While the reader reads, a request that ends is replaced at once."""
    in_flight = []

    def respond(request):
        in_flight.append(transport.in_flight)
        return completed(request)

    async def async_prompts():
        for number in range(400):
            yield str(number)

    client, transport = make(respond, lambda _request: 50)
    prompts = async_prompts() if is_async else map(str, range(400))
    batch = client.generate_many(prompts, model="m", max_concurrency=8, ordered=ordered)
    assert 400 == len(await results_of(batch))
    steady = in_flight[50:-50]

    assert 8 == max(steady)
    assert sum(steady) / len(steady) > 4  # several end in the same iteration of the loop


async def test_a_slow_reader(make):
    """A reader that pauses finds its results when it goes on, and requests in flight go down to none meanwhile."""
    client, transport = make()
    async with client.generate_many(map(str, range(100)), model="m", max_concurrency=4) as results:
        seen = [await anext(results)]
        for _ in range(500):
            await asyncio.sleep(0)
        assert 0 == transport.in_flight
        assert 1 + 2 * 4 == len(transport.requests)
        seen += [result async for result in results]
    assert 100 == len({result.index for result in seen})


async def test_a_connection_that_is_refused_once(make_client):
    """Once a request has succeeded, a connection that no retry would change is an error of its row alone."""
    refused = APIConnectionError("TLS verification failed", retryable=False)

    def respond(request):
        return refused if prompt_of(request) == "5" else completed(request)

    batch = make_client(FunctionTransport(respond)).generate_many(map(str, range(20)), model="gpt-5", max_concurrency=1)
    results = await results_of(batch)

    assert ["5"] == [result.item for result in results if isinstance(result.error, APIConnectionError)]
    assert (19, {"APIConnectionError": 1}) == (batch.report.completed, batch.report.failed_by_type)
