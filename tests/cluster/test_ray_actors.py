"""`CoordinatorActor`: an actor that replaces another one, and one that opens its journal again."""

from __future__ import annotations

import pytest
from coordinators import Worker, lose
from journals import HEADER, entries

from neuralbox_async import JournalError, JournalLockedError
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._cluster.messages import Decision, Exchange, Wanted
from neuralbox_async._cluster.service import ServiceOptions
from neuralbox_async.ray import _coordinator
from neuralbox_async.ray._coordinator import CoordinatorActor

pytestmark = pytest.mark.usefixtures("quick_end")


def test_actors(journal):
    """A replacement waits for the journal; an actor that ended sends nothing more."""
    options = ServiceOptions(journal=str(journal))
    first, second = CoordinatorActor(options), CoordinatorActor(options)
    assert first.open() is None
    with pytest.raises(ConnectionError):
        second.exchange(Exchange(session="s", number=1))
    assert isinstance(second.open(), JournalLockedError)
    assert isinstance(second.exchange(Exchange(session="s", number=1)).stopped_by, JournalLockedError)
    assert first.finish()
    assert first.finish()
    assert isinstance(first.exchange(Exchange(session="s", number=1)).stopped_by, BatchStateError)
    assert second.open() is None
    assert second.report().calls == 0
    assert second.finish()


def test_replacements_ask_the_driver(journal):
    """An actor that replaces another one serves no worker until it knows what the journal had."""
    options = ServiceOptions(journal=str(journal))
    first, second = CoordinatorActor(options), CoordinatorActor(options)
    assert first.open() is None
    Worker(first).claim("a")
    mark = first.report().journal_mark
    lose(first._service)
    with pytest.raises(ConnectionError):
        second.exchange(Exchange(session="s", number=1))
    assert mark.size == second.report(mark).journal_size
    assert second.exchange(Exchange(session="s", number=1)).known
    lose(second._service)

    journal.write_bytes(HEADER)
    third = CoordinatorActor(options)
    with pytest.raises(JournalError, match="another journal"):
        third.report(mark)
    assert isinstance(third.exchange(Exchange(session="s", number=1)).stopped_by, JournalError)
    assert third.finish(mark)


def test_replacements_that_end_while_the_journal_is_locked(journal):
    """The actor before may live: its claims are not given up."""
    options = ServiceOptions(journal=str(journal))
    first, second = CoordinatorActor(options), CoordinatorActor(options)
    assert first.open() is None
    with pytest.raises(JournalLockedError):
        second.finish()
    lose(first._service)
    assert not second.finish()  # workers may hold claims of the first one
    second._service._absent_until = 0.0
    second._service._check_leases(1.0)
    assert second.finish()


@pytest.mark.parametrize("holding", [None, ()])
def test_late_copies_after_the_journal_was_closed(journal, monkeypatch, holding):
    """A copy of an exchange of an earlier execution grants and withdraws nothing: its reply was received."""
    monkeypatch.setattr(_coordinator, "_IDLE_TIMEOUT", 0.0)
    actor = CoordinatorActor(ServiceOptions(journal=str(journal), budget=100))
    assert actor.open() is None
    wanted = Wanted(id="one-a", key="a", model="m")
    message = Exchange(session="one", number=1, wanted=(wanted,), prices={"m": 3}, holding=holding)
    assert [Decision.SEND] == [grant.decision for grant in actor.exchange(message).grants]
    actor.exchange(Exchange(session="one", number=2, left=True))  # without the outcome: its request may be billed
    for _ in range(2):
        actor.report()
    assert actor._service is None

    assert not actor.exchange(message).known
    assert ["start"] == [entry.event for entry in entries(journal)]
    assert ("a",) == actor.report().unresolved_keys
    assert actor.finish()
