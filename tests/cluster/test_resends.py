"""Requests that are sent again although the first may be billed: each bill counts, whoever reports it, and when."""

from __future__ import annotations

import itertools

import pytest
from coordinators import GENERATION, LINE, Worker, forget, lose
from journals import HEADER, entries

from neuralbox_async._batch import journal_lines
from neuralbox_async._cluster.messages import Decision, Held, Settled, Wanted

OPTIONS = {"budget": 100, "on_unknown": "retry"}
REQUEST = {"key": "a", "model": "m", "idempotency_key": "one-a"}  # of both
UNKNOWN = b'{"event":"failed","key":"a","billed":"unknown"}\n'
LINES = {
    "completed": journal_lines.done("a", GENERATION, b"", **LINE),
    "invalid": journal_lines.done("a", GENERATION, b"", **LINE, is_valid=False),
    "failed": b'{"event":"failed","key":"a","billed":"no"}\n',
    "refused": b'{"event":"failed","key":"a","billed":"no"}\n',
}
BILLS = {"completed": 3, "invalid": 3, "failed": 0}


@pytest.fixture
def resent(make_service):
    """Make a coordinator, and two workers that have sent the same request, the second one in place of the first."""
    service = make_service(**OPTIONS)
    workers = {"one": Worker(service), "two": Worker(service, "two")}
    assert [Decision.SEND] == workers["one"].claim("a")
    forget(service, "one")
    assert [Decision.SEND] == workers["two"].claim("a")
    return service, workers


def report(worker, outcome, **parts):
    """Have *worker*, which the coordinator does not know, report its outcome."""
    facts = {"outcome": outcome, "line": LINES.get(outcome), "tokens_used": BILLS.get(outcome, 0)}
    if outcome == "unknown":  # whether it is billed
        facts = {"outcome": "failed", "line": UNKNOWN, "tokens_used": None}
    settled = Settled(**REQUEST, claim_id=f"{worker.name}-a", **facts)
    return worker.exchange(settled=(settled,), holding=(), **parts)


def costs(service):
    """Return the tokens that are billed, and those that may be."""
    return service.report().tokens_used, service.report().tokens_possibly_billed


def test_a_worker_is_lost_after_another_has_reported(resent):
    """The request of the second one may be billed although the key has the generation of the first."""
    service, workers = resent
    report(workers["one"], "completed")
    assert (3, 0) == costs(service)

    forget(service, "two")
    assert (3, 3) == costs(service)


@pytest.mark.parametrize("outcomes", list(itertools.product(BILLS, BILLS)))
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("lost_before", [0, 1, 2])
def test_outcomes_of_both(resent, make_service, journal, outcomes, order, lost_before):
    """In any order, each counts once, although a new coordinator gets the last one again."""
    service, workers = resent
    bills = 0
    for number, (name, outcome) in enumerate(zip(order, outcomes, strict=True)):
        if number == lost_before:
            service = lost_and_replaced(service, make_service, workers)
            if number:
                report(workers[order[0]], outcomes[0])
        bills += BILLS[outcome]
        report(workers[name], outcome)
        assert bills == service.report().tokens_used
        # That of the other one is reserved as long as its worker is known.
        assert service.report().tokens_possibly_billed in ({0, 3} if number == 0 else {0})
    service = lost_and_replaced(service, make_service, workers)
    report(workers[order[1]], outcomes[1])

    assert (bills, 0) == costs(service)
    assert 2 == len(entries(journal, "start"))


def lost_and_replaced(service, make_service, workers):
    """Lose *service*, and return the one that replaces it, which the workers have found."""
    lose(service)
    replacement = make_service(**OPTIONS, restarted=True)
    for worker in workers.values():
        worker.service = replacement
    return replacement


