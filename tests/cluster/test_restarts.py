"""Coordinators that replace one that was lost: what they have to know of it."""

from __future__ import annotations

import time

import pytest
from coordinators import Worker, forget, lose
from journals import HEADER, entries

from neuralbox_async import JournalError
from neuralbox_async._cluster.messages import Decision, Exchange, Held, Wanted


def held(key, name="one"):
    return Held(key=key, model="m", idempotency_key=f"{name}-{key}", reserved=None, counted=True)


@pytest.mark.parametrize("found", [None, b"", HEADER])
def test_journals_of_another_file_system(make_service, journal, found):
    """A node without the journal of the run, or with an older copy, cannot replace the coordinator."""
    first = make_service()
    worker = Worker(first)
    worker.claim("a")
    worker.settle("a")
    mark = first.report().journal_mark
    assert journal.stat().st_size == mark.size
    lose(first)
    journal.unlink()
    if found is not None:
        journal.write_bytes(found)

    with pytest.raises(JournalError, match="another journal"):
        make_service(restarted=True, journal_mark=mark)
    assert (found is not None) == journal.exists()


def test_journals_of_the_run(make_service, journal):
    """The journal may have grown since the last report, and have a torn line."""
    first = make_service()
    mark = first.report().journal_mark
    Worker(first).claim("a")
    lose(first)
    with journal.open("ab") as file:
        file.write(b'{"event":"start"')

    second = make_service(restarted=True, journal_mark=mark).report().journal_mark
    assert (mark.journal, True) == (second.journal, mark.size < second.size)


@pytest.mark.parametrize("is_of_one_machine", [False, True])
def test_other_journals_of_the_same_size(make_service, journal, is_of_one_machine):
    """Another journal is refused whatever its size is: by its id, or, of one that has none, by its lines."""
    marks = []
    for name in "ab":
        journal.unlink(missing_ok=True)
        if is_of_one_machine:
            journal.write_bytes(HEADER)
        service = make_service()
        Worker(service).claim(name)
        marks.append(service.report().journal_mark)
        lose(service)
    assert marks[0].size == marks[1].size
    assert is_of_one_machine == (marks[0].journal == marks[1].journal)

    with pytest.raises(JournalError, match="another journal"):
        make_service(restarted=True, journal_mark=marks[0])
    lose(make_service(restarted=True, journal_mark=marks[1]))


def test_shorter_copies_that_have_grown(make_service, journal):
    """A copy that has lost lines, and got others since, is refused."""
    first = make_service()
    worker = Worker(first)
    copy = journal.read_bytes()
    worker.claim("a")
    worker.settle("a")
    mark = first.report().journal_mark
    lose(first)
    journal.write_bytes(copy)
    second = make_service()
    Worker(second, "two").claim(*"abcdefg")
    assert second.report().journal_size > mark.size
    lose(second)

    with pytest.raises(JournalError, match="another journal"):
        make_service(restarted=True, journal_mark=mark)


@pytest.mark.parametrize("change", ["copy", "other"])
def test_journals_that_workers_know_better(make_service, journal, change):
    """A worker knows more than the last report: nothing more is sent once it reports to an older copy."""
    first = make_service()
    mark = first.report().journal_mark
    copy = journal.read_bytes()
    worker = Worker(first)
    worker.claim("a")
    reply = worker.exchange()
    lose(first)
    journal.write_bytes(copy if change == "copy" else HEADER)

    second = make_service(restarted=True, journal_mark=mark if change == "copy" else None)
    worker.service = second
    message = Exchange(
        session="one",
        number=3,
        wanted=(Wanted(id="one-b", key="b", model="m"),),
        holding=(held("a"),),
        mark=reply.mark,
    )
    answer = worker.send(message)
    assert [Decision.STOPPED] == [grant.decision for grant in answer.grants]
    assert isinstance(answer.stopped_by, JournalError)


def test_workers_that_come_back_to_their_coordinator(make_service):
    """The journal has grown since it was opened: it is the same nevertheless."""
    service = make_service()
    worker = Worker(service)
    worker.claim("a")
    reply = worker.exchange()
    forget(service, "one")

    assert worker.exchange(holding=(held("a"),), mark=reply.mark).stopped_by is None


