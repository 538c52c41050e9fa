"""Rows that wait to be sent again: they leave their places to rows that were let start, and take them again."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import attrs
import pytest
from cluster_processes import settings_of
from coordinators import Worker, forget
from ledger import bills

from neuralbox_async._batch import pacer
from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._cluster.learned_limits import LearnedLimits
from neuralbox_async._cluster.messages import Decision, Wanted
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async._cluster.row_claims import RowClaims
from neuralbox_async._cluster.session import WorkerSession
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("quick_end")

TIMEOUT = 60.0  # seconds, for what takes a few, or for ever


@attrs.define(eq=False)
class Partition:
    """Runs *rows* in a thread of its own."""

    run: str
    link: object
    rows: list
    settings: dict
    results: list = attrs.field(factory=list)
    _thread: threading.Thread | None = None

    def start(self):
        settings = settings_of(self.run, **{"needs_prices": False, **self.settings})
        work = lambda: self.results.extend(run_rows(settings, lambda: self.link, self.rows))  # noqa: E731
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        return self

    def wait(self):
        """Return the results."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the rows wait for each other"
        return self.results


def rows_of(count):
    return [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(count)]


@pytest.mark.parametrize("width, rows, refused", [(1, 6, 5), (12, 30, 16), (16, 40, 25)])
def test_refusals(make_service, environment_of, monkeypatch, width, rows, refused):
    """After 429s, which close the window, the rows that were let start ahead of the refused ones are sent."""
    monkeypatch.setattr(pacer, "_INITIAL_WINDOW", width + width // 4 + 1)  # so that rows ahead start, too
    with NeuralBoxServer(latency=0.05) as server:
        environment_of(server)
        server.fail(status=429, retry_after=0.05, times=refused)
        service = make_service(lease=60.0)
        results = Partition(f"429-{width}", service, rows_of(rows), {"width": width}).start().wait()

        assert [(f"You said: p{i}", None) for i in range(rows)] == [(one.content, one.error_type) for one in results]
        assert {1} == set(bills(server).values())
        assert server.peak_in_flight <= width


@pytest.mark.parametrize("width, rows", [(1, 4), (4, 12)])
def test_budgets_that_end_with_repairs(make_service, environment_of, width, rows):
    """A repair that waits for the reservation of a row ahead lets that row be sent; each text that was paid is kept."""
    with NeuralBoxServer() as server:
        environment_of(server)
        server.reply_with(*["no number"] * rows * 3)
        service = make_service(lease=60.0, budget=rows)
        settings = {"width": width, "output_type": int, "needs_prices": True}
        results = Partition(f"budget-{width}", service, rows_of(rows), settings).start().wait()

        assert sum(one.tokens_used for one in server.billed) == sum(one.tokens_used for one in results) <= rows
        assert rows == len(results)


class RevokingLink:
    """A link whose worker loses its claim of k0 before a repair; the other worker that gets it leaves soon."""

    def __init__(self, service):
        self.service, self.other = service, Worker(service, "other")
        self.step = 0
        self.revoked = threading.Event()

    def exchange(self, message):
        repairs = [one for one in message.wanted if one.kind == "repair"]
        new = tuple(one for one in message.wanted if one.kind == "new")
        if self.step == 0 and repairs:
            self.step = 1
            reply = self.service.exchange(attrs.evolve(message, wanted=new))
            forget(self.service, message.session)
            request_hash = repairs[0].request_hash
            wanted = Wanted(id="other", key="k0", model="gpt-5", request_hash=request_hash)
            assert [Decision.INVALID] == [one.decision for one in self.other.exchange(wanted=(wanted,)).grants]
            return reply
        if self.step == 2 and new and not repairs:
            self.step = 3
            self.other.exchange(left=True)
        reply = self.service.exchange(message)
        if self.step == 1 and reply.known:
            self.step = 2
            self.revoked.set()
        return reply


def test_repairs_whose_key_a_neighbour_gets(make_service, environment_of):
    """A repair that waits for the row of this worker that has its key lets that row have the only place."""
    with NeuralBoxServer() as server:
        environment_of(server)
        server.reply_with("no number", "5", "6")
        link = RevokingLink(make_service(lease=60.0))
        settings = {"width": 1, "output_type": int}
        first = Partition("neighbours", link, rows_of(1), settings).start()
        assert link.revoked.wait(TIMEOUT)
        second = Partition("neighbours", link, rows_of(1), settings).start()

        assert [(5, None), (5, None)] == [(one.value, one.error_type) for one in (*first.wait(), *second.wait())]
        assert 2 == len(server.billed)


def test_the_width(make_service, environment_of):
    """No more requests than places are in flight, also when many rows wait to be sent again."""
    count, width = 40, 3
    with NeuralBoxServer(latency=0.03, reply="7") as server:
        environment_of(server)
        server.reply_with(*["no number"] * count)
        server.fail(status=429, retry_after=0.05, times=5)
        settings = {"width": width, "output_type": int, "max_repairs": count}
        results = Partition("width", make_service(lease=60.0), rows_of(count), settings).start().wait()

        assert {(7, None)} == {(one.value, one.error_type) for one in results}
        assert width == server.peak_in_flight
        assert 2 * count == len(server.billed)


@pytest.mark.parametrize("kind, outcome", [("again", "refused"), ("repair", "invalid")])
async def test_cancelled_waits_for_a_place(make_service, kind, outcome):
    """A row that is cancelled while it waits for its place gives back its permit, and no place that it has not."""
    service, places = make_service(), anyio.Semaphore(1)
    session = WorkerSession("one", lambda: service, LearnedLimits(), reconnect_timeout=60.0, width=1)
    pump = asyncio.create_task(session.run())
    row = RowClaims(session, places, "a", "m", None)
    await row.take_place()
    await row.claim()
    row._session.observe("a", row._claim_id, ServerSignal.ADMITTED, time.monotonic())
    one = Worker(service).settled("a", outcome)
    row._settle(outcome, one.line, 3)
    neighbour = asyncio.create_task(places.acquire())
    waiting = asyncio.create_task(row._admit(kind, f"key of {kind}"))
    async with asyncio.timeout(TIMEOUT):
        await neighbour
        while not row._has_start:
            await asyncio.sleep(0.01)
    assert 1 == service._pacer.in_flight
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await row.record_withdrawn(None)
    row.give_up_place()
    row.release()
    assert waiting.cancelled()
    assert 0 == places.value
    await asyncio.wait_for(session.flush(), TIMEOUT)
    assert (0, 0) == (service._pacer.in_flight, service.report().in_flight)
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    await session.leave()


async def test_refused_requests_that_lost_their_claim(make_service):
    """What is reported of them names a request."""
    session = WorkerSession("one", make_service, LearnedLimits(), reconnect_timeout=60.0, width=1)
    await RowClaims(session, anyio.Semaphore(1), "a", "m", None).record_withdrawn(None)
    assert [] == session._settled