def test_workers_that_both_come_back(resent, make_service):
    """The bill of each is its own, and the claim is that of the one that was let start last."""
    service, workers = resent
    service = lost_and_replaced(service, make_service, workers)
    assert (0, 6) == costs(service)
    for name in ("one", "two"):
        claim = Held(**REQUEST, reserved=3, counted=True, claim_id=f"{name}-a")
        assert (("a",) if name == "one" else ()) == workers[name].exchange(holding=(claim,)).revoked
    report(workers["two"], "completed")
    forget(service, "one")

    assert (3, 3) == costs(service)


def test_refused_requests_whose_key_is_done(resent, journal):
    """After a 429 a request is not sent again if the one before it has the generation after all."""
    service, workers = resent
    two = workers["two"]
    refused = Settled(**REQUEST, claim_id="two-a", outcome="refused", line=LINES["refused"], tokens_used=0)
    two.exchange(settled=(refused,))
    report(workers["one"], "completed")

    again = Wanted(id="two-again", key="a", model="m", kind="again", idempotency_key="one-a")
    assert [Decision.DONE] == [grant.decision for grant in two.exchange(wanted=(again,)).grants]
    assert 2 == len(entries(journal, "start"))
    assert (3, 0) == costs(service)
    assert service.finish()


def test_claims_after_a_refusal_that_are_lost_with_a_coordinator(make_service, journal):
    """The new one grants the same claim: the request was not sent, and nothing waits for its outcome."""
    first = make_service(**OPTIONS)
    one = Worker(first)
    one.claim("a")
    refused = Settled(**REQUEST, outcome="refused", line=LINES["refused"], tokens_used=0)
    again = Wanted(id="one-again", key="a", model="m", kind="again", idempotency_key="one-a")
    assert [Decision.SEND] == [grant.decision for grant in one.exchange(settled=(refused,), wanted=(again,)).grants]
    service = lost_and_replaced(first, make_service, {"one": one})
    held = Held(**REQUEST, reserved=3, counted=False)
    (grant,) = one.exchange(settled=(refused,), wanted=(again,), holding=(held,)).grants

    assert (Decision.SEND, "one-a", "one-again") == (grant.decision, grant.idempotency_key, grant.claim_id)
    done = Settled(**REQUEST, claim_id="one-again", outcome="completed", line=LINES["completed"], tokens_used=3)
    one.exchange(settled=(done,))
    assert (3, 0) == costs(service)
    assert not service._budget.holding
    assert 3 == len(entries(journal, "start"))


@pytest.mark.parametrize("on_unknown", ["skip", "retry"])
@pytest.mark.parametrize("line", [UNKNOWN, b'{"event":"start","key":"a","model":"m"}\n'])
def test_requests_without_an_idempotency_key(make_service, journal, line, on_unknown):
    """What a journal has of one whose start it lacks is no start of the next claim."""
    journal.write_bytes(HEADER + line)
    service = make_service(budget=100, on_unknown=on_unknown)
    starts = len(entries(journal, "start"))

    is_sent = on_unknown == "retry"
    assert [Decision.SEND if is_sent else Decision.UNRESOLVED] == Worker(service).claim("a")
    assert starts + is_sent == len(entries(journal, "start"))


def test_requests_without_an_idempotency_key_after_a_restart(make_service, journal):
    """A worker that has not reported yet may hold them."""
    journal.write_bytes(HEADER + UNKNOWN)
    worker = Worker(make_service(budget=100, on_unknown="retry", restarted=True))

    reply = worker.exchange(wanted=(Wanted(id="one-a", key="a", model="m"),))
    assert ((), frozenset({"one-a"})) == (reply.grants, reply.busy)


def test_unknown_outcomes_after_an_invalid_one(resent, make_service, journal):
    """The second request may be billed, and the key, whose first generation is invalid, can be repaired."""
    service, workers = resent
    report(workers["one"], "invalid")
    report(workers["two"], "unknown")
    assert (3, 3) == costs(service)
    three = Worker(service, "three")
    assert [Decision.INVALID] == three.claim("a")
    assert 2 == len(entries(journal, "start"))

    assert [Decision.SEND] == three.claim("a", kind="repair")
    three.settle("a")
    assert (6, 3) == costs(service)
    service = lost_and_replaced(service, make_service, {})
    assert (6, 3) == costs(service)


