"""The budget of a batch: never more than it is spent, whatever the price, the order, and what fails."""

from __future__ import annotations

import asyncio

import pytest
from answers import Answers, done, said
from budget_runs import for_ten, rows, run, without_price
from hypothesis import given, settings
from hypothesis import strategies as st

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

LOST = APIConnectionError("reset", request_sent=True)


# ------------------------------------------------------------------------------------------------------------ the books


def test_without_a_limit():
    """Without a limit everything is allowed, and what is spent is counted all the same."""
    budget = Budget()
    assert all(budget.reserve("m") for _ in range(1000))
    budget.settle("m", 5)
    budget.settle("m", None)

    assert (5, 5) == (budget.spent, budget.at_risk)


def test_reservations():
    """What is reserved is not spent twice; what was not billed comes back."""
    budget = Budget(10)
    budget.quote("m", 4)
    assert [True, True, False] == [budget.reserve("m") for _ in range(3)]
    budget.settle("m", 0)
    assert [True, False] == [budget.reserve("m") for _ in range(2)]
    budget.settle("m", 3)
    budget.settle("m", None)
    assert (3, 4, 3, False) == (budget.spent, budget.at_risk, budget.left, budget.holding)
    assert not budget.reserve("m")


def test_an_unknown_price():
    """The first request of a model whose price is unknown goes alone, with all that is left."""
    budget = Budget(10)
    budget.quote("known", 3)
    assert budget.reserve("known")
    assert [True, False] == [budget.reserve("m") for _ in range(2)]
    assert not budget.reserve("known")
    budget.settle("known", 3)
    assert not budget.reserve("known")
    budget.settle("m", 2)
    assert [True, True, False] == [budget.reserve("m") for _ in range(3)]


def test_a_free_first_request_teaches_nothing():
    """A request that cost nothing does not tell the price."""
    budget = Budget(10)
    assert budget.reserve("m")
    budget.settle("m", 0)
    assert [True, False] == [budget.reserve("m") for _ in range(2)]


def test_the_highest_price_counts():
    """When a generation costs more than its model was thought to, what is reserved from then on is that."""
    budget = Budget(20)
    budget.quote("m", 2)
    assert all(budget.reserve("m") for _ in range(5))
    budget.settle("m", 4)
    assert 0 == 20 - 4 - 4 * 4 - budget.left
    assert not budget.reserve("m")


# ------------------------------------------------------------------------------------------------------------ the batch


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 60),
    costs=st.lists(st.integers(0, 7), max_size=40),
    cap=st.integers(1, 8),
    failing=st.dictionaries(st.integers(0, 39), st.sampled_from(["free", "lost"])),
)
def test_never_more_than_the_budget(limit, costs, cap, failing):
    """Whatever each costs, however many are in flight, whatever fails: no more is spent than the budget."""
    billed = 0

    def answer(asked):
        nonlocal billed
        if asked["path"].endswith("/calculate-price"):
            return {"token_cost": 3, "min_token_cost": 1, "max_token_cost": 7, "pricing_type": "matrix"}
        number = int(said(asked))
        if failing.get(number) == "free":
            return ProviderError("500", status=500, code="provider_error")
        billed += costs[number]
        return LOST if failing.get(number) == "lost" else done(asked, tokens_used=costs[number])

    async def main():
        client = AsyncNeuralBox(
            "key", transport=Answers(answer, lambda _asked: 3), retry_policy=RetryPolicy(max_retries=0)
        )
        batch = client.generate_many(map(str, range(len(costs))), model="m", max_concurrency=cap, budget=limit)
        return await run(batch)

    results, report = asyncio.run(main())
    assert billed <= report.tokens_used + report.tokens_possibly_billed <= limit
    assert report.tokens_used == sum(result.tokens_used or 0 for result in results)
    if len(results) < len(costs):
        assert BudgetReachedError is type(report.stopped_by)
        # It stopped because another could have cost more than was left, not earlier.
        assert limit - report.tokens_used - report.tokens_possibly_billed < 7


