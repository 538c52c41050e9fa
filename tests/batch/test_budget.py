"""The budget of a batch: never more than it is spent, whatever the price, the order, and what fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from pathlib import Path

import pytest
from answers import Answers, done, said
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    BudgetReachedError,
    ProviderError,
    RetryPolicy,
    _sending,
    read_journal,
)
from neuralbox_async._budget import Budget
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

LOST = APIConnectionError("reset", request_sent=True)


async def run(batch):
    """Run *batch* to its end and return its results and its report."""
    async with batch as results:
        found = [result async for result in results]
    return found, batch.report


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
    assert billed <= report.tokens + report.tokens_at_risk <= limit
    assert report.tokens == sum(result.tokens or 0 for result in results)
    if len(results) < len(costs):
        assert BudgetReachedError is type(report.stopped_by)
        # It stopped because another could have cost more than was left, not earlier.
        assert limit - report.tokens - report.tokens_at_risk < 7


async def test_the_whole_budget_is_used():
    """With a fixed price the budget is used to the last token that buys anything."""
    with NeuralBoxServer(balance=1000) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            requests = [str(number) for number in range(100)]
            results, report = await run(client.generate_many(requests, model="claude-sonnet-4.5", budget=42))
            spent = 1000 - server.balance

    assert (10, 40, 40, 90, 0) == (len(results), spent, report.tokens, report.not_started, report.tokens_at_risk)
    error = report.stopped_by
    assert (BudgetReachedError, 42, 40, "claude-sonnet-4.5") == (type(error), error.budget, error.spent, error.model)


def without_price(asked):
    """Answer with a generation for 9 tokens; how much it costs is not told before."""
    if "calculate-price" in asked["path"]:
        return FakeResponse(b'{"error": "not_found"}', status=404)
    return done(asked, tokens_used=9)


async def test_a_price_that_is_not_told(make):
    """Where the API tells no price, the first request alone shows it."""
    client, transport = make(without_price, lambda _asked: 20)
    results, report = await run(client.generate_many(map(str, range(50)), model="m", budget=30))
    generated = [asked for asked in transport.asked if asked["path"] == "/generate"]

    assert (3, 27, 3, 2) == (len(results), report.tokens, len(generated), transport.peak)


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
    assert 2 + 1 + 39 + 2 + 1 + 39 + 2 + 1 == report.tokens
    assert "gpt-5.2-pro" == report.stopped_by.model


async def test_the_balance_first():
    """With *check_balance* no more is spent than is there, and nothing fails for want of it."""
    with NeuralBoxServer(balance=7) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            for budget in (None, 100):
                batch = client.generate_many(map(str, range(50)), model="gpt-5", budget=budget, check_balance=True)
                _, report = await run(batch)
                assert BudgetReachedError is type(report.stopped_by)
                assert {} == report.failed
        assert 1 == server.balance


async def test_a_balance_that_makes_no_sense(make):
    """An answer without a balance is an error before anything is sent."""
    client, transport = make(lambda _asked: FakeResponse(b'{"token_balance": "many"}'))
    with pytest.raises(Exception, match="token_balance"):
        await run(client.generate_many(["a"], model="m", check_balance=True))
    assert ["/balance"] == [asked["path"] for asked in transport.asked]


async def test_unknown_outcomes_count_as_spent(client, neuralbox_server):
    """What may have been billed counts as spent, at its price."""
    neuralbox_server.drop("after", times=3)
    _, report = await run(client.generate_many(map(str, range(50)), model="gpt-5", budget=20, max_concurrency=1))

    assert (14, 6, 3) == (report.tokens, report.tokens_at_risk, report.unknown)
    assert 20 == sum(bill.tokens_used for bill in neuralbox_server.billed)


# --------------------------------------------------------------------------------------------------------- several runs

TO_THE_END = 61


def rows(count):
    """Return requests whose keys are their prompts, the numbers from 0."""
    return [{"key": str(number), "prompt": str(number)} for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 60),
    costs=st.lists(st.integers(0, 7), min_size=1, max_size=30),
    cap=st.integers(1, 6),
    lost=st.sets(st.integers(0, 29)),
    leaving=st.lists(st.integers(0, TO_THE_END), max_size=5),
    on_unknown=st.sampled_from(["skip", "retry"]),
)
def test_never_more_than_the_budget_in_all_runs(limit, costs, cap, lost, leaving, on_unknown):
    """However often a batch is left and run again, all its runs together spend no more than its budget."""
    billed = 0

    def arrive(asked):
        # Billed when it comes, whether or not anybody still waits for the answer.
        nonlocal billed
        billed += 0 if asked["path"].endswith("/calculate-price") else costs[int(said(asked))]
        return 3

    def answer(asked):
        if asked["path"].endswith("/calculate-price"):
            return {"token_cost": 3, "min_token_cost": 1, "max_token_cost": 7, "pricing_type": "matrix"}
        number = int(said(asked))
        if number in lost:
            lost.discard(number)
            return LOST
        return done(asked, tokens_used=costs[number])

    async def run_once(journal, turns):
        before = billed
        client = AsyncNeuralBox("key", transport=Answers(answer, arrive))
        batch = client.generate_many(
            rows(len(costs)), model="m", max_concurrency=cap, budget=limit, journal=journal, on_unknown=on_unknown
        )
        async with batch as results:
            for _ in range(turns):
                await asyncio.sleep(0)
            while turns == TO_THE_END and await results.read_batch():
                pass
        report = batch.report
        known = sum(entry.tokens for entry in read_journal(journal) if entry.event == "done")
        assert known == report.tokens_in_all == report.tokens_before + report.tokens
        assert billed - before <= report.tokens + report.tokens_at_risk
        assert billed <= report.tokens_in_all + report.tokens_at_risk <= limit

    with tempfile.TemporaryDirectory() as folder:
        for turns in (*leaving, TO_THE_END):
            asyncio.run(run_once(Path(folder, "run.jsonl"), turns))


async def test_the_budget_is_of_all_runs(client, neuralbox_server, journal):
    """The same budget again is the same money: what earlier runs spent of it is gone."""
    told = []
    for budget in (10, 10, 15):
        batch = client.generate_many(rows(50), model="gpt-5", budget=budget, journal=journal)
        results, report = await run(batch)
        told.append((len(results), report.tokens, report.tokens_before, report.tokens_in_all))
        assert BudgetReachedError is type(report.stopped_by)
        assert report.tokens_in_all == report.stopped_by.spent

    assert [(5, 10, 0, 10), (0, 0, 10, 10), (2, 4, 10, 14)] == told
    assert 14 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_what_is_in_doubt_counts_in_later_runs(client, neuralbox_server, journal):
    """What an earlier run may have been billed for counts at what it had reserved, and if sent again, twice."""
    neuralbox_server.drop("after", times=2)
    requests = rows(50)
    await run(client.generate_many(requests[:2], model="gpt-5", budget=20, journal=journal, max_concurrency=1))
    _, skipping = await run(client.generate_many(requests[:3], model="gpt-5", budget=20, journal=journal))
    _, last = await run(client.generate_many(requests, model="gpt-5", budget=20, journal=journal, on_unknown="retry"))

    assert (2, 0, 4) == (skipping.tokens, skipping.tokens_before, skipping.tokens_at_risk)
    assert (14, 2, 4) == (last.tokens, last.tokens_before, last.tokens_at_risk)
    assert 20 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_doubts_of_a_run_without_a_budget(client, neuralbox_server, journal):
    """What a run without a budget left in doubt counts at the price of its model, before anything is sent."""
    neuralbox_server.drop("after", times=2)
    await run(client.generate_many(rows(2), model="claude-sonnet-4.5", journal=journal, max_concurrency=1))
    _, report = await run(client.generate_many(rows(50)[2:], model="gpt-5-nano", budget=10, journal=journal))

    assert (2, 8) == (report.tokens, report.tokens_at_risk)
    assert 10 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_pending_generations_are_paid_for_once(journal, monkeypatch):
    """What was accepted by an earlier run is waited for whatever is left of the budget, and counts once."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    with NeuralBoxServer(pending_models=["slow"], pending_seconds=0.2, prices={"slow": 5}) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            async with client.generate_many(rows(9), model="slow", budget=12, journal=journal) as results:
                while sum(entry.event == "pending" for entry in read_journal(journal)) < 2:
                    await asyncio.sleep(0.005)
            left = results.report
            again, report = await run(client.generate_many(rows(9), model="slow", budget=12, journal=journal))

    assert (0, 10) == (left.tokens, left.tokens_at_risk)
    assert {"0", "1"} == {result.key for result in again if result.error is None}
    assert (10, 0, 0) == (report.tokens, report.tokens_before, report.tokens_at_risk)
    assert 10 == sum(bill.tokens_used for bill in server.billed)