@pytest.mark.parametrize("outcome", ["completed", "invalid", "failed", "unknown"])
@pytest.mark.parametrize("is_repaired", [False, True])
def test_late_outcomes_after_an_invalid_one(resent, make_service, journal, outcome, is_repaired):
    """What the other request brought is in the journal, and its bill counts once; a repair is a third request."""
    service, workers = resent
    report(workers["one"], "invalid")
    forget(service, "two")
    assert (3, 3) == costs(service)
    three = Worker(service, "three")
    if is_repaired:
        assert [Decision.INVALID] == three.claim("a")
        assert [Decision.SEND] == three.claim("a", kind="repair")
    report(workers["two"], outcome)
    assert 4 + is_repaired == len(entries(journal))
    bill, possibly = BILLS.get(outcome, 0), 3 * (outcome == "unknown")
    assert (3 + bill, possibly) == costs(service)
    if is_repaired:
        three.settle("a")
        bill += 3
    assert (3 + bill, possibly) == costs(service)

    service = lost_and_replaced(service, make_service, {})
    assert (3 + bill, possibly) == costs(service)
    is_done = is_repaired or outcome == "completed"
    assert [Decision.DONE if is_done else Decision.INVALID] == Worker(service, "four").claim("a")


def test_outcomes_of_another_run(make_service, journal):
    """A run without a cluster, whose lines name no claim, reports those of the request that it asked for."""
    lines = [
        journal_lines.start("a", "one-a", "m", 3, None),
        journal_lines.start("a", "one-a", "m", 3, None)[:-2] + b',"claim":"two-a"}\n',
        journal_lines.pending("a", "gen_1")[:-2] + b',"claim":"two-a"}\n',
        LINES["failed"],
    ]
    journal.write_bytes(HEADER + b"".join(lines))
    service = make_service(budget=100)

    assert [Decision.UNRESOLVED] == Worker(service, "three").claim("a")
    assert (0, 3) == costs(service)


def test_late_outcomes_beside_a_pending_request(resent, make_service):
    """An outcome of the first one is not taken for that of the second one, which the API has accepted."""
    service, workers = resent
    accepted = Settled(**REQUEST, claim_id="two-a", outcome="accepted", line=journal_lines.pending("a", "gen_1"))
    workers["two"].exchange(settled=(accepted,))
    report(workers["one"], "failed")
    service = lost_and_replaced(service, make_service, {})
    service._claims.waits_for_absent = False

    (grant,) = Worker(service, "three").exchange(wanted=(Wanted(id="three-a", key="a", model="m"),)).grants
    assert (Decision.ASK, "two-a") == (grant.decision, grant.claim_id)


def test_superseded_requests_that_are_accepted_late(resent, make_service, journal):
    """Nobody asks for it: it may be billed, by any coordinator, and the journal has its id."""
    service, workers = resent
    report(workers["one"], "completed")
    accepted = Settled(**REQUEST, claim_id="two-a", outcome="accepted", line=journal_lines.pending("a", "gen_2"))
    workers["two"].exchange(settled=(accepted,))
    forget(service, "two")
    assert (3, 3) == costs(service)
    assert [Decision.DONE] == Worker(service, "three").claim("a")
    service = lost_and_replaced(service, make_service, {})
    assert (3, 3) == costs(service)
    assert [Decision.DONE] == Worker(service, "three").claim("a")

    assert ["gen_2"] == [entry.generation_id for entry in entries(journal, "pending")]


