"""The end of a budget: the batch still collects paid generations, and sends nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from priced_requests import for_ten_tokens, run

from neuralbox_async import BudgetReachedError, read_journal
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")


def earlier_run(journal, *lines):
    """Write a journal of an earlier run."""
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in ({"event": "journal", "version": 1}, *lines)))


def started(key, **members):
    return {"event": "start", "key": key, "idempotency_key": f"i-{key}", "model": "m", "reserved": 10, **members}


def accepted(key):
    return {"event": "pending", "key": key, "id": f"g-{key}"}


def finished(key):
    return {"event": "done", "key": key, "tokens_used": 10, "generation": {"id": f"g-{key}", "content": "x"}}


def requests_of(*keys):
    return [{"key": key, "prompt": key} for key in keys]


@pytest.mark.parametrize("ordered", [False, True])
async def test_after_the_budget_is_reached(make, journal, ordered):
    """When the budget is reached nothing more is sent; done requests are skipped, and pending ones are retrieved."""
    earlier_run(journal, started("a"), started("p"), accepted("p"), finished("a"), started("lost"))
    client, transport = make(for_ten_tokens)
    requests = requests_of("new", "p", "lost", "newer", "a", "newest")
    batch = client.generate_many(requests, model="m", budget=35, journal=journal, ordered=ordered)
    results, report = await run(batch)

    assert [("p", 10)] == [(result.key, result.tokens_used) for result in results]
    assert (1, 1, 4) == (report.completed, report.skipped, report.not_started)
    assert (10, 10, 10) == (report.tokens_used, report.tokens_used_before, report.tokens_possibly_billed)
    assert BudgetReachedError is type(report.stopped_by)
    assert "30 are spent, counting 20 that may have been billed without a response" in str(report.stopped_by)
    assert ["g-p"] == [
        request["path"].rpartition("/")[2] for request in transport.requests if request["method"] == "GET"
    ]
    assert {"p", "a"} == {entry.key for entry in read_journal(journal) if entry.event == "done"}


@pytest.mark.parametrize("status, code", [(402, "insufficient_tokens"), (403, "insufficient_plan")])
async def test_after_the_account_is_empty(make, journal, status, code):
    """When the API refuses for lack of money, generations that it accepted before are still retrieved."""
    earlier_run(journal, started("a"), started("p"), accepted("p"), finished("a"))

    def respond(request):
        refused = FakeResponse(json.dumps({"error": code}).encode(), status_code=status)
        return refused if request["method"] == "POST" else for_ten_tokens(request)

    client, transport = make(respond)
    batch = client.generate_many(requests_of("new", "newer", "p", "a"), model="m", journal=journal, max_concurrency=1)
    results, report = await run(batch)

    assert [("new", code), ("p", None)] == [(one.key, one.error and one.error.code) for one in results]
    assert (1, 1, 1) == (report.completed, report.skipped, report.not_started)
    assert code == report.stopped_by.code
    assert 2 == len(transport.requests)


async def test_no_decisions_after_the_budget_is_reached(make, journal):
    """When the budget is reached, *on_unknown* is not called any more."""
    earlier_run(journal, started("x"), started("p"), accepted("p"))
    client, _ = make(for_ten_tokens)
    batch = client.generate_many(
        requests_of("new", "x", "p"), model="m", budget=25, journal=journal, on_unknown=lambda _key: 1 // 0
    )
    results, report = await run(batch)

    assert ["p"] == [result.key for result in results]
    assert 2 == report.not_started


@pytest.mark.parametrize("known", [(), (started("p"), accepted("p"))])
async def test_reading_ends_with_the_last_paid_request(make, journal, known):
    """When the budget is reached, reading ends with the last paid request: the input may be endless."""
    earlier_run(journal, started("a"), finished("a"), *known)
    client, _ = make(for_ten_tokens)
    endless = ({"key": key, "prompt": key} for key in itertools.chain(("b", "new", "p"), map(str, itertools.count())))
    _, report = await run(client.generate_many(endless, model="m", budget=30, journal=journal, max_concurrency=1))

    assert (2, None) == (report.completed, report.not_started)


async def test_stop_after_the_budget_is_reached(make, journal):
    """While a million rows are searched for paid requests, the batch can be stopped at once, and left."""
    earlier_run(journal, started("a"), finished("a"), started("p"), accepted("p"))
    client, _ = make(for_ten_tokens)
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
