"""Journals for tests, and their entries."""

from __future__ import annotations

from neuralbox_async import ProviderError, read_journal
from neuralbox_async._batch.journal import Journal

HEADER = b'{"event":"journal","version":1}\n'


async def run(batch):
    """Run *batch* to its end and return its results."""
    async with batch as results:
        return [result async for result in results]


def opened(path):
    """Open a journal."""
    journal = Journal(path)
    list(journal.open())
    return journal


def entries(path, event=None):
    """Return the entries of a journal, all or those of one kind."""
    return [entry for entry in read_journal(path) if event in (None, entry.event)]


def opened_and_closed(path):
    journal = opened(path)
    journal.close()
    return journal


def written(path):
    """Write a journal with all kinds of lines, and return them."""
    journal = opened(path)
    journal.start("a", "1", "gpt-5", 3)
    journal.done("a", done_generation(), b'{"id": 1, "content": "x"}', attempts=1, seconds=0.5, tokens=3)
    journal.start("b", "2", "gpt-5", None)
    journal.pending("b", 7)
    journal.start("c \u00e9", "3", 'a "model"', 5)
    journal.failed("c \u00e9", ProviderError("500", status=500), None, attempts=1)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def done_generation():
    from neuralbox_async import Generation

    return Generation(id=1, content="x", raw={"id": 1, "content": "x"})
