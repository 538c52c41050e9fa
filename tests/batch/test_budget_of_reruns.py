"""The budget of all runs of a batch: costs of earlier runs count, unknown ones too."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced_requests import rows, run, without_price
from transports import FunctionTransport, completed, prompt_of

from neuralbox_async import APIConnectionError, AsyncNeuralBox, BudgetReachedError, read_journal
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

CONNECTION_RESET = APIConnectionError("reset", request_sent=True)


# --------------------------------------------------------------------------------------------------------- several runs


TO_THE_END = 61


@given(
    limit=st.integers(1, 60),
    costs=st.lists(st.integers(0, 7), min_size=1, max_size=30),
    maximum=st.integers(1, 6),
    lost=st.sets(st.integers(0, 29)),
    leaving=st.lists(st.integers(0, TO_THE_END), max_size=5),
    on_unknown=st.sampled_from(["skip", "retry"]),
)
def test_spending_of_all_runs_stays_within_the_budget(limit, costs, maximum, lost, leaving, on_unknown):
    """However often a batch is left and run again, all its runs together spend no more than its budget."""
    billed = 0

    def arrive(request):
        # Billed on arrival, whether or not the response is still read.
        nonlocal billed
        billed += 0 if request["path"].endswith("/calculate-price") else costs[int(prompt_of(request))]
        return 3

    def respond(request):
        if request["path"].endswith("/calculate-price"):
            return {"token_cost": 3, "min_token_cost": 1, "max_token_cost": 7, "pricing_type": "matrix"}
        number = int(prompt_of(request))
        if number in lost:
            lost.discard(number)
            return CONNECTION_RESET
        return completed(request, tokens_used=costs[number])

    async def run_once(journal, turns):
        before = billed
        client = AsyncNeuralBox("key", transport=FunctionTransport(respond, arrive))
        batch = client.generate_many(
            rows(len(costs)), model="m", max_concurrency=maximum, budget=limit, journal=journal, on_unknown=on_unknown
        )
        async with batch as results:
            for _ in range(turns):
                await asyncio.sleep(0)
            while turns == TO_THE_END and await results.read_batch():
                pass
        report = batch.report
        known = sum(entry.tokens_used for entry in read_journal(journal) if entry.event == "done")
        assert known == report.tokens_used_total == report.tokens_used_before + report.tokens_used
        assert billed - before <= report.tokens_used + report.tokens_possibly_billed
        assert billed <= report.tokens_used_total + report.tokens_possibly_billed <= limit

    with tempfile.TemporaryDirectory() as folder:
        for turns in (*leaving, TO_THE_END):
            asyncio.run(run_once(Path(folder, "run.jsonl"), turns))


async def test_the_budget_is_for_all_runs(client, neuralbox_server, journal):
    """The spending of earlier runs counts against the budget."""
    totals = []
    for budget in (10, 10, 15):
        batch = client.generate_many(rows(50), model="gpt-5", budget=budget, journal=journal)
        results, report = await run(batch)
        totals.append((len(results), report.tokens_used, report.tokens_used_before, report.tokens_used_total))
        assert BudgetReachedError is type(report.stopped_by)
        assert report.tokens_used_total == report.stopped_by.spent

    assert [(5, 10, 0, 10), (0, 0, 10, 10), (2, 4, 10, 14)] == totals
    assert 14 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_unresolved_requests_count_in_later_runs(client, neuralbox_server, journal):
    """A request that an earlier run may have been billed for counts at its reservation; if sent again, twice."""
    neuralbox_server.drop("after", times=2)
    requests = rows(50)
    await run(client.generate_many(requests[:2], model="gpt-5", budget=20, journal=journal, max_concurrency=1))
    _, skipping = await run(client.generate_many(requests[:3], model="gpt-5", budget=20, journal=journal))
    _, last = await run(client.generate_many(requests, model="gpt-5", budget=20, journal=journal, on_unknown="retry"))

    assert (2, 0, 4) == (skipping.tokens_used, skipping.tokens_used_before, skipping.tokens_possibly_billed)
    assert (14, 2, 4) == (last.tokens_used, last.tokens_used_before, last.tokens_possibly_billed)
    assert 20 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_unresolved_requests_of_a_run_without_a_budget(client, neuralbox_server, journal):
    """An unresolved request of a run without a budget counts at the price of its model, before any is sent."""
    neuralbox_server.drop("after", times=2)
    await run(client.generate_many(rows(2), model="claude-sonnet-4.5", journal=journal, max_concurrency=1))
    _, report = await run(client.generate_many(rows(50)[2:], model="gpt-5-nano", budget=10, journal=journal))

    assert (2, 8) == (report.tokens_used, report.tokens_possibly_billed)
    assert 10 == sum(bill.tokens_used for bill in neuralbox_server.billed)


async def test_pending_generations_count_once(journal, poll_every):
    """A pending generation of an earlier run is retrieved whatever is left of the budget, and counts once."""
    poll_every(0.02)
    with NeuralBoxServer(pending_models=["slow"], pending_seconds=0.2, prices={"slow": 5}) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            async with client.generate_many(rows(9), model="slow", budget=12, journal=journal) as results:
                while sum(entry.event == "pending" for entry in read_journal(journal)) < 2:
                    await asyncio.sleep(0.005)
            left = results.report
            again, report = await run(client.generate_many(rows(9), model="slow", budget=12, journal=journal))

    assert (0, 10) == (left.tokens_used, left.tokens_possibly_billed)
    assert {"0", "1"} == {result.key for result in again if result.error is None}
    assert (10, 0, 0) == (report.tokens_used, report.tokens_used_before, report.tokens_possibly_billed)
    assert 10 == sum(bill.tokens_used for bill in server.billed)


async def test_retrieved_generations_release_tokens(make, journal, poll_every):
    """While earlier requests are retrieved the batch waits: they may have cost less than was reserved."""
    poll_every(0.001)

    def respond(request):
        if request["path"].endswith("/calculate-price"):
            return {"max_token_cost": 10}
        if request["method"] == "POST":
            return {"id": "1", "status": "pending"} if not again else completed(request, tokens_used=4)
        return {"id": "1", "status": "completed" if again else "pending", "content": "x", "tokens_used": 6}

    again = False
    client, _ = make(respond)
    async with client.generate_many(rows(3), model="m", budget=17, journal=journal) as results:
        while not any(entry.event == "pending" for entry in read_journal(journal)):
            await asyncio.sleep(0)
    again = True
    batch = client.generate_many(rows(3), model="m", budget=17, journal=journal)
    _, report = await run(batch)

    assert 10 == results.report.tokens_possibly_billed
    assert (10, 0) == (report.tokens_used, report.tokens_possibly_billed)


async def test_the_journal_has_prices(make, journal):
    """Where the API reports no price, the journal has the model's cost: no request runs alone again."""
    client, transport = make(without_price, lambda _request: 20)
    await run(client.generate_many(rows(1), model="m", budget=100, journal=journal))
    await run(client.generate_many(rows(5), model="m", budget=100, journal=journal))

    assert 4 == transport.peak


