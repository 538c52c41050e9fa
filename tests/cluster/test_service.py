"""The coordinator of a cluster alone: values in, values out."""

from __future__ import annotations

import itertools
import time

import pytest
from coordinators import BODY, GENERATION, LINE, Worker, forget, lose
from journals import HEADER, entries

from neuralbox_async import BudgetReachedError, JournalLockedError, OutcomeUnknownError
from neuralbox_async._batch import journal_lines
from neuralbox_async._cluster.messages import Decision, Exchange, Held, LimitReport, Settled, Wanted


def test_a_claim_is_in_the_journal_before_its_answer(make_service, journal):
    """The start of a request is written, with its reservation, before the worker may send it."""
    worker = Worker(make_service(budget=100))

    assert [Decision.SEND] == worker.claim("a")
    (start,) = entries(journal, "start")
    assert ("a", "one-a", "m", 3) == (start.key, start.idempotency_key, start.model, start.reserved)


def test_a_key_is_sent_once(make_service):
    """While a worker holds a key nobody else gets it, and after its outcome all get its generation."""
    service = make_service()
    one, two = Worker(service), Worker(service, "two")
    assert [Decision.SEND] == one.claim("a")
    assert [] == two.claim("a")
    assert [] == one.claim("a")

    one.settle("a")

    assert [Decision.DONE] == two.claim("a")
    assert [Decision.DONE] == one.claim("a")


def test_busy_keys(make_service):
    """The worker learns which claims wait for another one, so that they do not keep others from being made."""
    service = make_service()
    Worker(service).claim("a")

    reply = Worker(service, "two").exchange(
        wanted=(Wanted(id="x", key="a", model="m"), Wanted(id="y", key="b", model="m"))
    )

    assert {"x"} == reply.busy
    assert ["y"] == [grant.id for grant in reply.grants]


@pytest.mark.parametrize("on_unknown, decision", [("skip", Decision.UNRESOLVED), ("retry", Decision.SEND)])
def test_lost_workers(make_service, on_unknown, decision):
    """What a lost worker had claimed is unresolved when its lease has ended, and sent again only if that is chosen."""
    service = make_service(on_unknown=on_unknown, budget=100)
    Worker(service).claim("a", "b")
    two = Worker(service, "two")
    assert [] == two.claim("a")

    with service._lock:
        service._peers["one"].expires = 0.0
    deadline = time.monotonic() + 60
    while not (decisions := two.claim("a")):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert [decision] == decisions
    assert "b" in service.report().unresolved_keys
    assert 3 <= service.report().tokens_possibly_billed <= 6


def test_late_outcomes(make_service, journal):
    """The outcome of a worker that was taken for lost is recorded: it is paid for."""
    service = make_service(budget=100)
    worker = Worker(service)
    worker.claim("a")
    with service._lock:
        service._forget("one")
    assert (3, 0) == (service.report().tokens_possibly_billed, service.report().tokens_used)

    done = Settled(
        key="a",
        model="m",
        idempotency_key="one-a",
        outcome="completed",
        line=journal_lines.done("a", GENERATION, BODY, **LINE),
        tokens_used=3,
    )
    assert not worker.exchange(settled=(done,)).known
    worker.send(Exchange(session="one", number=2, settled=(done,), holding=()))

    assert (0, 3) == (service.report().tokens_possibly_billed, service.report().tokens_used)
    assert ["a"] == [entry.key for entry in entries(journal, "done")]


def test_repeated_exchanges(make_service):
    """An exchange whose reply was lost is repeated, and changes nothing: nobody gets a second permit or bill."""
    service = make_service(budget=100)
    worker = Worker(service)
    message = Exchange(session="one", number=1, wanted=(Wanted(id="one-a", key="a", model="m"),), prices={"m": 3})

    assert worker.send(message) == worker.send(message)
    assert 1 == service._pacer.in_flight


def test_restarts(make_service, journal):
    """A new coordinator knows from the journal what is done; a worker's claims stay its own."""
    first = make_service(budget=100)
    worker = Worker(first)
    worker.claim("a", "b", "c")
    worker.settle("a")
    lose(first)

    second = make_service(budget=100, restarted=True)
    stranger = Worker(second, "stranger")
    assert [Decision.DONE] == stranger.claim("a", "b")

    worker.service = second
    message = Exchange(
        session="one",
        number=3,
        wanted=(Wanted(id="one-c", key="c", model="m"),),  # its grant was lost with the first one
        holding=(Held(key="b", model="m", idempotency_key="one-b", reserved=3, counted=True),),
    )
    assert not worker.send(Exchange(session="one", number=3)).known
    assert [Decision.SEND] == [grant.decision for grant in worker.send(message).grants]
    worker.numbers = itertools.count(4)
    worker.settle("b")
    worker.settle("c")

    assert [Decision.DONE, Decision.DONE] == stranger.claim("b", "c")
    assert (9, 0) == (second.report().tokens_used, second.report().tokens_possibly_billed)
    assert ["a", "b", "c", "c"] == [entry.key for entry in entries(journal, "start")]
    assert ["c"] == [entry.key for entry in entries(journal, "failed")]