def test_grants_that_are_lost_with_a_coordinator(make_service, journal):
    """A request that was to be sent again, and was not, is not one more that may be billed."""
    first = make_service(budget=100)
    Worker(first).claim("a")
    lose(first)
    second = make_service(budget=100, on_unknown="retry")
    assert [Decision.SEND] == Worker(second, "two").claim("a")
    lose(second)  # and with it the answer

    third = make_service(budget=100, on_unknown="retry", restarted=True)
    third._claims.waits_for_absent = False
    two = Worker(third, "two")
    (grant,) = two.exchange(wanted=(Wanted(id="two-a", key="a", model="m"),), holding=()).grants
    assert (Decision.SEND, "one-a") == (grant.decision, grant.idempotency_key)
    two.settle("a", idempotency_key="one-a", claim_id="two-a")
    assert ["start"] * 2 + ["failed", "start", "done"] == [entry.event for entry in entries(journal)]
    assert (3, 3) == (third.report().tokens_used, third.report().tokens_possibly_billed)


def test_changed_requests_after_a_restart(make_service, journal):
    """With ``on_changed="retry"``, rows that share a key share a generation, whichever coordinator let it start."""
    options = {"on_changed": "retry", "run": "ab12"}
    first = make_service(**options)
    worker = Worker(first)
    worker.claim("a", request_hash="a" * 32)
    worker.settle("a")
    lose(first)

    second = make_service(**options, restarted=True)
    assert [Decision.DONE] == Worker(second, "two").claim("a", request_hash="b" * 32)
    lose(second)
    next_run = make_service(**{**options, "run": "cd34"})
    assert [Decision.SEND] == Worker(next_run, "three").claim("a", request_hash="b" * 32)
    assert {"a"} == {entry.key for entry in entries(journal)}


def test_journals_are_not_made_by_a_replacement(make_service, journal):
    """Also if the driver has had no report."""
    with pytest.raises(JournalError, match="another journal"):
        make_service(restarted=True)
    assert not journal.exists()


def test_prices_are_known_after_a_restart(make_service):
    """The prices of the requests in the journal hold, though their bills were lower."""
    first = make_service(budget=10)
    worker = Worker(first)
    assert [Decision.SEND] * 2 == worker.claim("a", "b", price=5)
    worker.settle("a", tokens_used=1)
    worker.settle("b", tokens_used=1)
    lose(first)

    second = make_service(budget=10, restarted=True)
    assert [Decision.SEND] == Worker(second, "two").claim("c", "d", "e", price=None)


def test_requests_without_a_price_take_what_is_left(make_service):
    """While the only request of an unknown price may have been billed, nothing is left of the budget."""
    service = make_service(budget=10)
    one, two = Worker(service), Worker(service, "two")
    assert [Decision.SEND] == one.claim("a", price=None)
    assert [] == two.claim("b", price=None)
    forget(service, "one")

    assert [Decision.STOPPED] == two.claim("b", price=None)
    assert 10 == service.report().tokens_possibly_billed
    one.settle("a", tokens_used=8, holding=(held("a"),))
    assert (8, 0) == (service.report().tokens_used, service.report().tokens_possibly_billed)


def test_requests_without_a_price_after_a_restart(make_service):
    """Its worker may live: until its outcome is known, nothing is left, and others wait."""
    first = make_service(budget=10)
    one = Worker(first)
    assert [Decision.SEND] == one.claim("a", price=None)
    lose(first)

    one.service = make_service(budget=10, restarted=True)
    two = Worker(one.service, "two")
    assert [] == two.claim("b", price=None)
    one.exchange(holding=(held("a"),))
    assert [] == two.claim("b", price=None)
    one.settle("a", tokens_used=4)
    assert [Decision.SEND] == two.claim("b", "c", price=None)


def test_early_ends_after_a_restart(make_service):
    """A driver that leaves right after a restart loses no text that is in flight: its worker may report it yet."""
    first = make_service()
    one = Worker(first)
    one.claim("a")
    lose(first)

    one.service = make_service(restarted=True)
    assert not one.service.finish(early=True)
    assert one.settle("a", holding=(held("a"),)).known
    assert 1 == one.service.report().completed
    one.service._absent_until = 0.0
    deadline = time.monotonic() + 60
    while not one.service.finish(early=True):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ends_after_a_restart(make_service):
    """When all tasks have returned, no worker is waited for."""
    lose(make_service())

    assert make_service(restarted=True).finish()
