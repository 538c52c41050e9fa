"""Estimates: the price of a batch, by as few price requests as there are prices, and without any generation."""

from __future__ import annotations

import asyncio

import pytest

from neuralbox_async import Estimate, GenerateRequest, InvalidParameterError


async def test_agrees_with_the_bill(client, server):
    """The estimate is what the batch is billed, and costs nothing itself."""
    requests = ["One", {"prompt": "Two", "model": "claude-sonnet-4.5"}, GenerateRequest("gpt-5.2-pro", "Three"), "Four"]
    estimate = await client.estimate(requests, model="gpt-5")
    assert (0, 1_000_000) == (len(server.billed), server.balance)
    async with client.generate_many(requests, model="gpt-5") as results:
        async for result in results:
            assert result.error is None

    assert estimate.token_cost == 1_000_000 - server.balance == results.report.tokens_used_total == 47
    assert {"gpt-5": 4, "claude-sonnet-4.5": 4, "gpt-5.2-pro": 39} == estimate.by_model
    assert 4 == estimate.requests


async def test_one_price_request_for_each_combination(client, server):
    """However many prompts there are, each combination of model and options is priced once."""
    rows = [{"prompt": f"Prompt {number}", "max_tokens": 10 + number % 2} for number in range(1000)]
    estimate = await client.estimate(rows, model="gpt-5", temperature=0.5)

    assert (1000, 2000) == (estimate.requests, estimate.token_cost)
    assert [{"temperature": 0.5, "max_tokens": 10}, {"temperature": 0.5, "max_tokens": 11}] == [
        request.json["params"] for request in server.requests
    ]
    assert {1} == {request.json["count"] for request in server.requests}


async def test_options(client, server):
    """The members of *extra_body* are options, in either documented form; their order makes no difference."""
    requests = [
        GenerateRequest("dall-e-3", "x", extra_body={"quality": "hd", "size": "1024x1024"}),
        GenerateRequest("dall-e-3", "y", extra_body={"size": "1024x1024", "quality": "hd"}),
        GenerateRequest("dall-e-3", "z", extra_body={"params": {"quality": "hd", "size": "1024x1024"}}),
    ]
    estimate = await client.estimate(requests)

    assert Estimate(requests=3, token_cost=15, max_token_cost=39, by_model={"dall-e-3": 15}) == estimate
    assert [{"quality": "hd", "size": "1024x1024"}] == [request.json["params"] for request in server.requests]


async def test_sources(client):
    """Requests may come from any iterable; an async iterable is closed."""
    closed = []

    async def prompts():
        try:
            yield "One"
            yield "Two"
        finally:
            closed.append(True)

    assert 2 == (await client.estimate((text for text in ["One", "Two"]), model="gpt-5")).requests
    assert 2 == (await client.estimate(prompts(), model="gpt-5")).requests
    assert [True] == closed


async def test_no_requests(client, server):
    """No requests cost nothing, and nothing is sent."""
    assert Estimate(requests=0, token_cost=0, max_token_cost=0, by_model={}) == await client.estimate([])
    assert 0 == len(server.requests)


@pytest.mark.parametrize(
    "requests, options",
    [
        ("Hi", {"model": "gpt-5"}),
        (["Hi"], {}),
        (["Hi", {"prompt": 5}], {"model": "gpt-5"}),
        (["Hi"], {"model": "gpt-5", "temperature": 3}),
        ([GenerateRequest("gpt-5", "Hi", extra_body={"a": object()})], {}),
    ],
    ids=["a string", "no model", "an invalid item", "an invalid default", "no JSON"],
)
async def test_invalid_requests(client, server, requests, options):
    """What a batch would refuse is an error, before anything is sent."""
    with pytest.raises(InvalidParameterError):
        await client.estimate(requests, **options)

    assert 0 == len(server.requests)


async def test_lost_connection(client, server):
    """A price request is repeated like a GET."""
    server.drop(method="POST", path="/models*")

    assert 2 == (await client.estimate(["Hi"], model="gpt-5")).token_cost


async def test_price_without_a_maximum(make_client, fake):
    """The maximum is at least the price."""
    async with make_client(fake({"token_cost": 3})) as client:
        estimate = await client.estimate(["Hi", "Ho"], model="gpt-5")

    assert (6, 6) == (estimate.token_cost, estimate.max_token_cost)


async def test_other_tasks_run(client):
    """A long list does not block the event loop: other tasks run while it is read."""
    turns = []

    async def other():
        while True:
            turns.append(True)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    await client.estimate(["Hi"] * 5000, model="gpt-5")
    task.cancel()

    assert 50 <= len(turns)