async def test_what_is_found_again_gives_tokens_back(make, journal, monkeypatch):
    """While it is asked what became of earlier requests, the batch waits: they may have cost less than was reserved."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.001)

    def answer(asked):
        if asked["path"].endswith("/calculate-price"):
            return {"max_token_cost": 10}
        if asked["method"] == "POST":
            return {"id": "1", "status": "pending"} if not again else done(asked, tokens_used=4)
        return {"id": "1", "status": "completed" if again else "pending", "content": "x", "tokens_used": 6}

    again = False
    client, _ = make(answer)
    async with client.generate_many(rows(3), model="m", budget=17, journal=journal) as results:
        while not any(entry.event == "pending" for entry in read_journal(journal)):
            await asyncio.sleep(0)
    again = True
    batch = client.generate_many(rows(3), model="m", budget=17, journal=journal)
    _, report = await run(batch)

    assert 10 == results.report.tokens_at_risk
    assert (10, 0) == (report.tokens, report.tokens_at_risk)


async def test_prices_are_remembered(make, journal):
    """Where the API tells no price, the journal knows what a model has cost: no request goes alone again."""
    client, transport = make(without_price, lambda _asked: 20)
    await run(client.generate_many(rows(1), model="m", budget=100, journal=journal))
    await run(client.generate_many(rows(5), model="m", budget=100, journal=journal))

    assert 4 == transport.peak


async def test_a_bill_without_tokens(make, journal):
    """A generation whose cost the API did not tell counts, now and later, at what was reserved for it."""

    def answer(asked):
        return {"max_token_cost": 5} if asked["path"].endswith("/calculate-price") else {"id": "1", "content": "x"}

    client, _ = make(answer)
    reports = []
    for _ in range(2):
        batch = client.generate_many(rows(9), model="m", budget=17, journal=journal, max_concurrency=1)
        reports.append((await run(batch))[1])

    assert [(3, 0, 15), (0, 0, 15)] == [(one.completed, one.tokens, one.tokens_at_risk) for one in reports]


async def test_a_journal_that_tells_no_model(make, journal):
    """What was in flight, nobody knows for which model, counts at the highest price there is."""
    text = '{"event":"journal","version":1}\n{"key": "x", "event": "start"}\n{"key": "y", "event": "start"}\n'
    journal.write_text(text)
    client, _ = make(lambda asked: {"max_token_cost": 4} if "price" in asked["path"] else done(asked, tokens_used=4))
    _, report = await run(client.generate_many(rows(9), model="m", budget=17, journal=journal))

    assert (8, 8) == (report.tokens, report.tokens_at_risk)


async def test_the_balance_is_what_there_is_now(journal):
    """The balance bounds what this run spends: earlier runs have been taken off it already."""
    with NeuralBoxServer(balance=10) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await run(client.generate_many(rows(3), model="gpt-5", journal=journal))
            batch = client.generate_many(rows(9), model="gpt-5", journal=journal, budget=100, check_balance=True)
            _, report = await run(batch)

    assert (4, 6, {}) == (report.tokens, report.tokens_before, report.failed)
    assert (4, 4) == (report.stopped_by.budget, report.stopped_by.spent)
    assert "the balance of 4 tokens" in str(report.stopped_by)


# --------------------------------------------------------------------------------------------- what was paid for before


def past(journal, *lines):
    """Write a journal of an earlier run."""
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in ({"event": "journal", "version": 1}, *lines)))


def begun(key, **members):
    return {"event": "start", "key": key, "idempotency_key": f"i-{key}", "model": "m", "reserved": 10, **members}


def accepted(key):
    return {"event": "pending", "key": key, "id": f"g-{key}"}


def finished(key):
    return {"event": "done", "key": key, "tokens": 10, "generation": {"id": f"g-{key}", "content": "x"}}


def named(*keys):
    return [{"key": key, "prompt": key} for key in keys]


def for_ten(asked):
    """Answer with generations for 10 tokens each."""
    if asked["path"].endswith("/calculate-price"):
        return {"max_token_cost": 10}
    if asked["method"] == "GET":
        return {"id": asked["path"].rpartition("/")[2], "status": "completed", "content": "x", "tokens_used": 10}
    return done(asked, tokens_used=10)


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_stands_behind_the_end_of_the_budget(make, journal, ordered):
    """At the end of the budget no more is sent; what is done is passed by, and what was accepted is asked for."""
    past(journal, begun("a"), begun("p"), accepted("p"), finished("a"), begun("lost"))
    client, transport = make(for_ten)
    requests = named("new", "p", "lost", "newer", "a", "newest")
    batch = client.generate_many(requests, model="m", budget=35, journal=journal, ordered=ordered)
    results, report = await run(batch)

    assert [("p", 10)] == [(result.key, result.tokens) for result in results]
    assert (1, 1, 4) == (report.completed, report.skipped, report.not_started)
    assert (10, 10, 10) == (report.tokens, report.tokens_before, report.tokens_at_risk)
    assert BudgetReachedError is type(report.stopped_by)
    assert "30 are spent, counting 20 that may have been billed without an answer" in str(report.stopped_by)
    assert ["g-p"] == [asked["path"].rpartition("/")[2] for asked in transport.asked if asked["method"] == "GET"]
    assert {"p", "a"} == {entry.key for entry in read_journal(journal) if entry.event == "done"}


@pytest.mark.parametrize("status, code", [(402, "insufficient_tokens"), (403, "insufficient_plan")])
async def test_what_stands_behind_the_end_of_the_money(make, journal, status, code):
    """When the API sells nothing more, what it has accepted before is still asked for."""
    past(journal, begun("a"), begun("p"), accepted("p"), finished("a"))

    def answer(asked):
        refused = FakeResponse(json.dumps({"error": code}).encode(), status=status)
        return refused if asked["method"] == "POST" else for_ten(asked)

    client, transport = make(answer)
    batch = client.generate_many(named("new", "newer", "p", "a"), model="m", journal=journal, max_concurrency=1)
    results, report = await run(batch)

    assert [("new", code), ("p", None)] == [(one.key, one.error and one.error.code) for one in results]
    assert (1, 1, 1) == (report.completed, report.skipped, report.not_started)
    assert code == report.stopped_by.code
    assert 2 == len(transport.asked)


async def test_a_decision_that_no_longer_matters(make, journal):
    """After the end of the budget nobody is asked what to do about what is in doubt."""
    past(journal, begun("x"), begun("p"), accepted("p"))
    client, _ = make(for_ten)
    batch = client.generate_many(
        named("new", "x", "p"), model="m", budget=25, journal=journal, on_unknown=lambda _key: 1 // 0
    )
    results, report = await run(batch)

    assert ["p"] == [result.key for result in results]
    assert 2 == report.not_started


@pytest.mark.parametrize("known", [(), (begun("p"), accepted("p"))])
async def test_nothing_is_read_in_vain(make, journal, known):
    """At the end of the budget no more is read once all is found that was paid for: the requests may never end."""
    past(journal, begun("a"), finished("a"), *known)
    client, _ = make(for_ten)
    endless = ({"key": key, "prompt": key} for key in itertools.chain(("b", "new", "p"), map(str, itertools.count())))
    _, report = await run(client.generate_many(endless, model="m", budget=30, journal=journal, max_concurrency=1))

    assert (2, None) == (report.completed, report.not_started)


async def test_stopping_behind_the_end_of_the_budget(make, journal):
    """While a million rows are searched for what was paid for, the batch can be stopped at once, and left."""
    past(journal, begun("a"), finished("a"), begun("p"), accepted("p"))
    client, _ = make(for_ten)
    taken = 0

    class Endless:
        def __len__(self):
            return 10**9

        def __iter__(self):
            nonlocal taken
            for taken in itertools.count():
                yield {"key": str(taken), "prompt": "x"}

    async with client.generate_many(Endless(), model="m", budget=20, journal=journal) as results:
        while taken < 1000:
            await asyncio.sleep(0)
        results.stop()
        assert [] == await results.read_batch()
    assert 10**9 == results.report.not_started
    assert taken < 10_000


async def test_a_bill_below_nothing(make, journal):
    """A negative number of tokens is no bill: it counts as one that was not told, and buys nothing."""

    def answer(asked):
        return for_ten(asked) if asked["path"].endswith("/calculate-price") else done(asked, tokens_used=-50)

    client, _ = make(answer)
    for _ in range(2):
        batch = client.generate_many(rows(9), model="m", budget=25, journal=journal)
        results, report = await run(batch)
        assert {None} >= {result.tokens for result in results}
        assert (0, 20) == (report.tokens, report.tokens_at_risk)
    assert 2 == sum(entry.event == "done" for entry in read_journal(journal))


async def test_a_first_request_without_an_answer(make, journal):
    """What went alone to learn a price counts, once that is known, at the price, and not at all that was left."""
    client, _ = make(lambda asked: LOST if "messages" in asked and said(asked) == "0" else without_price(asked))
    await run(client.generate_many(rows(1), model="m", budget=30, journal=journal))
    (start,) = (entry for entry in read_journal(journal) if entry.event == "start")
    _, report = await run(client.generate_many(rows(9), model="m", budget=60, journal=journal, max_concurrency=1))

    assert start.reserved is None
    assert (45, 9) == (report.tokens, report.tokens_at_risk)


WORKER = """
    import asyncio, sys
    from neuralbox_async import AsyncNeuralBox

    async def main(base_url, key, journal, count, budget):
        async with AsyncNeuralBox(key, base_url=base_url) as client:
            requests = ({"key": f"row {number}", "prompt": f"prompt {number}"} for number in range(int(count)))
            batch = client.generate_many(
                requests, model="gpt-5", journal=journal, max_concurrency=8, budget=int(budget), on_unknown="retry"
            )
            async with batch as results:
                async for result in results:
                    pass
            print(batch.report.tokens_in_all, batch.report.tokens_at_risk)

    asyncio.run(main(*sys.argv[1:]))
"""


def test_a_budget_survives_kills(journal, start):
    """Killed again and again, and run again with the same budget, a batch never spends more than that."""
    kills, budget = 5, 200
    with NeuralBoxServer(latency=0.003) as server:
        arguments = (server.base_url, server.api_key, journal, 1000, budget)
        for kill in range(1, kills + 1):
            worker = start(WORKER, *arguments)
            wanted = kill * budget // (2 * kills + 2)
            server.wait_until(
                lambda wanted=wanted, worker=worker: len(server.billed) >= wanted or worker.poll() == 0, 20
            )
            worker.kill()
            worker.wait()
        worker = start(WORKER, *arguments)
        known, at_risk = map(int, worker.communicate(timeout=30)[0].split())
        billed = sum(bill.tokens_used for bill in server.billed)

    assert known <= billed <= known + at_risk <= budget < known + at_risk + 2
    assert known == sum(entry.tokens for entry in read_journal(journal) if entry.event == "done")
