"""Grants whose replies are lost: their requests were not sent, not billed, and not in the way of others."""

from __future__ import annotations

import pytest
from coordinators import Worker, forget, lose
from journals import HEADER, entries

from neuralbox_async import BudgetReachedError
from neuralbox_async._cluster.messages import Decision, Exchange, Held, Settled, Wanted

OPTIONS = {"budget": 100, "on_unknown": "retry"}
WANTED = Wanted(id="one-a", key="a", model="m")


def costs(service):
    """Return the tokens that are billed, and those that may be."""
    return service.report().tokens_used, service.report().tokens_possibly_billed


def replaced(service, make_service, *workers, **options):
    """Lose *service*, and return the one that replaces it, which *workers* have found and no other is waited for."""
    lose(service)
    replacement = make_service(**{**OPTIONS, **options}, restarted=True)
    replacement._claims.waits_for_absent = False
    for worker in workers:
        worker.service = replacement
    return replacement


@pytest.mark.parametrize("outcome, decision", [("completed", Decision.DONE), ("invalid", Decision.INVALID)])
def test_keys_that_others_finish(make_service, journal, outcome, decision):
    """Once the worker claims it again, the request that it never sent is not one that may be billed."""
    one = Worker(make_service(**OPTIONS))
    assert [Decision.SEND] == one.claim("a")
    service = replaced(one.service, make_service, one)
    two = Worker(service, "two")
    assert [Decision.SEND] == two.claim("a")
    two.settle("a", outcome, idempotency_key="one-a", claim_id="two-a")
    two.exchange(left=True)
    assert (3, 3) == costs(service)

    (grant,) = one.exchange(wanted=(WANTED,), holding=()).grants
    assert decision is grant.decision
    assert (3, 0) == costs(service)
    assert (3, 0) == costs(replaced(service, make_service))
    assert [0] == [entry.attempts for entry in entries(journal, "failed")]


def test_repairs_of_keys_that_others_finish(make_service):
    """After another restart nothing waits for the request that was never sent."""
    one = Worker(make_service(budget=6, on_unknown="retry"))
    one.claim("a")
    service = replaced(one.service, make_service, one, budget=6)
    two = Worker(service, "two")
    two.claim("a")
    two.settle("a", "invalid", idempotency_key="one-a", claim_id="two-a")
    two.exchange(left=True)
    one.exchange(wanted=(WANTED,), holding=())
    service = replaced(service, make_service, one, budget=6)
    held = Held(key="a", model="m", idempotency_key="one-a", reserved=None, counted=False)
    repair = Wanted(id="one-repair", key="a", model="m", kind="repair")
    (grant,) = one.exchange(wanted=(repair,), holding=(held,)).grants
    assert Decision.SEND is grant.decision
    one.settle("a", idempotency_key="one-repair")

    assert not service._budget.holding
    assert [Decision.STOPPED] == Worker(service, "three").claim("b")
    assert isinstance(service.report().stopped_by, BudgetReachedError)


def test_claims_that_another_worker_has_had(make_service):
    """Whoever comes back first to a new coordinator: the one that let the other start took this one for lost."""
    one, two = Worker(make_service(**OPTIONS)), Worker(None, "two")
    assert [Decision.SEND] == one.claim("a")
    two.service = one.service
    with one.service._lock:
        one.service._forget("one")
    assert [Decision.SEND] == two.claim("a")
    service = replaced(one.service, make_service, one, two)
    held = [
        Held(key="a", model="m", idempotency_key="one-a", claim_id=f"{name}-a", reserved=3, counted=True)
        for name in ("one", "two")
    ]

    assert ("a",) == one.exchange(holding=(held[0],)).revoked
    assert () == two.exchange(holding=(held[1],)).revoked
    one.settle("a", "withdrawn", tokens_used=0)
    two.settle("a", idempotency_key="one-a", claim_id="two-a")
    assert (3, 0) == costs(service)


@pytest.mark.parametrize("kind", ["again", "repair"])
def test_claims_of_two_rows_of_a_worker(make_service, journal, kind):
    """What follows the claim of one row does not take the place, and the reservation, of that of the other one."""
    service = make_service(**OPTIONS)
    one, two = Worker(service), Worker(service, "two")
    one.claim("a")
    with service._lock:
        service._forget("one")
    two.claim("a")
    held = Held(key="a", model="m", idempotency_key="one-a", reserved=3, counted=True)
    assert ("a",) == one.exchange(holding=(held,)).revoked
    with service._lock:
        service._forget("two")
    (grant,) = one.exchange(wanted=(Wanted(id="second", key="a", model="m"),)).grants
    assert Decision.SEND is grant.decision
    settled = one.settled("a", {"again": "refused", "repair": "invalid"}[kind], tokens_used=3 * (kind == "repair"))
    further = Wanted(id="further", key="a", model="m", kind=kind, previous="one-a", idempotency_key="one-a")
    reply = one.exchange(settled=(settled,), wanted=(further,))

    assert ((), {"further"}) == (reply.grants, reply.busy)
    assert 3 == len(entries(journal, "start"))


