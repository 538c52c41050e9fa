"""The coordinator of a batch alone: values in, values out, and journal before budget before pace."""

from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest
from journals import entries, opened

from neuralbox_async import (
    BudgetReachedError,
    GenerateRequest,
    Generation,
    InvalidParameterError,
    JournalError,
    ProviderError,
)
from neuralbox_async._batch.budget import Budget
from neuralbox_async._batch.coordinator import Coordinator, NotAdmittedError, ServerSignal
from neuralbox_async._batch.key_status import KeyStatus
from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call.rate_limits import RateLimits

pytestmark = pytest.mark.usefixtures("no_task_left")

BODY = b'{"id":"gen_1","content":"Hi","tokens_used":3}'
GENERATION = Generation(id="gen_1", content="Hi", tokens_used=3)
ERROR = ProviderError("500", status_code=500)


class Parts:
    """A coordinator and its parts, whose changes are recorded in their order."""

    def __init__(self, path=None, budget=None, max_in_flight=2):
        self.changes = []
        self.limits = []
        self.journal = None if path is None else opened(path)
        self.budget = Budget(budget)
        self.pacer = Pacer(RateLimits(), max_in_flight=max_in_flight, rate=None)
        for part, names in [
            (self.journal, ("write_start", "write_pending", "write_done", "write_failed")),
            (self.budget, ("reserve", "settle", "resolve", "begin_retrieval")),
            (self.pacer, ("record_start", "record_admitted", "record_pushed_back", "record_failed", "record_ended")),
        ]:
            for name in names if part is not None else ():
                self.record(part, name)
        self.coordinator = Coordinator(self.journal, self.budget, self.pacer, self.limits.append)

    def record(self, part, name):
        method = getattr(part, name)

        def recorded(*arguments, **options):
            self.changes.append(f"{type(part).__name__}.{name}")
            return method(*arguments, **options)

        # Some classes have slots.
        part.__class__ = type(type(part).__name__, (type(part),), {name: staticmethod(recorded), "__slots__": ()})


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal that does not exist yet."""
    return tmp_path / "run.jsonl"


@pytest.fixture
def parts(journal):
    """Make a coordinator with a journal and a budget of 20 tokens."""
    parts = Parts(journal, 20)
    parts.budget.quote("m", 5)
    yield parts
    parts.coordinator.close()


def result_of(*, generation=None, error=None, tokens_used=None):
    request = GenerateRequest("m", "Hi")
    return BatchResult(
        index=0, key="a", request=request, generation=generation, error=error, attempts=1, tokens_used=tokens_used
    )


async def started(parts, key="a"):
    """Claim *key*, and let its request start."""
    claim = await parts.coordinator.claim(key, "m", may_number=False)
    await parts.coordinator.record_sent(claim, "idempotency", await parts.coordinator.admit(claim))
    parts.changes.clear()
    return claim


async def test_claims(parts):
    """A key is claimed once; one of content gets a number instead."""
    coordinator = parts.coordinator
    first = await coordinator.claim("a", "m", may_number=False)
    assert ("a", "m", KeyStatus.NEW) == (first.key, first.model, first.status)
    assert "a-2" == (await coordinator.claim("a", "m", may_number=True)).key
    with pytest.raises(InvalidParameterError):
        await coordinator.claim("a", "m", may_number=False)


async def test_claims_without_a_journal():
    """Without a journal a key may be claimed any number of times."""
    coordinator = Parts().coordinator

    assert ["a", "a"] == [(await coordinator.claim("a", "m", may_number=False)).key for _ in range(2)]


async def test_admission(parts):
    """A request is admitted with its price reserved, and then counted by the pacer."""
    claim = await parts.coordinator.claim("a", "m", may_number=False)

    assert 5 == await parts.coordinator.admit(claim)
    assert ["Budget.reserve", "Pacer.record_start"] == parts.changes


async def test_the_start_is_written_before_the_request_is_sent(parts, journal):
    """The line of a request has its model and its reservation."""
    await started(parts)
    (start,) = entries(journal)

    assert ("start", "a", "idempotency", "m", 5) == (
        start.event,
        start.key,
        start.idempotency_key,
        start.model,
        start.reserved,
    )


@pytest.mark.parametrize("signal", ServerSignal)
async def test_signals(parts, signal):
    """Each end of a request releases its place, whatever it shows of the server."""
    await started(parts)
    await parts.coordinator.observe(signal, time.monotonic())

    assert 0 == parts.pacer.in_flight


@pytest.mark.parametrize(
    "record, changes, spent, possibly_billed",
    [
        (
            lambda one, claim: one.record_completed(claim, result_of(generation=GENERATION, tokens_used=3), BODY),
            ["Journal.write_done", "Budget.settle"],
            3,
            0,
        ),
        (
            lambda one, claim: one.record_failed(claim, result_of(error=ERROR, tokens_used=0), None),
            ["Journal.write_failed", "Budget.settle"],
            0,
            0,
        ),
        (
            lambda one, claim: one.record_failed(claim, result_of(error=ERROR), "gen_1"),
            ["Journal.write_failed", "Budget.settle"],
            0,
            5,
        ),
        (lambda one, claim: one.record_refused(claim, result_of(error=ERROR), None), ["Journal.write_failed"], 0, 0),
        (lambda one, claim: one.record_accepted(claim, "gen_1"), ["Journal.write_pending"], 0, 0),
        (lambda one, claim: one.record_unresolved(claim), ["Budget.settle"], 0, 5),
        (lambda one, claim: one.record_withdrawn(claim), ["Budget.settle"], 0, 0),
    ],
)
async def test_outcomes(parts, record, changes, spent, possibly_billed):
    """Each outcome is recorded first in the journal, then in the budget."""
    claim = await started(parts)

    assert await record(parts.coordinator, claim) is None
    assert (changes, spent, possibly_billed) == (parts.changes, parts.budget.spent, parts.budget.possibly_billed)


@pytest.mark.parametrize(
    "record, spent",
    [
        (lambda one, claim: one.record_completed(claim, result_of(generation=GENERATION, tokens_used=3), BODY), 3),
        (lambda one, claim: one.record_failed(claim, result_of(error=ERROR, tokens_used=0), None), 0),
    ],
)
async def test_a_journal_that_cannot_be_written(parts, monkeypatch, record, spent):
    """An outcome that cannot be written returns the error of the journal, and the budget is settled nevertheless."""
    claim = await started(parts)

    def write(_fd, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        error = await record(parts.coordinator, claim)

    assert isinstance(error, JournalError)
    assert (spent, 20 - spent, False) == (parts.budget.spent, parts.budget.left, parts.budget.holding)


async def test_a_start_that_cannot_be_written(parts, monkeypatch):
    """A start that cannot be written raises: the request is not sent."""
    claim = await parts.coordinator.claim("a", "m", may_number=False)
    monkeypatch.setattr(os, "write", lambda _fd, _data: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await parts.coordinator.record_sent(claim, "idempotency", 5)


async def test_waiting_for_the_budget(parts):
    """A request waits while others hold reservations, and starts when one is released."""
    claims = [await started(parts, key) for key in "ab"]
    await parts.coordinator.observe(ServerSignal.ADMITTED, 0.0)
    parts.budget.quote("m", 10)
    last = await parts.coordinator.claim("c", "m", may_number=False)
    waiting = asyncio.ensure_future(parts.coordinator.admit(last))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await parts.coordinator.record_withdrawn(claims[0])

    assert 10 == await asyncio.wait_for(waiting, 10)


async def test_a_budget_that_is_reached(parts):
    """A request that the budget does not cover is not admitted, and the error has the numbers."""
    claim = await started(parts)
    await parts.coordinator.record_completed(claim, result_of(generation=GENERATION, tokens_used=18), BODY)
    with pytest.raises(BudgetReachedError) as caught:
        await parts.coordinator.admit(await parts.coordinator.claim("b", "m", may_number=False))

    assert (20, 18, "m") == (caught.value.budget, caught.value.spent, caught.value.model)


async def test_refused_requests_go_first(parts):
    """A refused request starts before new ones."""
    order = []
    coordinator = Parts(max_in_flight=1).coordinator

    async def start(name, admission):
        await admission
        order.append(name)

    first = await coordinator.claim("a", "m", may_number=False)
    await coordinator.admit(first)
    second = await coordinator.claim("b", "m", may_number=False)
    tasks = [asyncio.ensure_future(start("new", coordinator.admit(second)))]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(start("refused", coordinator.admit_again())))
    await asyncio.sleep(0)
    for _ in tasks:
        await coordinator.observe(ServerSignal.ADMITTED, time.monotonic())
        await asyncio.sleep(0.01)
    await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert ["refused", "new"] == order


async def test_stop_sending(parts):
    """After the end of sending, no request is admitted, neither a new nor a refused one, also if it waits already."""
    coordinator = Parts(max_in_flight=1).coordinator
    claims = [await coordinator.claim(key, "m", may_number=False) for key in "abc"]
    await coordinator.admit(claims[0])
    waiting = [asyncio.ensure_future(coordinator.admit(claims[1])), asyncio.ensure_future(coordinator.admit_again())]
    await asyncio.sleep(0)
    coordinator.stop_sending()
    for admission in (*waiting, coordinator.admit(claims[2])):
        with pytest.raises(NotAdmittedError):
            await asyncio.wait_for(admission, 10)

    assert not coordinator.sending


async def test_a_cancelled_admission_releases_its_reservation(parts):
    """An admission that is cancelled while it waits for the pace keeps nothing of the budget."""
    for key in "ab":
        await started(parts, key)
    waiting = asyncio.ensure_future(parts.coordinator.admit(await parts.coordinator.claim("c", "m", may_number=False)))
    await asyncio.sleep(0)
    assert 5 == parts.budget.left
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert 10 == parts.budget.left


async def test_a_pending_request_is_admitted_at_once(journal):
    """A pending request of an earlier run waits neither for budget nor for pace, and settles its old reservation."""
    earlier = opened(journal)
    earlier.write_start("a", "i", "m", 4)
    earlier.write_pending("a", "gen_1")
    earlier.close()
    parts = Parts(journal, 4, max_in_flight=1)
    parts.budget.add_unresolved("m", 4)
    parts.coordinator.stop_sending()
    claim = await parts.coordinator.claim("a", "m", may_number=False)

    assert claim.is_pending
    assert await parts.coordinator.admit(claim) is None
    assert parts.budget.holding
    await parts.coordinator.record_completed(claim, result_of(generation=GENERATION, tokens_used=3), BODY)
    assert ["Budget.begin_retrieval", "Journal.write_done", "Budget.resolve"] == parts.changes
    assert (3, 0, 1) == (parts.budget.spent, parts.budget.possibly_billed, parts.budget.left)
    parts.coordinator.close()


async def test_the_report(parts):
    """The report has the spending before this run, the possibly billed tokens, and the number of refusals."""
    claim = await started(parts)
    await parts.coordinator.record_refused(claim, result_of(error=ERROR), None)
    await parts.coordinator.record_unresolved(claim)
    report = parts.coordinator.report()

    assert (0, 5, 1) == (report.spent_before, report.possibly_billed, report.rate_limited)
