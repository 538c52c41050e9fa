"""The bound of concurrency, the rate limits of the account, and the budget."""

from __future__ import annotations

import asyncio
import time

import pytest
from gateways import running
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async.gateway._budget import Budget
from neuralbox_async.testing import NeuralBoxServer


async def test_concurrency(server):
    """No more generations run at the same time than allowed; further calls wait."""
    server.delay(0.05, times=12)
    async with running(server, max_concurrency=3) as site:
        replies = await asyncio.gather(*(site.send(stream=number % 2 == 0) for number in range(12)))

    assert [200] * 12 == [reply.status for reply in replies]
    assert 3 == server.peak_in_flight


async def test_busy(server):
    """A call that would wait too long for its turn is refused, may be repeated, and costs nothing."""
    server.stall(1)
    async with running(server, max_concurrency=1, max_wait=0.1) as site:
        waiting = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        reply = await site.send()
        waiting.cancel()
        await server.wait_for_disconnect_async()

    assert (429, "rate_limit_exceeded") == (reply.status, reply.error["code"])
    assert "x-should-retry" not in reply.headers
    assert 1 == len(server.requests)


async def test_queue_is_bounded(server):
    """No more calls wait than allowed; others are refused at once, may be repeated later, and cost nothing."""
    server.stall(1)
    async with running(server, max_concurrency=1, max_waiting=2) as site:
        first = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        admission = site.gateway._routes._admission
        waiting = [asyncio.create_task(site.send(stream=stream)) for stream in (True, False)]
        await server.wait_until_async(lambda: admission._waiting == 2)
        refused = [await site.send(stream=stream) for stream in (True, False)]
        first.cancel()
        replies = await asyncio.gather(*waiting)

    assert [429, 429] == [reply.status for reply in refused]
    assert {("requests", "rate_limit_exceeded")} == {(reply.error["type"], reply.error["code"]) for reply in refused}
    assert ["1", "1"] == [reply.headers["Retry-After"] for reply in refused]
    assert not any("x-should-retry" in reply.headers for reply in refused)
    assert [200, 200] == [reply.status for reply in replies]
    assert 3 == len(server.requests)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_the_queue(server, stream):
    """A client that leaves while its call waits for its turn leaves its place to others, and costs nothing."""
    server.stall(1)
    async with running(server, max_concurrency=1, max_waiting=1) as site:
        admission = site.gateway._routes._admission
        first = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        for _ in range(3):
            waiting = asyncio.create_task(site.send(stream=stream))
            await server.wait_until_async(lambda: admission._waiting == 1)
            waiting.cancel()
            await server.wait_until_async(lambda: admission._waiting == 0)
        first.cancel()
        await server.wait_for_disconnect_async()
        reply = await site.send()

    assert 200 == reply.status
    assert 2 == len(server.requests)


async def test_leaving_a_long_wait(server):
    """A whole call whose client leaves while it waits for a rate limit gives up its slot at once."""
    server.fail(429, retry_after=1000)
    async with running(server, max_concurrency=1, max_wait=2000) as site:
        task = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: len(server.requests) == 1 and server.in_flight == 0)
        task.cancel()
        await server.wait_until_async(lambda: site.gateway._routes.whole.running == 0)

        assert 1 == site.gateway._routes._admission._slots.value
    assert () == server.billed


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-5"])
async def test_models_wait_for_a_limit(server, path):
    """After a 429, the models are requested again when the API says; a wait that is too long is OpenAI's error."""
    async with running(server) as site:
        server.fail(429, method="GET", retry_after=0.1)
        later = await site.send("GET", path)
    server.fail(429, method="GET", retry_after=500)
    async with running(server) as site:
        refused = await site.send("GET", path)

    assert 200 == later.status
    assert (429, "rate_limit_exceeded") == (refused.status, refused.error["code"])
    assert "500" == refused.headers["Retry-After"]


async def test_price_waits_for_a_limit(server):
    """After a 429 for the price of a model, the call waits as for any other limit."""
    server.fail(429, method="GET", retry_after=0.1)
    async with running(server, budget=2) as site:
        reply = await site.send()

    assert 200 == reply.status
    assert 1 == len(server.billed)


@pytest.mark.parametrize("stream", [False, True])
async def test_refusal_is_waited_for(server, stream):
    """After a 429 of the API, the call waits for as long as it says, and is sent again."""
    server.fail(429, retry_after=0.2)
    async with running(server) as site:
        started = time.monotonic()
        reply = await site.send(stream=stream)

    assert 200 == reply.status
    assert time.monotonic() - started >= 0.2
    assert 2 == len(server.requests)
    assert 1 == len(server.billed)


