"""Journals for tests, and their entries."""

from __future__ import annotations

from neuralbox_async import Generation, ProviderError, read_journal
from neuralbox_async._batch.journal import Journal

HEADER = b'{"event":"journal","version":1}\n'


def opened(path):
    """Return the journal at *path*, open."""
    journal = Journal(path)
    list(journal.open())
    return journal


def opened_and_closed(path):
    """Return the journal at *path* with the state that it has read, closed."""
    journal = opened(path)
    journal.close()
    return journal


def entries(path, event=None):
    """Return the entries of a journal, all or those of one event."""
    return [entry for entry in read_journal(path) if event in (None, entry.event)]


def written(path):
    """Write a journal with all kinds of lines, and return them."""
    journal = opened(path)
    generation = Generation(id=1, content="x", raw={"id": 1, "content": "x"})
    journal.write_start("a", "1", "gpt-5", 3)
    journal.write_done("a", generation, b'{"id": 1, "content": "x"}', attempts=1, elapsed=0.5, tokens_used=3)
    journal.write_start("b", "2", "gpt-5", None)
    journal.write_pending("b", 7)
    journal.write_start("c \u00e9", "3", 'a "model"', 5)
    journal.write_failed("c \u00e9", ProviderError("500", status_code=500), None, attempts=1, elapsed=0.5)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)
