"""Journals that another program changes while a coordinator uses them."""

from __future__ import annotations

import time

import pytest
from coordinators import Worker, lose

from neuralbox_async import JournalError
from neuralbox_async._cluster.messages import Decision


def remove(journal, _other):
    journal.unlink()


def replace(journal, other):
    other.replace(journal)


def truncate(journal, _other):
    with journal.open("r+b") as file:
        file.truncate(40)


def overwrite(journal, other):
    """Write the lines of *other* into the same file, as ``cp`` and ``rsync --inplace`` do."""
    with journal.open("r+b") as file:
        file.write(other.read_bytes())


@pytest.mark.parametrize("change", [remove, replace, truncate, overwrite])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_nothing_more_is_sent(make_service, journal, tmp_path, change, is_resumed):
    """Soon after its journal is no more what it was, a coordinator lets no request start, and says why."""
    other = tmp_path / "other.jsonl"
    worker = Worker(make_service(journal=str(other)))
    worker.claim(*(f"key-{number}" for number in range(20)))
    lose(worker.service)
    service = make_service()
    Worker(service).claim("a")
    if is_resumed:
        lose(service)
        service = make_service()
    change(journal, other)

    deadline = time.monotonic() + 60
    while service.report().stopped_by is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert isinstance(service.report().stopped_by, JournalError)
    assert "in use" in str(service.report().stopped_by)
    assert [Decision.STOPPED] == Worker(service, "two").claim("b")


def test_lines_of_the_coordinator_are_no_change(make_service):
    """It goes on while it writes."""
    service = make_service()
    for number in range(3):
        Worker(service, f"worker-{number}").claim(f"key-{number}")
        time.sleep(0.6)
        service._journal.check()

    assert service.report().stopped_by is None
