"""The budget of a batch: never more than it is spent, whatever the price, the order, and what fails."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced_requests import for_ten_tokens, rows, run, without_price
from transports import FunctionTransport, completed, prompt_of

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    BudgetReachedError,
    ProviderError,
    RetryPolicy,
    read_journal,
)
from neuralbox_async._batch.budget import Budget
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

CONNECTION_RESET = APIConnectionError("reset", request_sent=True)


# ------------------------------------------------------------------------------------------------------------ the books


def test_without_a_limit():
    """Without a limit every request may start, and spending is counted nevertheless."""
    budget = Budget()
    assert all(budget.reserve("m") for _ in range(1000))
    budget.settle("m", 5)
    budget.settle("m", None)

    assert (5, 5) == (budget.spent, budget.possibly_billed)


def test_reservations():
    """Reserved tokens are not spent twice; tokens that were not billed are released."""
    budget = Budget(10)
    budget.quote("m", 4)
    assert [True, True, False] == [budget.reserve("m") for _ in range(3)]
    budget.settle("m", 0)
    assert [True, False] == [budget.reserve("m") for _ in range(2)]
    budget.settle("m", 3)
    budget.settle("m", None)
    assert (3, 4, 3, False) == (budget.spent, budget.possibly_billed, budget.left, budget.holding)
    assert not budget.reserve("m")


def test_an_unknown_price():
    """The first request of a model with an unknown price runs alone, with all that is left."""
    budget = Budget(10)
    budget.quote("known", 3)
    assert budget.reserve("known")
    assert [True, False] == [budget.reserve("m") for _ in range(2)]
    assert not budget.reserve("known")
    budget.settle("known", 3)
    assert not budget.reserve("known")
    budget.settle("m", 2)
    assert [True, True, False] == [budget.reserve("m") for _ in range(3)]


def test_a_free_request_shows_no_price():
    """A request that cost nothing does not show the price."""
    budget = Budget(10)
    assert budget.reserve("m")
    budget.settle("m", 0)
    assert [True, False] == [budget.reserve("m") for _ in range(2)]


def test_the_highest_price_counts():
    """When a generation costs more than the price of its model, later reservations have the higher price."""
    budget = Budget(20)
    budget.quote("m", 2)
    assert all(budget.reserve("m") for _ in range(5))
    budget.settle("m", 4)
    assert 0 == 20 - 4 - 4 * 4 - budget.left
    assert not budget.reserve("m")


# ------------------------------------------------------------------------------------------------------------ the batch


@given(
    limit=st.integers(1, 60),
    costs=st.lists(st.integers(0, 7), max_size=40),
    maximum=st.integers(1, 8),
    failing=st.dictionaries(st.integers(0, 39), st.sampled_from(["free", "lost"])),
)
def test_spending_stays_within_the_budget(limit, costs, maximum, failing):
    """Whatever the costs, the concurrency and the failures, no more is spent than the budget."""
    billed = 0

    def respond(request):
        nonlocal billed
        if request["path"].endswith("/calculate-price"):
            return {"token_cost": 3, "min_token_cost": 1, "max_token_cost": 7, "pricing_type": "matrix"}
        number = int(prompt_of(request))
        if failing.get(number) == "free":
            return ProviderError("500", status_code=500, code="provider_error")
        billed += costs[number]
        return CONNECTION_RESET if failing.get(number) == "lost" else completed(request, tokens_used=costs[number])

    async def main():
        client = AsyncNeuralBox(
            "key", transport=FunctionTransport(respond, lambda _request: 3), retry_policy=RetryPolicy(max_retries=0)
        )
        batch = client.generate_many(map(str, range(len(costs))), model="m", max_concurrency=maximum, budget=limit)
        return await run(batch)

    results, report = asyncio.run(main())
    assert billed <= report.tokens_used + report.tokens_possibly_billed <= limit
    assert report.tokens_used == sum(result.tokens_used or 0 for result in results)
    if len(results) < len(costs):
        assert BudgetReachedError is type(report.stopped_by)
        # It stopped because another could have cost more than was left, not earlier.
        assert limit - report.tokens_used - report.tokens_possibly_billed < 7


async def test_the_whole_budget_is_used():
    """With a fixed price the budget is used until another generation does not fit."""
    with NeuralBoxServer(balance=1000) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [str(number) for number in range(100)]
            results, report = await run(client.generate_many(requests, model="claude-sonnet-4.5", budget=42))
            spent = 1000 - server.balance

    assert (10, 40, 40, 90, 0) == (
        len(results),
        spent,
        report.tokens_used,
        report.not_started,
        report.tokens_possibly_billed,
    )
    error = report.stopped_by
    assert (BudgetReachedError, 42, 40, "claude-sonnet-4.5") == (type(error), error.budget, error.spent, error.model)


async def test_an_unavailable_price(make):
    """Where the API reports no price, the first request runs alone and shows it."""
    client, transport = make(without_price, lambda _request: 20)
    results, report = await run(client.generate_many(map(str, range(50)), model="m", budget=30))
    generated = [request for request in transport.requests if request["path"] == "/generate"]

    assert (3, 27, 3, 2) == (len(results), report.tokens_used, len(generated), transport.peak)


async def test_several_models():
    """Each model has its own price, which is requested once."""
    with NeuralBoxServer() as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [
                {"prompt": str(number), "model": ("gpt-5", "gpt-5-nano", "gpt-5.2-pro")[number % 3]}
                for number in range(30)
            ]
            _, report = await run(client.generate_many(requests, budget=100, max_concurrency=8))
        request = [request.path for request in server.requests if "calculate-price" in request.path]

    assert 3 == len(set(request)) == len(request)
    assert 2 + 1 + 39 + 2 + 1 + 39 + 2 + 1 == report.tokens_used
    assert "gpt-5.2-pro" == report.stopped_by.model


async def test_the_balance_is_a_limit():
    """With *limit_to_balance* a batch spends no more than the balance, and no request fails for lack of it."""
    with NeuralBoxServer(balance=7) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            for budget in (None, 100):
                batch = client.generate_many(map(str, range(50)), model="gpt-5", budget=budget, limit_to_balance=True)
                _, report = await run(batch)
                assert BudgetReachedError is type(report.stopped_by)
                assert {} == report.failed_by_type
        assert 1 == server.balance


async def test_a_malformed_balance(make):
    """A response without a balance raises an error before any request is sent."""
    client, transport = make(lambda _request: FakeResponse(b'{"token_balance": "many"}'))
    with pytest.raises(Exception, match="token_balance"):
        await run(client.generate_many(["a"], model="m", limit_to_balance=True))
    assert ["/balance"] == [request["path"] for request in transport.requests]


async def test_unknown_outcomes_count_as_spent(client, neuralbox_server):
    """A request that may have been billed counts as spent, at its price."""
    neuralbox_server.drop("after", times=3)
    _, report = await run(client.generate_many(map(str, range(50)), model="gpt-5", budget=20, max_concurrency=1))

    assert (14, 6, 3) == (report.tokens_used, report.tokens_possibly_billed, report.unknown)
    assert 20 == sum(bill.tokens_used for bill in neuralbox_server.billed)


# --------------------------------------------------------------------------------------------- what was paid for before


async def test_a_negative_bill(make, journal):
    """A negative number of tokens counts as an unknown cost, and adds nothing to the budget."""

    def respond(request):
        return (
            for_ten_tokens(request)
            if request["path"].endswith("/calculate-price")
            else completed(request, tokens_used=-50)
        )

    client, _ = make(respond)
    for _ in range(2):
        batch = client.generate_many(rows(9), model="m", budget=25, journal=journal)
        results, report = await run(batch)
        assert {None} >= {result.tokens_used for result in results}
        assert (0, 20) == (report.tokens_used, report.tokens_possibly_billed)
    assert 2 == sum(entry.event == "done" for entry in read_journal(journal))


async def test_a_first_request_without_a_response(make, journal):
    """A request that ran alone and got no response counts at its model's price once that is known."""
    client, _ = make(
        lambda request: (
            CONNECTION_RESET if "messages" in request and prompt_of(request) == "0" else without_price(request)
        )
    )
    await run(client.generate_many(rows(1), model="m", budget=30, journal=journal))
    (start,) = (entry for entry in read_journal(journal) if entry.event == "start")
    _, report = await run(client.generate_many(rows(9), model="m", budget=60, journal=journal, max_concurrency=1))

    assert start.reserved is None
    assert (45, 9) == (report.tokens_used, report.tokens_possibly_billed)