async def test_a_bill_without_tokens(make, journal):
    """A generation without a reported cost counts, now and later, at its reservation."""

    def respond(request):
        return {"max_token_cost": 5} if request["path"].endswith("/calculate-price") else {"id": "1", "content": "x"}

    client, _ = make(respond)
    reports = []
    for _ in range(2):
        batch = client.generate_many(rows(9), model="m", budget=17, journal=journal, max_concurrency=1)
        reports.append((await run(batch))[1])

    assert [(3, 0, 15), (0, 0, 15)] == [(one.completed, one.tokens_used, one.tokens_possibly_billed) for one in reports]


async def test_a_journal_without_models(make, journal):
    """A request in flight of an unknown model counts at the highest known price."""
    text = '{"event":"journal","version":1}\n{"key": "x", "event": "start"}\n{"key": "y", "event": "start"}\n'
    journal.write_text(text)
    client, _ = make(
        lambda request: {"max_token_cost": 4} if "price" in request["path"] else completed(request, tokens_used=4)
    )
    _, report = await run(client.generate_many(rows(9), model="m", budget=17, journal=journal))

    assert (8, 8) == (report.tokens_used, report.tokens_possibly_billed)


async def test_the_balance_limits_one_run(journal):
    """The balance limits the spending of this run: earlier runs have reduced it already."""
    with NeuralBoxServer(balance=10) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await run(client.generate_many(rows(3), model="gpt-5", journal=journal))
            batch = client.generate_many(rows(9), model="gpt-5", journal=journal, budget=100, limit_to_balance=True)
            _, report = await run(batch)

    assert (4, 6, {}) == (report.tokens_used, report.tokens_used_before, report.failed_by_type)
    assert (4, 4) == (report.stopped_by.budget, report.stopped_by.spent)
    assert "the balance of 4 tokens" in str(report.stopped_by)


# --------------------------------------------------------------------------------------------- what was paid for before


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
            print(batch.report.tokens_used_total, batch.report.tokens_possibly_billed)

    asyncio.run(main(*sys.argv[1:]))
"""


def test_a_budget_survives_kills(journal, start):
    """Killed repeatedly and run again with the same budget, a batch never spends more than that."""
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
        known, possibly_billed = map(int, worker.communicate(timeout=60)[0].split())
        billed = sum(bill.tokens_used for bill in server.billed)

    assert known <= billed <= known + possibly_billed <= budget < known + possibly_billed + 2
    assert known == sum(entry.tokens_used for entry in read_journal(journal) if entry.event == "done")