async def test_the_whole_budget_is_used():
    """With a fixed price the budget is used to the last token that buys anything."""
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


async def test_a_price_that_is_not_told(make):
    """Where the API tells no price, the first request alone shows it."""
    client, transport = make(without_price, lambda _asked: 20)
    results, report = await run(client.generate_many(map(str, range(50)), model="m", budget=30))
    generated = [asked for asked in transport.asked if asked["path"] == "/generate"]

    assert (3, 27, 3, 2) == (len(results), report.tokens_used, len(generated), transport.peak)


async def test_several_models():
    """Each model has its own price; it is asked for once."""
    with NeuralBoxServer() as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [
                {"prompt": str(number), "model": ("gpt-5", "gpt-5-nano", "gpt-5.2-pro")[number % 3]}
                for number in range(30)
            ]
            _, report = await run(client.generate_many(requests, budget=100, max_concurrency=8))
        asked = [request.path for request in server.requests if "calculate-price" in request.path]

    assert 3 == len(set(asked)) == len(asked)
    assert 2 + 1 + 39 + 2 + 1 + 39 + 2 + 1 == report.tokens_used
    assert "gpt-5.2-pro" == report.stopped_by.model


async def test_the_balance_first():
    """With *limit_to_balance* no more is spent than is there, and nothing fails for want of it."""
    with NeuralBoxServer(balance=7) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            for budget in (None, 100):
                batch = client.generate_many(map(str, range(50)), model="gpt-5", budget=budget, limit_to_balance=True)
                _, report = await run(batch)
                assert BudgetReachedError is type(report.stopped_by)
                assert {} == report.failed
        assert 1 == server.balance


async def test_a_balance_that_makes_no_sense(make):
    """An answer without a balance is an error before anything is sent."""
    client, transport = make(lambda _asked: FakeResponse(b'{"token_balance": "many"}'))
    with pytest.raises(Exception, match="token_balance"):
        await run(client.generate_many(["a"], model="m", limit_to_balance=True))
    assert ["/balance"] == [asked["path"] for asked in transport.asked]


async def test_unknown_outcomes_count_as_spent(client, neuralbox_server):
    """What may have been billed counts as spent, at its price."""
    neuralbox_server.drop("after", times=3)
    _, report = await run(client.generate_many(map(str, range(50)), model="gpt-5", budget=20, max_concurrency=1))

    assert (14, 6, 3) == (report.tokens_used, report.tokens_possibly_billed, report.unknown)
    assert 20 == sum(bill.tokens_used for bill in neuralbox_server.billed)


# --------------------------------------------------------------------------------------------- what was paid for before


async def test_a_bill_below_nothing(make, journal):
    """A negative number of tokens is no bill: it counts as one that was not told, and buys nothing."""

    def answer(asked):
        return for_ten(asked) if asked["path"].endswith("/calculate-price") else done(asked, tokens_used=-50)

    client, _ = make(answer)
    for _ in range(2):
        batch = client.generate_many(rows(9), model="m", budget=25, journal=journal)
        results, report = await run(batch)
        assert {None} >= {result.tokens_used for result in results}
        assert (0, 20) == (report.tokens_used, report.tokens_possibly_billed)
    assert 2 == sum(entry.event == "done" for entry in read_journal(journal))


async def test_a_first_request_without_an_answer(make, journal):
    """What went alone to learn a price counts, once that is known, at the price, and not at all that was left."""
    client, _ = make(lambda asked: LOST if "messages" in asked and said(asked) == "0" else without_price(asked))
    await run(client.generate_many(rows(1), model="m", budget=30, journal=journal))
    (start,) = (entry for entry in read_journal(journal) if entry.event == "start")
    _, report = await run(client.generate_many(rows(9), model="m", budget=60, journal=journal, max_concurrency=1))

    assert start.reserved is None
    assert (45, 9) == (report.tokens_used, report.tokens_possibly_billed)
