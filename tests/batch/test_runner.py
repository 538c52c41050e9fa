"""How a batch runs its requests: concurrency, results, retries, and failures that stop the rest."""

from __future__ import annotations

import asyncio

import pytest
from answers import REFUSED, Answers, done, results_of, said
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncNeuralBox,
    AuthenticationError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    PermissionDeniedError,
    _sending,
)
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

LOST = APIConnectionError("reset", request_sent=True)


def refusal(status, **members):
    """Return an answer with an error status."""
    return FakeResponse(str(members or {}).replace("'", '"').encode(), status_code=status)


# ------------------------------------------------------------------------------------------------- what goes and comes


async def test_results(client, neuralbox_server):
    """Each request has one result: its generation, its key, what it cost and how long it took."""
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
        report.failed,
        report.skipped,
        report.not_started,
        report.stopped_by,
        report.tokens_used,
    )
    assert 0 < report.elapsed < 60


async def test_each_request_has_its_idempotency_key(make):
    """Each request has an `Idempotency-Key` of its own, the same on each attempt."""
    failures = iter([REFUSED])
    client, transport = make(lambda asked: next(failures, None) or {"id": "1", "content": "x"})
    await results_of(client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1))
    keys = [asked["headers"]["Idempotency-Key"] for asked in transport.asked]

    assert keys[0] == keys[1] != keys[2]


# --------------------------------------------------------------------------------------------- how many, in what order


@settings(max_examples=60, deadline=None)
@given(
    pauses=st.lists(st.integers(0, 7), max_size=60),
    cap=st.integers(1, 9),
    ordered=st.booleans(),
    awaited=st.booleans(),
    failing=st.sets(st.integers(0, 59)),
)
def test_every_request_has_one_result(pauses, cap, ordered, awaited, failing):
    """However long each takes and whatever fails, each has one result, and no more than the cap are in flight."""

    def answer(asked):
        return LOST if int(said(asked)) in failing else done(asked)

    async def awaited_prompts():
        for number in range(len(pauses)):
            await asyncio.sleep(0)
            yield str(number)

    async def run():
        transport = Answers(answer, lambda asked: pauses[int(said(asked))])
        client = AsyncNeuralBox("key", transport=transport)
        requests = awaited_prompts() if awaited else map(str, range(len(pauses)))
        batch = client.generate_many(requests, model="m", max_concurrency=cap, ordered=ordered)
        return await results_of(batch), transport.peak, batch.report

    results, peak, report = asyncio.run(run())
    indexes = [result.index for result in results]
    assert list(range(len(pauses))) == (indexes if ordered else sorted(indexes))
    assert peak <= cap
    lost = failing & set(indexes)
    assert lost == {result.index for result in results if result.error is not None}
    assert (len(pauses) - len(lost), len(lost)) == (report.completed, report.unknown)
    assert {result.key for result in results if result.error} == set(report.unknown_keys)


async def test_all_slots_are_used(make):
    """As many are in flight as may be."""
    client, transport = make(pause=lambda _asked: 50)
    await results_of(client.generate_many(map(str, range(400)), model="gpt-5", max_concurrency=40))

    assert 40 == transport.peak


async def test_a_single_call_finds_a_connection(neuralbox_server):
    """A batch leaves connections to calls that are not part of it: they do not queue behind its requests."""
    neuralbox_server.delay(30, times=3)
    async with AsyncNeuralBox(**neuralbox_server.client_options, max_connections=4) as client:
        async with client.generate_many(map(str, range(50)), model="gpt-5") as results:
            await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 3)
            reply = await client.generate("gpt-5", "Hi", timeout=20)

    assert "You said: Hi" == reply.content
    assert 3 == len(results.report.cancelled_keys)


async def test_one_connection_is_enough(neuralbox_server):
    """A client with one connection can do a batch as well."""
    async with AsyncNeuralBox(**neuralbox_server.client_options, max_connections=1) as client:
        assert 3 == len(await results_of(client.generate_many(["a", "b", "c"], model="gpt-5")))


