"""How a batch keeps within rate limits, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime

import pytest
from transports import completed

from neuralbox_async import APIConnectionError, AsyncNeuralBox, ClientClosedError, RateLimitError
from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._call.rate_limits import RateLimits
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

NOT_CONNECTED = APIConnectionError("refused")


def rate_limit_error(**facts):
    """Return the error of a 429."""
    error = RateLimitError("429", status_code=429, retry_after=facts.pop("retry_after", None))
    vars(error).update(facts)
    return error


# ------------------------------------------------------------------------------------------------------- on the server


async def run_without_errors(batch):
    """Run *batch* to its end."""
    async with batch as results:
        async for result in results:
            assert result.error is None, result


@pytest.mark.slow
@pytest.mark.parametrize("latency, concurrency", [(0.0, 64), (0.03, 16)])
async def test_a_limit_is_used_and_observed(latency, concurrency):
    """Of each window at least 97 % is used, at most 1 % is refused, and the batch resumes automatically."""
    limit = 200
    for hour in (1.0, 4.0, 16.0):  # seconds: a slow machine reaches the limit only in a longer window
        with NeuralBoxServer(limit_hour=limit, hour_seconds=hour, latency=latency) as server:
            async with AsyncNeuralBox(**server.client_options) as client:
                waiting, seconds = [], []

                def observe(progress, waiting=waiting, seconds=seconds):
                    waiting.append(progress.waiting_until is not None)
                    if progress.waiting_until is not None:
                        seconds.append((progress.waiting_until - datetime.now(UTC)).total_seconds())

                prompts = (str(number) for number in range(3 * limit * 97 // 100))
                batch = client.generate_many(
                    prompts, model="gpt-5-nano", max_concurrency=concurrency, on_progress=observe
                )
                await run_without_errors(batch)
            requests = [request for request in server.requests if request.path.endswith("/generate")]
            answered = [request.response_status for request in requests]

        assert answered.count(429) == batch.report.rate_limited <= len(requests) // 100
        assert 3 * limit * 97 // 100 == answered.count(200) == len(server.billed)
        if any(waiting):
            break

    # 582 requests need but two waits only if at least 97 % of each window of 200 are used.
    assert 1 <= sum(now and not before for before, now in itertools.pairwise(waiting)) <= 2
    assert 0 < max(seconds)
    assert max(seconds) < hour + 2  # the header has full seconds, rounded up


async def test_a_server_without_headers(make):
    """Where only refusals report limits, the batch waits as long as they specify, and goes on."""
    refusals = iter([None] * 30 + [{"error": "rate_limit_exceeded", "retry_after": 0.02}] * 3)

    def respond(request):
        body = next(refusals, None)
        return completed(request) if body is None else FakeResponse(json.dumps(body).encode(), status_code=429)

    client, transport = make(respond)
    batch = client.generate_many(map(str, range(80)), model="gpt-5", max_concurrency=1)
    await run_without_errors(batch)

    assert (3, 83) == (batch.report.rate_limited, len(transport.requests))


async def test_a_day_without_an_announced_end():
    """The end of a day is known from one refusal."""
    with NeuralBoxServer(limit_day=30, day_seconds=0.5) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            batch = client.generate_many(map(str, range(50)), model="gpt-5-nano", max_concurrency=20)
            await run_without_errors(batch)

    assert 1 == batch.report.rate_limited


async def test_a_refused_request_is_sent_again(client, neuralbox_server):
    """A 429 is no failure and no attempt of the retry policy: the request is sent again after the wait."""
    neuralbox_server.fail(429, retry_after=0.05, times=4)
    batch = client.generate_many(map(str, range(20)), model="gpt-5", max_concurrency=1, max_retries=0)
    async with batch as results:
        found = [result async for result in results]

    assert {None} == {result.error for result in found}
    assert (4, 20) == (batch.report.rate_limited, batch.report.completed)
    assert [5] + [1] * 19 == [result.attempts for result in found]


async def test_refusals_without_a_wait(client, neuralbox_server):
    """A server that refuses again and again, and says that the wait is over at once, is not flooded with requests."""
    neuralbox_server.fail(429, times=5, retry_after=0.001)
    started = time.monotonic()
    await run_without_errors(client.generate_many(["Hi"], model="gpt-5-nano"))

    assert time.monotonic() - started >= 0.1 + 0.2 + 0.4 + 0.8 + 1.0
    assert 6 == len(neuralbox_server.requests)


async def test_a_final_refusal(client, neuralbox_server):
    """A 429 with ``x-should-retry: false`` is a failure."""
    neuralbox_server.fail(429, headers={"x-should-retry": "false"}, retry_after=0.01)
    batch = client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1)
    async with batch as results:
        found = [result async for result in results]

    assert RateLimitError is type(found[0].error)
    assert found[1].error is None


async def test_interactive_calls_are_not_starved():
    """While a batch waits for the next window, a single call of the same client is not refused."""
    with NeuralBoxServer(limit_hour=50, hour_seconds=30) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            waiting = asyncio.Event()
            batch = client.generate_many(
                map(str, range(500)),
                model="gpt-5-nano",
                on_progress=lambda progress: progress.waiting_until and waiting.set(),
            )
            async with batch as results:
                await asyncio.wait_for(waiting.wait(), 10)
                while results.progress.in_flight:
                    await anext(results)
                reply = await client.generate("gpt-5-nano", "Hi", max_retries=0)

    assert "You said: Hi" == reply.content
    assert 0 == batch.report.rate_limited


async def test_a_batch_uses_limits_of_earlier_calls():
    """A batch starts with the limits that other calls of the client have learned."""
    with NeuralBoxServer(limit_hour=20, hour_seconds=30) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            async with client.generate_many(map(str, range(100)), model="gpt-5-nano") as results:
                for _ in range(18):
                    await anext(results)
                while results.progress.waiting_until is None:
                    await asyncio.sleep(0.001)

    assert (18, 0) == (results.report.completed, results.report.rate_limited)


@pytest.mark.parametrize("read", [0, 1, 50])
async def test_a_finished_batch_unsubscribes(client, neuralbox_server, read):
    """Read to its end or left before, a batch does not subscribe to rate limits any more."""
    async with client.generate_many(map(str, range(50)), model="gpt-5-nano") as results:
        for _ in range(read):
            await anext(results)

    assert [] == client._executor.account_state.rate_limits.active_subscribers


async def test_stop_ends_a_wait():
    """A batch that waits for a limit stops at once; refused requests count as not started."""
    with NeuralBoxServer(limit_hour=2, hour_seconds=60) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            await client.generate("gpt-5-nano", "Hi")
            server.fail(429, retry_after=60)
            client._executor.account_state.rate_limits.hour.remaining = 1
            async with client.generate_many([str(n) for n in range(9)], model="gpt-5-nano") as results:
                while not results.report.rate_limited:
                    await asyncio.sleep(0.001)
                results.stop()
                assert [] == [result async for result in results]

    assert (9, 0) == (results.report.not_started, results.report.unknown)


async def test_closing_the_client_ends_a_wait():
    """A batch that waits for a limit ends soon after its client is closed."""
    with NeuralBoxServer(limit_hour=3, hour_seconds=60) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            async with client.generate_many(map(str, range(9)), model="gpt-5-nano") as results:
                for _ in range(2):
                    await anext(results)
                while results.progress.waiting_until is None:
                    await asyncio.sleep(0.001)
                await client.aclose()
                assert [] == [result async for result in results]

    assert ClientClosedError is type(results.report.stopped_by)


@pytest.mark.timing
async def test_a_fixed_rate(make):
    """A fixed rate holds from the first request on."""
    client, _ = make()
    batch = client.generate_many(map(str, range(60)), model="gpt-5", max_rate=200)
    await run_without_errors(batch)

    assert 0.15 < batch.report.elapsed < 5


async def test_few_requests_fail_in_an_outage(make):
    """While the server is not reachable, a batch fails few requests."""
    client, _ = make(lambda _request: NOT_CONNECTED, max_retries=0)
    async with client.generate_many(map(str, range(100_000)), model="gpt-5") as results:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                async for _ in results:
                    pass

    assert results.report.failed_by_type.get("APIConnectionError", 0) < 40


LEFT_BEHIND = """
    import asyncio, sys
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_async.testing import NeuralBoxServer

    async def start(batch):
        await batch.__aenter__()
        for _ in range(30):
            await anext(batch)

    async def run_another(client):
        async with client.generate_many(["x"], model="gpt-5-nano") as results:
            print((await asyncio.wait_for(anext(results), 10)).error)

    with NeuralBoxServer(limit_day=40) as server:
        server.delay(30, times=10)  # before it counts them: ten are left, and ten in flight
        client = AsyncNeuralBox(**server.client_options)
        batch = client.generate_many(map(str, range(40)), model="gpt-5-nano")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(start(batch))
        loop.close()
        if "dropped" in sys.argv:
            del batch
        asyncio.run(run_another(client))
"""


@pytest.mark.process
@pytest.mark.parametrize("reference", ["held", "dropped"])
def test_a_batch_whose_loop_was_closed(reference):
    """The requests in flight of a batch whose loop was closed count for no later batch."""
    # In a process of its own: asyncio logs the pending tasks of such a loop.
    script = [sys.executable, "-c", textwrap.dedent(LEFT_BEHIND), reference]
    assert "None\n" == subprocess.run(script, capture_output=True, text=True, timeout=50, check=False).stdout


def test_the_latest_response_before_a_batch():
    """The latest response before a batch is learned before the responses of the batch."""
    limits = RateLimits()
    limits.observe({"x-ratelimit-remaining-day": "0", "x-ratelimit-limit-day": "100"}, counted=True)
    limits.record_refused(rate_limit_error(retry_after=60.0))
    Pacer(limits, max_in_flight=4, rate=None)
    limits.observe({"x-ratelimit-remaining-day": "95", "x-ratelimit-limit-day": "100"}, counted=True)

    assert 95 == limits.day.remaining
