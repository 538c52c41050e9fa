"""Coordinators that replace one that was lost: what they have to know of it."""

from __future__ import annotations

import time

import pytest
from coordinators import Worker, forget, lose
from journals import HEADER

from neuralbox_async import JournalError
from neuralbox_async._cluster.messages import Decision, Held


def held(key, name="one"):
    return Held(key=key, model="m", idempotency_key=f"{name}-{key}", reserved=None, counted=True)


@pytest.mark.parametrize("found", [None, b"", HEADER])
def test_journals_of_another_file_system(make_service, journal, found):
    """A node without the journal of the run, or with an older copy, cannot replace the coordinator."""
    first = make_service()
    worker = Worker(first)
    worker.claim("a")
    worker.settle("a")
    size = first.report().journal_size
    assert journal.stat().st_size == size
    lose(first)
    journal.unlink()
    if found is not None:
        journal.write_bytes(found)

    with pytest.raises(JournalError, match="another journal"):
        make_service(restarted=True, journal_size=size)
    assert (found is not None) == journal.exists()


def test_journals_of_the_run(make_service, journal):
    """The journal may have grown since the last report, and have a torn line."""
    first = make_service()
    size = first.report().journal_size
    Worker(first).claim("a")
    lose(first)
    with journal.open("ab") as file:
        file.write(b'{"event":"start"')

    assert size < make_service(restarted=True, journal_size=size).report().journal_size


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