@pytest.mark.parametrize("is_billed", [False, True])
def test_outcomes_of_claims_without_a_start(make_service, journal, is_billed):
    """They settle no other request of their key."""
    line = LINES["completed" if is_billed else "failed"]
    journal.write_bytes(HEADER + journal_lines.start("a", "one-a", "m", 3, None) + line[:-2] + b',"claim":"other-a"}\n')
    service = make_service(budget=100)

    assert (3 * is_billed, 3) == costs(service)
    assert [Decision.DONE if is_billed else Decision.UNRESOLVED] == Worker(service, "two").claim("a")


@pytest.mark.parametrize("end", [b"", b"\r\n", b" \n"])
def test_last_lines_that_an_editor_has_changed(make_service, journal, end):
    """The claim of an outcome is found whatever follows the object."""
    lines = [
        journal_lines.start("a", "one-a", "m", 3, None),
        journal_lines.start("a", "one-a", "other", 5, None)[:-2] + b',"claim":"two-a"}\n',
        LINES["failed"][:-2] + b',"claim":"two-a"}' + end,
    ]
    journal.write_bytes(HEADER + b"".join(lines))
    assert (0, 3) == costs(make_service(budget=100))


def test_unknown_bills_of_a_request_that_is_asked_for(make_service):
    """A late failure does not settle it: its bill counts once it is known."""
    service = make_service(**OPTIONS)
    one, two = Worker(service), Worker(service, "two")
    one.claim("a")
    one.settle("a", "accepted")
    forget(service, "one")
    assert [Decision.ASK] == two.claim("a")
    failed = b'{"event":"failed","key":"a","billed":"unknown","id":"gen_1"}\n'
    settled = Settled(**REQUEST, outcome="failed", line=failed, tokens_used=None)
    one.exchange(settled=(settled,), holding=())
    assert service._budget.holding

    two.settle("a", idempotency_key="one-a", tokens_used=7)
    assert (7, 0) == costs(service)


def test_repeated_outcomes_beside_a_request_without_an_idempotency_key(make_service, journal):
    """They are not its own: it stays unresolved, and may be billed."""
    journal.write_bytes(HEADER + UNKNOWN)
    one = Worker(make_service(**OPTIONS))
    assert [Decision.SEND] == one.claim("a")
    one.settle("a", "failed", tokens_used=0)
    one.service = service = lost_and_replaced(one.service, make_service, {})
    settled = Settled(**REQUEST, outcome="failed", line=LINES["failed"], tokens_used=0)
    one.exchange(settled=(settled,), holding=())

    assert (0, 100) == costs(service)  # all that is left, because its price is unknown
    assert ("a",) == service.report().unresolved_keys


def test_invalid_outcomes_that_are_repeated(make_service, journal):
    """A new coordinator, to which the worker reports it again with its claim, counts and keeps it once."""
    one = Worker(make_service(**OPTIONS))
    one.claim("a")
    one.settle("a", "invalid")
    service = lost_and_replaced(one.service, make_service, {"one": one})
    claim = Held(**REQUEST, reserved=3, counted=False)
    one.settle("a", "invalid", holding=(claim,))
    assert (3, 0) == costs(service)
    assert 1 == len(entries(journal, "invalid"))

    assert [Decision.SEND] == one.claim("a", kind="repair")


@pytest.mark.parametrize("outcome", list(BILLS))
def test_superseded_requests_whose_workers_come_back(resent, make_service, journal, outcome):
    """A new coordinator takes the outcome of the second request from its worker, which still has its claim."""
    service, workers = resent
    report(workers["one"], "invalid")
    service = lost_and_replaced(service, make_service, workers)
    assert (3, 3) == costs(service)
    claim = Held(**REQUEST, claim_id="two-a", reserved=3, counted=True)
    workers["two"].exchange(holding=(claim,))
    report(workers["two"], outcome)

    assert (3 + BILLS[outcome], 0) == costs(service)
    assert 4 == len(entries(journal))
    assert (3 + BILLS[outcome], 0) == costs(lost_and_replaced(service, make_service, {}))