def test_claims_that_are_not_a_worker_s_own_any_more(make_service):
    """A worker that comes back after its lease learns which keys others have."""
    service = make_service(on_unknown="retry")
    one, two = Worker(service), Worker(service, "two")
    one.claim("a", "b")
    with service._lock:
        service._forget("one")
    assert [Decision.SEND] == two.claim("a")
    held = [Held(key=key, model="m", idempotency_key=f"one-{key}", reserved=None, counted=True) for key in "ab"]

    reply = one.send(Exchange(session="one", number=2, holding=tuple(held)))

    assert ("a",) == reply.revoked


def test_the_budget_is_never_passed(make_service):
    """Reservations of all workers count; at the end the reason is in the reply and in the report."""
    service = make_service(budget=7)
    one, two = Worker(service), Worker(service, "two")
    assert [Decision.SEND] == one.claim("a")
    assert [Decision.SEND] == two.claim("b")
    assert [] == two.claim("c")

    one.settle("a")
    two.settle("b")

    assert [Decision.STOPPED] == two.claim("c")
    assert isinstance(service.report().stopped_by, BudgetReachedError)
    assert [Decision.DONE] == two.claim("a")


def test_limits_of_all_workers(make_service):
    """What one worker learns of a limit holds for all."""
    service = make_service()
    one, two = Worker(service), Worker(service, "two")
    one.claim("a")
    one.exchange(limits=(LimitReport(refused=True, retry_after=60.0, limit_hour=100),))

    reply = two.exchange(wanted=(Wanted(id="b", key="b", model="m"),))

    assert () == reply.grants
    assert reply.closed_for > 30


def test_refused_requests_keep_their_reservation(make_service):
    """After a 429 a request waits with its reservation, and starts before new ones."""
    service = make_service(budget=3)
    worker = Worker(service)
    worker.claim("a")
    worker.settle("a", "refused", tokens_used=0)

    assert [Decision.SEND] == worker.claim("a", kind="again")
    worker.settle("a")
    assert 3 == service.report().tokens_used


def test_invalid_generations(make_service):
    """A repair is a request of its own; the invalid text is for the next run as well."""
    service = make_service(budget=100)
    worker = Worker(service)
    worker.claim("a")
    worker.settle("a", "invalid")
    worker.settle("a", "released", line=False)

    assert [Decision.INVALID] == worker.claim("a")
    assert [Decision.SEND] == worker.claim("a", kind="repair")
    worker.settle("a")
    assert 6 == service.report().tokens_used


@pytest.mark.parametrize(
    "on_changed, decision", [("raise", Decision.CHANGED), ("skip", Decision.DONE), ("retry", Decision.SEND)]
)
def test_changed_requests(make_service, on_changed, decision):
    """Another request with a key that an earlier run had is treated as chosen."""
    first = make_service()
    worker = Worker(first)
    worker.claim("a", request_hash="a" * 32)
    worker.settle("a")
    lose(first)

    assert [decision] == Worker(make_service(on_changed=on_changed), "two").claim("a", request_hash="b" * 32)


def test_the_second_driver_is_refused(make_service):
    """One journal has one coordinator."""
    make_service()

    with pytest.raises(JournalLockedError):
        make_service()


def test_unknown_outcomes_may_be_an_error(make_service):
    """With ``on_unknown="raise"`` a coordinator is not started over requests without an outcome."""
    first = make_service()
    Worker(first).claim("a")
    lose(first)

    with pytest.raises(OutcomeUnknownError) as caught:
        make_service(on_unknown="raise")
    assert ("a",) == caught.value.keys


def test_lost_drivers(make_service):
    """Without its driver a coordinator stops, waits for what is in flight, and releases the journal."""
    service = make_service()
    service._driver_expires = 0.0
    worker = Worker(service)
    worker.claim("a")

    deadline = time.monotonic() + 60
    while worker.exchange().stopped_by is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not service._closed
    worker.settle("a")

    while not service._closed:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not worker.exchange().known


