"""`AsyncNeuralBox.generate_many`: what is sent, what comes back, when it stops, and what leaving it means."""

from __future__ import annotations

import asyncio
import gc
import itertools

import anyio
import pytest
from answers import Answers, done, said
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncNeuralBox,
    AuthenticationError,
    BatchReport,
    BatchResult,
    BatchStateError,
    ClientClosedError,
    GenerateRequest,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    InvalidParameterError,
    Message,
    PermissionDeniedError,
    RetryPolicy,
    _sending,
)
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

LOST = APIConnectionError("reset", request_sent=True)
REFUSED = APIConnectionError("refused")


async def results_of(batch):
    """Run *batch* to its end and return its results."""
    async with batch as results:
        return [result async for result in results]


def refusal(status, **members):
    """Return an answer with an error status."""
    return FakeResponse(str(members or {}).replace("'", '"').encode(), status=status)


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
    assert {(None, 1, 2)} == {(result.error, result.attempts, result.tokens) for result in results}
    assert all(0 < result.seconds < 60 for result in results)
    assert 8 >= neuralbox_server.peak_in_flight
    report = batch.report
    assert (100, {}, 0, 0, None, 200) == (
        report.completed,
        report.failed,
        report.skipped,
        report.not_started,
        report.stopped_by,
        report.tokens,
    )
    assert 0 < report.seconds < 60


async def test_kinds_of_requests(make):
    """Strings, dicts and requests can be mixed; defaults are for strings and for dicts without that member."""
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
        {name: value for name, value in asked.items() if name not in {"method", "path", "headers"}}
        for asked in transport.asked
    ]
    mine = {"model": "mine", "messages": [user]}
    assert [
        ours,
        ours,
        {**ours, "model": "other", "system": "Be rude.", "temperature": 1, "max_tokens": 3, "seed": 4},
        {**ours, "top_p": 1, "seed": 4},
        mine,
        mine,
    ] == sent
    keys = [result.key for result in results]
    assert ["a", "7", "b"] == [keys[1], keys[3], keys[4]]
    assert all(len(keys[n]) == 32 for n in (0, 2, 5))
    assert ["Hi"] * 6 == [result.request.messages[0].content for result in results]


async def test_key_of_a_content(make):
    """The key of a request without one never changes: journals of years ago are known by it."""
    client, _ = make()
    results = await results_of(client.generate_many(["Hi"], model="gpt-5", temperature=0.5))

    assert "4934b418bacacb6651affa8c3b0f62e4" == results[0].key


async def test_each_request_has_its_idempotency_key(make):
    """Each request has an `Idempotency-Key` of its own, the same on each attempt."""
    failures = iter([REFUSED])
    client, transport = make(lambda asked: next(failures, None) or {"id": "1", "content": "x"})
    await results_of(client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1))
    keys = [asked["headers"]["Idempotency-Key"] for asked in transport.asked]

    assert keys[0] == keys[1] != keys[2]


async def test_what_makes_no_request(make):
    """What makes no request is a result with the error, and stops nothing."""
    client, transport = make()
    requests = [5, {"key": "a"}, {"prompt": "x", "messages": []}, {"prompt": 5}, {"prompt": "x", "key": ""}, "good"]
    requests += [{"prompt": "x", "temperature": 9, "key": "\ud800"}, {"prompt": "x", "seed": object()}]
    requests += [GenerateRequest("m", "x", extra_body={"seed": object()}, key="b")]
    results = await results_of(client.generate_many(requests, model="gpt-5", ordered=True))

    assert [True] * 5 + [False] + [True] * 3 == [isinstance(r.error, InvalidParameterError) for r in results]
    assert ["#0", "a", "#2", "#3", "#4"] == [result.key for result in results[:5]]
    assert "b" == results[-1].key
    assert {(0, 0)} == {(result.attempts, result.tokens) for result in results if result.error}
    assert 1 == len(transport.asked)


async def test_without_a_model(make):
    """A string needs a model."""
    client, transport = make()
    (result,) = await results_of(client.generate_many(["Hi"]))

    assert "model" == result.error.parameter
    assert [] == transport.asked


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


@pytest.mark.parametrize("ordered, bound", [(False, 2 * 5), (True, 4 * 5)])
async def test_requests_are_read_as_needed(make, ordered, bound):
    """A reader who reads nothing holds up the reading of requests; one that reads gets all."""
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
        assert bound == last + 1 == len(transport.asked)
        seen = [await anext(results) for _ in range(50)]
    assert 50 == len(seen)
    assert last < 50 + bound + 5


async def test_no_more_workers_than_work(make):
    """A high cap costs nothing when there is little to do."""
    client, _ = make()
    before = len(asyncio.all_tasks())
    async with client.generate_many(["a", "b"], model="gpt-5", max_concurrency=10_000) as results:
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - before < 10
        assert 2 == len([result async for result in results])


async def test_async_requests_are_read_in_one_task(make):
    """An async generator may hold a timeout open while it yields: it runs in one task, which is none of the batch's."""
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
    """A batch that is left early ends the async generator that it reads, in its task."""
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


async def test_no_two_batches_share_an_idempotency_key(make):
    """The same requests in another batch of the same client have other keys: they are another purchase."""
    client, transport = make()
    for _ in range(2):
        async with client.generate_many(map(str, range(5)), model="gpt-5") as results:
            assert 5 == len([result async for result in results])

    assert 10 == len({asked["headers"]["Idempotency-Key"] for asked in transport.asked})


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
        batch.report.tokens,
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


async def test_the_requests_raise(make):
    """What the iterator of the requests raises is raised to the reader, after all results."""
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


async def test_the_awaited_requests_raise(make):
    """The same for an async iterator."""
    client, _ = make()

    async def requests():
        yield "a"
        raise OSError("no such disk")

    async with client.generate_many(requests(), model="gpt-5") as results:
        assert 0 == (await anext(results)).index
        with pytest.raises(OSError, match="no such disk"):
            await anext(results)


async def test_the_key_function_raises():
    """What is no failure of the API, such as a key function's error, is raised to the reader."""

    def api_key():
        raise LookupError("no key in the vault")

    client = AsyncNeuralBox(api_key, transport=Answers(done))
    with pytest.raises(LookupError):
        await results_of(client.generate_many(["a", "b"], model="gpt-5"))


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
        last.tokens,
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

    assert len(told) <= 10 * batch.report.seconds + 3
    assert 2000 == told[-1].total == told[-1].done


async def test_progress_raises(make):
    """What *on_progress* raises is raised to the reader, and no more is sent."""
    client, transport = make()

    def on_progress(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await results_of(client.generate_many(map(str, range(1000)), model="gpt-5", on_progress=on_progress))
    assert len(transport.asked) < 200


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
