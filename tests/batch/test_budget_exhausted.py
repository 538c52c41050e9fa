"""The end of a budget: the batch still collects paid generations, and sends nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from budget_runs import for_ten, run

from neuralbox_async import BudgetReachedError, read_journal
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")


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


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_stands_behind_the_end_of_the_budget(make, journal, ordered):
    """At the end of the budget no more is sent; what is done is passed by, and what was accepted is asked for."""
    past(journal, begun("a"), begun("p"), accepted("p"), finished("a"), begun("lost"))
    client, transport = make(for_ten)
    requests = named("new", "p", "lost", "newer", "a", "newest")
    batch = client.generate_many(requests, model="m", budget=35, journal=journal, ordered=ordered)
    results, report = await run(batch)

    assert [("p", 10)] == [(result.key, result.tokens_used) for result in results]
    assert (1, 1, 4) == (report.completed, report.skipped, report.not_started)
    assert (10, 10, 10) == (report.tokens_used, report.tokens_used_before, report.tokens_possibly_billed)
    assert BudgetReachedError is type(report.stopped_by)
    assert "30 are spent, counting 20 that may have been billed without an answer" in str(report.stopped_by)
    assert ["g-p"] == [asked["path"].rpartition("/")[2] for asked in transport.asked if asked["method"] == "GET"]
    assert {"p", "a"} == {entry.key for entry in read_journal(journal) if entry.event == "done"}


@pytest.mark.parametrize("status, code", [(402, "insufficient_tokens"), (403, "insufficient_plan")])
async def test_what_stands_behind_the_end_of_the_money(make, journal, status, code):
    """When the API sells nothing more, what it has accepted before is still asked for."""
    past(journal, begun("a"), begun("p"), accepted("p"), finished("a"))

    def answer(asked):
        refused = FakeResponse(json.dumps({"error": code}).encode(), status_code=status)
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