def test_the_end(make_service):
    """A coordinator ends when no worker holds a claim, and then refuses workers."""
    service = make_service()
    worker = Worker(service)
    worker.claim("a")
    assert not service.finish()
    worker.settle("a")

    assert service.finish()
    assert worker.exchange().stopped_by is not None


def test_late_outcomes_of_requests_that_another_one_asks_for(make_service):
    """A pending request whose outcome two workers report is settled once in the budget."""
    service = make_service(budget=10)
    one, two = Worker(service), Worker(service, "two")
    assert [Decision.SEND] == one.claim("a", price=5)
    one.settle("a", "accepted")
    forget(service, "one")
    assert [Decision.ASK] == two.claim("a")
    one.settle(
        "a",
        tokens_used=1,
        holding=(Held(key="a", model="m", idempotency_key="one-a", reserved=None, counted=True),),
    )
    two.settle("a", tokens_used=1, idempotency_key="one-a")

    assert (1, 0) == (service.report().tokens_used, service.report().tokens_possibly_billed)
    assert 9 == service._budget.left
    assert not service._budget.holding


def test_changed_requests_of_one_run(make_service):
    """With ``on_changed="retry"``, rows of one run that share a key share a generation, also when they are rerun."""
    worker = Worker(make_service(on_changed="retry"))
    assert [Decision.SEND] == worker.claim("a", request_hash="a" * 32)
    worker.settle("a")

    assert [Decision.DONE] == worker.claim("a", request_hash="b" * 32)
    assert [Decision.DONE] == worker.claim("a", request_hash="a" * 32)


def test_changed_requests_of_an_earlier_run(make_service):
    """They are sent again once, with ``on_changed="retry"``."""
    first = make_service()
    worker = Worker(first)
    worker.claim("a", request_hash="a" * 32)
    worker.settle("a")
    lose(first)

    worker = Worker(make_service(on_changed="retry"), "two")
    assert [Decision.SEND] == worker.claim("a", request_hash="b" * 32)
    worker.settle("a")
    assert [Decision.DONE] == worker.claim("a", request_hash="a" * 32)


def test_released_claims_of_pending_requests(make_service, journal):
    """A worker that gives up the retrieval of a generation settles nothing: it may be billed, and can be retrieved."""
    first = make_service(budget=10)
    one = Worker(first)
    one.claim("a", price=5)
    one.settle("a", "accepted")
    lose(first)
    service = make_service(budget=10)
    two = Worker(service, "two")
    assert [Decision.ASK] == two.claim("a")
    two.settle("a", "released", tokens_used=0, line=False, idempotency_key="one-a")

    report = service.report()
    assert (0, 5, 0) == (report.tokens_used, report.tokens_possibly_billed, report.in_flight)
    assert [Decision.ASK] == Worker(service, "three").claim("a")


def test_released_claims_of_requests_that_may_be_sent(make_service):
    """The start of a released request is in the journal without an outcome: it is unresolved, and so in the budget."""
    service = make_service(budget=10)
    worker = Worker(service)
    worker.claim("a", price=5)
    worker.settle("a", "released", tokens_used=0, line=False)

    report = service.report()
    assert (0, 5, ("a",)) == (report.tokens_used, report.tokens_possibly_billed, report.unresolved_keys)
    assert not service._budget.holding


@pytest.mark.parametrize("restarts", [False, True])
def test_pending_requests_without_a_start(make_service, journal, restarts):
    """A journal that lacks the start of a pending request has the outcome of that, and its claim ends."""
    journal.write_bytes(HEADER + b'{"event":"pending","key":"a","id":"gen_1"}\n')
    service = make_service(budget=10)
    worker = Worker(service)
    (grant,) = worker.exchange(wanted=(Wanted(id="x", key="a", model="m"),)).grants
    assert (Decision.ASK, "gen_1") == (grant.decision, grant.unresolved.generation_id)
    parts = {}
    if restarts:
        lose(service)
        service = worker.service = make_service(budget=10, restarted=True)
        parts["holding"] = (
            Held(key="a", model="m", idempotency_key=grant.idempotency_key, reserved=None, counted=False),
        )
    reply = worker.settle("a", idempotency_key=grant.idempotency_key, **parts)

    report = service.report()
    assert () == reply.revoked
    assert (0, 3, 0) == (report.in_flight, report.tokens_used, report.tokens_possibly_billed)
    assert [Decision.DONE] == worker.claim("a")
