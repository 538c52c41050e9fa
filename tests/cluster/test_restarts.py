"""Coordinators that replace one that was lost: what they have to know of it."""

from __future__ import annotations

import pytest
from coordinators import Worker, lose
from journals import HEADER

from neuralbox_async import JournalError
from neuralbox_async._cluster.messages import Held


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
