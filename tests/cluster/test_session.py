"""The session of a worker whose coordinator loses replies, is replaced, or is not there."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest
from cluster_processes import settings_of
from coordinators import Worker
from journals import entries
from ledger import bills

from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._cluster.learned_limits import LearnedLimits
from neuralbox_async._cluster.messages import Decision, Exchange, Settled, Wanted, unsent_line
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async._cluster.row_claims import RowClaims
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions
from neuralbox_async._cluster.session import ClaimLostError, WorkerSession

pytestmark = pytest.mark.usefixtures("quick_end")

ROWS = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(60)]


class Coordinators:
    """A coordinator that can be replaced as if its process had been killed, and whose replies can be lost."""

    def __init__(self, journal):
        self.options = {"journal": str(journal), "budget": 10_000}
        self.service = CoordinatorService(ServiceOptions(**self.options))
        self.calls = 0
        self.lost_replies = self.lost_services = frozenset()

    def exchange(self, message):
        self.calls += 1
        reply = self.service.exchange(message)
        if self.calls in self.lost_services:
            with self.service._lock:
                self.service._closed = True
                self.service._journal.close()
            self.service = CoordinatorService(ServiceOptions(**self.options, restarted=True))
        if self.calls in self.lost_replies | self.lost_services:
            raise ConnectionResetError
        return reply


@pytest.fixture
def coordinators(tmp_path):
    one = Coordinators(tmp_path / "run.jsonl")
    yield one
    assert one.service.finish()


@pytest.mark.parametrize("fault", ["lost_replies", "lost_services"])
def test_lost_exchanges(coordinators, neuralbox_server, environment_of, fault):
    """A reply, or a coordinator, that is lost between any two messages costs nothing, and no result."""
    environment_of(neuralbox_server)
    setattr(coordinators, fault, {1, 3, 4, 7, 11})
    results = run_rows(settings_of(fault), lambda: coordinators, ROWS)

    assert [f"You said: p{i}" for i in range(60)] == [result.content for result in results]
    assert {1} == set(bills(neuralbox_server).values())
    report = coordinators.service.report()
    assert (sum(one.tokens_used for one in neuralbox_server.billed), 0) == (
        report.tokens_used,
        report.tokens_possibly_billed,
    )
    assert 60 == len(entries(coordinators.options["journal"], "done"))


def test_no_coordinator(neuralbox_server, environment_of):
    """Without a coordinator nothing is sent, and each row says so."""

    def connect():
        raise ConnectionRefusedError

    environment_of(neuralbox_server)
    results = run_rows(settings_of("lonely", reconnect_timeout=0.1, needs_prices=False), connect, ROWS)

    assert {"BatchStateError"} == {result.error_type for result in results}
    assert () == neuralbox_server.requests


def test_a_coordinator_that_has_ended(coordinators, neuralbox_server, environment_of):
    """A worker that comes too late sends nothing."""
    environment_of(neuralbox_server)
    assert coordinators.service.finish()
    results = run_rows(settings_of("late", needs_prices=False), lambda: coordinators, ROWS)

    assert {"BatchStateError"} == {result.error_type for result in results}
    assert () == neuralbox_server.requests


@pytest.mark.parametrize("turns", [0, 1, 50])
async def test_cancelled_claims(coordinators, turns):
    """A claim that is cancelled at any moment is given back: others get the key at once."""
    one = WorkerSession("one", lambda: coordinators, LearnedLimits(), reconnect_timeout=1.0, width=4)
    pump = asyncio.create_task(one.run())
    claim = asyncio.create_task(one.claim(Wanted(id="x", key="a", model="m")))
    for _ in range(turns):
        await asyncio.sleep(0.002)
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)
    if turns < 50:  # with so many, it may have its grant, which the task then returns
        reply = None
        for number in range(1, 1200):
            wanted = Wanted(id="y", key="a", model="m")
            reply = coordinators.service.exchange(Exchange(session="two", number=number, wanted=(wanted,)))
            if reply.grants:
                break
            await asyncio.sleep(0.05)
        assert [Decision.SEND] == [grant.decision for grant in reply.grants]
        coordinators.service.exchange(Exchange(session="two", number=number + 1, left=True))
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    await one.leave()
    with pytest.raises(BatchStateError):
        await asyncio.wait_for(_claim_after_the_end(one), 60)


class SharedKey:
    """Two rows of one worker with the key a, of which the first has lost its claim to another worker."""

    def __init__(self, coordinators, session):
        self._service, self.session = coordinators.service, session
        self.first, self.second = (RowClaims(session, anyio.Semaphore(1), "a", "m", None) for _ in range(2))
        self.other = Worker(self._service, "other")

    async def lose_claim(self):
        assert Decision.SEND is (await self.first.claim()).decision
        self.forget("one")
        assert [Decision.SEND] == self.other.claim("a")

    def forget(self, name):
        with self._service._lock:
            self._service._forget(name)


@pytest.fixture
async def shared(coordinators):
    """Make two rows, with a coordinator that has requests sent again that may be billed."""
    assert coordinators.service.finish()
    coordinators.service = CoordinatorService(ServiceOptions(**coordinators.options, on_unknown="retry"))
    session = WorkerSession("one", lambda: coordinators, LearnedLimits(), reconnect_timeout=60.0, width=4)
    session.quote("m", 3)
    pump = asyncio.create_task(session.run())
    yield SharedKey(coordinators, session)
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    await session.leave()


async def test_claims_that_are_lost_beside_a_row_with_the_same_key(shared):
    """A row that gets the generation of another worker does not let its neighbour send as well."""
    await shared.lose_claim()
    shared.other.exchange(settled=(shared.other.settled("a"),), left=True)
    assert Decision.DONE is (await asyncio.wait_for(shared.second.claim(), 60)).decision
    shared.second.release()

    with pytest.raises(ClaimLostError):
        await asyncio.wait_for(shared.first.record_sent(None, "", None), 60)
    await shared.first.record_withdrawn(None)


async def test_outcomes_that_are_late_beside_a_row_with_the_same_key(shared):
    """They do not release the claim of the row, which a coordinator that replaces this one would give to others."""
    await shared.lose_claim()
    claim = asyncio.create_task(shared.second.claim())
    async with asyncio.timeout(60):
        while not shared.session.busy:
            await asyncio.sleep(0.01)
    shared.forget("other")
    grant = await asyncio.wait_for(claim, 60)
    assert Decision.SEND is grant.decision
    await shared.first.record_unresolved(None)

    assert shared.session.holds("a", grant.claim_id)
    await shared.second.record_withdrawn(None)


async def test_outcomes_while_the_coordinator_is_replaced(coordinators):
    """A claim is the session's own until its outcome is in a message: nobody else may send its request."""
    session = WorkerSession("one", lambda: coordinators, LearnedLimits(), reconnect_timeout=60.0, width=4)
    pump = asyncio.create_task(session.run())
    row = RowClaims(session, anyio.Semaphore(1), "a", "m", None)
    await row.claim()
    messages, real = [], coordinators.exchange

    def exchange(message):
        messages.append(message)
        if len(messages) == 1:
            coordinators.service._forget("one")
            loop.call_soon_threadsafe(settle)
            assert settled.wait(60)
        return real(message)

    def settle():
        row._settle("failed", unsent_line("a"), 0)
        settled.set()

    loop, settled = asyncio.get_running_loop(), threading.Event()
    coordinators.exchange = exchange
    session.quote("m", 3)
    session.fail(BatchStateError("so that there is something to report"))
    await asyncio.wait_for(session.flush(), 60)
    async with asyncio.timeout(60):
        while len(messages) < 3:
            await asyncio.sleep(0.01)
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    await session.leave()

    assert [None, ("a",), None] == [
        None if one.holding is None else tuple(held.key for held in one.holding) for one in messages[:3]
    ]


async def _claim_after_the_end(one):
    one._failure = BatchStateError("ended")
    await one.claim(Wanted(id="z", key="b", model="m"))


async def test_prices_after_a_restart(coordinators):
    """A new coordinator learns the prices that a worker has reported to the lost one."""
    one = WorkerSession("one", lambda: coordinators, LearnedLimits(), reconnect_timeout=60.0, width=4)
    one.quote("m", 5)
    pump = asyncio.create_task(one.run())
    await one.claim(Wanted(id="x", key="a", model="another"))
    coordinators.lost_services = {coordinators.calls + 1}
    one.settle(Settled(key="a", model="another", idempotency_key="x", outcome="failed", line=unsent_line("a")))
    await asyncio.wait_for(one.flush(), 60)
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    await one.leave()

    assert 5 == coordinators.service._budget.price("m")