async def test_no_more_workers_than_work(make):
    """A high cap costs nothing when there is little to do."""
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

    assert 10 == len({asked["headers"]["Idempotency-Key"] for asked in transport.asked})


# ------------------------------------------------------------------------------------------------ failures, and the end


async def test_a_failure_stops_nothing(client, neuralbox_server):
    """A request that fails is a result; the others go on."""
    neuralbox_server.fail(400)
    neuralbox_server.drop("after")
    batch = client.generate_many(map(str, range(30)), model="gpt-5")
    results = await results_of(batch)

    assert 30 == len(results)
    assert {"BadRequestError": 1, "APIConnectionError": 1} == batch.report.failed
    assert {("no", 0), ("unknown", None)} == {(r.error.billed, r.tokens) for r in results if r.error}
    (unknown,) = (result.key for result in results if result.error and result.error.billed == "unknown")
    assert (1, (unknown,), 28, 56) == (
        batch.report.unknown,
        batch.report.unknown_keys,
        batch.report.completed,
        batch.report.tokens_used,
    )


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (401, "unauthorized", AuthenticationError),
        (402, "insufficient_tokens", InsufficientTokensError),
        (403, "insufficient_plan", PermissionDeniedError),
    ],
)
async def test_what_makes_the_rest_pointless(make, status, code, kind):
    """After an answer that each would get, nothing more is sent; what is in flight is finished."""
    client, transport = make(
        lambda asked: refusal(status, error=code) if said(asked) == "7" else done(asked),
        lambda asked: 2 if said(asked) == "7" else 9,
    )
    batch = client.generate_many([str(number) for number in range(100)], model="gpt-5", max_concurrency=4)
    results = await results_of(batch)

    assert kind is type(batch.report.stopped_by)
    assert len(results) == len(transport.asked) < 15
    assert {code: 1} == {result.error.code: 1 for result in results if result.error}
    assert 100 - len(results) == batch.report.not_started
    assert 0 == batch.report.unknown


async def test_other_refusals_stop_nothing(make):
    """A 403 for another reason is a failure like any other."""
    client, _ = make(lambda asked: refusal(403, error="region") if said(asked) == "3" else done(asked))
    batch = client.generate_many(map(str, range(20)), model="gpt-5")
    assert 20 == len(await results_of(batch))
    assert batch.report.stopped_by is None


async def test_the_key_function_raises():
    """What is no failure of the API, such as a key function's error, is raised to the reader."""

    def api_key():
        raise LookupError("no key in the vault")

    client = AsyncNeuralBox(api_key, transport=Answers(done))
    with pytest.raises(LookupError):
        await results_of(client.generate_many(["a", "b"], model="gpt-5"))


async def test_a_request_times_out(client, neuralbox_server):
    """The time is for each request, not for the batch."""
    neuralbox_server.delay(30)
    batch = client.generate_many(map(str, range(20)), model="gpt-5", timeout=0.5, max_concurrency=2)
    results = await results_of(batch)

    assert [APITimeoutError] == [type(result.error) for result in results if result.error]


async def test_retries(make):
    """Each request is tried again as a single call is; a 5xx that may have been billed is not."""
    answers = iter([REFUSED, refusal(503, error="model_unavailable"), {"id": "1", "content": "x"}, refusal(502)])
    client, _ = make(lambda _asked: next(answers))
    results = await results_of(client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1))

    assert [3, 1] == [result.attempts for result in results]
    assert [None, InternalServerError] == [result.error and type(result.error) for result in results]


async def test_pending_generations_are_waited_for(monkeypatch):
    """A generation that the API answers as pending is polled until it is finished."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    with NeuralBoxServer(pending_models=["slow"], failing_models=["broken"], pending_seconds=0.05) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [{"prompt": "a", "model": "slow"}, {"prompt": "b", "model": "broken"}]
            results = await results_of(client.generate_many(requests, ordered=True))

    assert "You said: a" == results[0].generation.content
    assert GenerationFailedError is type(results[1].error)
    assert (1, 0) == (results[0].tokens, results[1].tokens)