@pytest.mark.parametrize("method, path", [("POST", "/v1/chat/completions"), ("GET", "/v1/models")])
async def test_refusals_without_a_wait(server, method, path):
    """An API that refuses again and again, and says that the wait is over at once, is not flooded with requests."""
    server.fail(429, times=1000, method=method, retry_after=0.001)
    async with running(server, max_wait=1) as site:
        reply = await site.send(method, path)

    assert 429 == reply.status
    assert len(server.requests) < 10


async def test_other_calls_wait_too(server):
    """While the account is refused, no call is sent; a wait that is too long is OpenAI's error."""
    server.fail(429, retry_after=500)
    async with running(server) as site:
        replies = [await site.send() for _ in range(3)]

    assert [429] * 3 == [reply.status for reply in replies]
    assert {"rate_limit_exceeded"} == {reply.error["code"] for reply in replies}
    assert all(490 <= int(reply.headers["Retry-After"]) <= 502 for reply in replies)
    assert 1 == len(server.requests)


async def test_known_limit():
    """When the hour's limit is used up, calls wait for its end without asking the API."""
    with NeuralBoxServer(limit_hour=5, hour_seconds=3) as server:
        async with running(server) as site:
            replies = [await site.send() for _ in range(5)]
            replies += await asyncio.gather(*(site.send(stream=number % 2 == 0) for number in range(5)))

    assert [200] * 10 == [reply.status for reply in replies]
    assert 10 == len(server.billed)
    # The end that the API announces is a whole second, so a request may come a moment too early.
    assert len(server.requests) <= 15


async def test_streams_in_flight_are_counted_once():
    """Streams that the API has counted already do not stand in the way of what the limit has left."""
    with NeuralBoxServer(limit_hour=8, event_interval=60) as server:
        async with running(server, max_wait=0.2) as site:
            streams = [site.open(stream=True) for _ in range(6)]
            tasks = [asyncio.create_task(stream.__aenter__()) for stream in streams]
            await server.wait_until_async(lambda: server.in_flight == 6)
            reply = await site.send()
            for task in tasks:
                task.cancel()

    assert 200 == reply.status


# --------------------------------------------------------------------------------------------------------------- budget


async def test_budget(server):
    """No call is sent that could exceed the budget; the error is that of OpenAI's quota, and not to be repeated."""
    async with running(server, budget=5) as site:
        replies = await asyncio.gather(*(site.send(stream=number % 2 == 0) for number in range(4)))
        replies.append(await site.send())
        cheap = await site.send(model="gpt-5-nano")

    assert [200, 200, 429, 429, 429] == sorted(reply.status for reply in replies)  # gpt-5 costs 2
    refused = next(reply for reply in replies if reply.status == 429)
    assert ("insufficient_quota", "insufficient_quota") == (refused.error["type"], refused.error["code"])
    assert "false" == refused.headers["x-should-retry"]
    assert 200 == cheap.status
    assert 5 == sum(bill.tokens_used for bill in server.billed)


async def test_budget_of_an_unknown_price(server):
    """A model that the catalogue does not have runs alone, until its price is known from a bill."""
    server.delay(0.05, times=3)
    async with running(server, budget=2) as site:
        replies = await asyncio.gather(*(site.send(model="strange") for _ in range(3)))

    assert [200, 200, 429] == sorted(reply.status for reply in replies)


async def test_budget_after_failures(server):
    """What was not billed is given back to the budget; what may have been billed is not."""
    server.fail(400, 3)
    server.fail(502)
    async with running(server, budget=4) as site:
        statuses = [(await site.send()).status for _ in range(6)]

    assert [400, 400, 400, 502, 200, 429] == statuses


async def test_budget_of_repairs(server):
    """A repair is paid from the budget; without enough for it, there is none."""
    server.reply_with("no JSON", "{}", "no JSON", "{}")
    async with running(server, budget=6) as site:
        replies = [await site.send(response_format={"type": "json_object"}) for _ in range(2)]

    assert [200, 502] == [reply.status for reply in replies]
    assert "invalid_output" == replies[1].error["code"]
    assert 6 == sum(bill.tokens_used for bill in server.billed)


@given(
    limit=st.integers(1, 50),
    calls=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.none() | st.integers(0, 1)), max_size=30),
)
def test_budget_is_never_exceeded(limit, calls):
    """Whatever the outcomes of calls, the tokens that may be spent never exceed the limit."""
    budget, prices, open_calls = Budget(limit), {"a": 3, "b": 7}, []
    budget.quote("a", 3)
    for model, generations, outcome in calls:
        reserved = budget.reserve(model, generations)
        if reserved is None:
            if open_calls:
                budget.settle(*open_calls.pop(0))
            continue
        assert budget.spent + reserved <= limit
        cost = min(reserved, prices[model] * generations)
        open_calls.append((reserved, None if outcome is None else cost * outcome))
    for reserved, tokens in open_calls:
        budget.settle(reserved, tokens)

    assert budget.spent <= limit
    assert limit - budget.spent == budget.left