def test_claims_that_follow_one_without_an_outcome(make_service):
    """The outcome of the one before is not waited for any more: with an exhausted budget others are stopped."""
    one = Worker(make_service(budget=6))
    one.claim("a")
    service = replaced(one.service, make_service, one, budget=6)
    held = Held(key="a", model="m", idempotency_key="one-a", reserved=3, counted=False)
    repair = Wanted(id="one-repair", key="a", model="m", kind="repair", previous="one-a")
    assert [Decision.SEND] == [grant.decision for grant in one.exchange(holding=(held,), wanted=(repair,)).grants]
    one.settle("a", idempotency_key="one-repair")

    assert (3, 3) == costs(service)
    assert [Decision.STOPPED] == Worker(service, "two").claim("b")


def test_batches_that_end(make_service):
    """The start of a request that was not sent, and will not be, is withdrawn."""
    one = Worker(make_service(**OPTIONS))
    one.claim("a")
    service = replaced(one.service, make_service, one)
    service.stop()

    assert [Decision.STOPPED] == [grant.decision for grant in one.exchange(wanted=(WANTED,), holding=()).grants]
    assert (0, 0) == costs(service)
    assert () == service.report().unresolved_keys


def test_leases_that_expire(make_service):
    """A worker whose reply was lost, and then its lease, has not sent its request."""
    service = make_service(budget=100)
    one = Worker(service)
    one.claim("a")
    forget(service, "one")
    service = replaced(service, make_service, one)
    assert [Decision.SEND] == [grant.decision for grant in one.exchange(wanted=(WANTED,), holding=()).grants]
    one.settle("a")

    assert (3, 0) == costs(service)


@pytest.mark.parametrize("holding", [None, ()])
def test_late_copies_of_an_exchange(make_service, holding):
    """A copy that arrives when the session is lost grants and withdraws nothing: its reply was received."""
    service = make_service(budget=100)
    message = Exchange(session="one", number=1, wanted=(WANTED,), prices={"m": 3}, holding=holding)
    assert [Decision.SEND] == [grant.decision for grant in service.exchange(message).grants]
    with service._lock:
        service._forget("one")

    assert not service.exchange(message).known
    assert (0, 3) == costs(service)
    assert 0 == service.report().workers
    assert service.exchange(Exchange(session="one", number=2, holding=())).known


def test_outcomes_that_are_repeated_after_an_invalid_one(make_service, journal):
    """That the API had accepted a request is no news of one whose generation a lost coordinator has recorded."""
    one = Worker(make_service(**OPTIONS))
    one.claim("a")
    accepted, invalid = (one.settled("a", outcome) for outcome in ("accepted", "invalid"))
    one.exchange(settled=(accepted, invalid))
    service = replaced(one.service, make_service, one)
    held = Held(key="a", model="m", idempotency_key="one-a", reserved=3, counted=False)
    assert () == one.exchange(settled=(accepted, invalid), holding=(held,)).revoked

    assert (3, 0) == costs(service)
    service = replaced(service, make_service)
    assert (3, 0) == costs(service)
    assert [Decision.INVALID] == Worker(service, "two").claim("a")
    assert ["start", "pending", "invalid"] == [entry.event for entry in entries(journal)]


@pytest.mark.parametrize("outcome", ["completed", "invalid"])
def test_generations_whose_starts_are_missing(make_service, journal, outcome):
    """An edited journal may lack the start of a request: its text is paid for, and is recorded once."""
    service = make_service(budget=100)
    one = Worker(service)
    settled: Settled = one.settled("a", outcome)
    for _ in range(2):
        one.exchange(settled=(settled,))

    assert (3, 0) == costs(service)
    assert [b'{"id":"gen_1","content":"Hi","tokens_used":3}' in line for line in journal.read_bytes().splitlines()] == [
        False,
        True,
    ]
    assert (3, 0) == costs(replaced(service, make_service))


@pytest.mark.parametrize("outcome", ["completed", "invalid"])
def test_outcomes_of_adopted_claims_whose_starts_are_missing(make_service, journal, outcome):
    """Also of a claim whose key has another outcome: what its request cost counts once, now and in the next run."""
    journal.write_bytes(HEADER + b'{"event":"failed","key":"a","billed":"no"}\n')
    service = make_service(budget=100)
    one = Worker(service)
    held = Held(key="a", model="m", idempotency_key="one-a", reserved=3, counted=True)
    assert () == one.exchange(holding=(held,)).revoked
    for _ in range(2):
        one.exchange(settled=(one.settled("a", outcome),))

    assert (3, 0) == costs(service)
    assert not service._budget.holding
    assert 1 == len(entries(journal, "done" if outcome == "completed" else "invalid"))
    assert (3, 0) == costs(replaced(service, make_service))
