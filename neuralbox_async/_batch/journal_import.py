"""
Results that a journal lacks, from where they were written as well: into the journal, before that copy is replaced.

A journal can lack them when its disk was full, or when the last second before a crash of the machine was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._batch.errors import JournalError, OutcomeUnknownError
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.key_status import KeyStatus

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from neuralbox_async._batch.journal_entries import JournalEntry

_SENT = (KeyStatus.UNRESOLVED, KeyStatus.PENDING)


def import_results(path: str | os.PathLike[str], entries: Callable[[], Iterable[JournalEntry]]) -> None:
    """
    Write those of *entries* to the journal at *path* that it lacks, and have them on the disk.

    *entries* returns what another file has, each time that it is called: ``"done"`` entries with their generations, and
    ``"failed"`` ones with a text or a body. Raises `JournalLockedError` and `JournalError`; also, before it writes
    anything, when the journal has never sent an entry's request: then the two files do not belong together.
    """
    journal = Journal(path)
    try:
        for _ in journal.open():
            pass
        lacking = False
        for entry in entries():
            status = journal.status_of(entry.key)
            lacking = lacking or status in _SENT
            if status not in (*_SENT, KeyStatus.DONE, KeyStatus.INVALID):
                message = f"the journal has no request for a result that would be overwritten, {entry.key}"
                raise JournalError(f"{message}; choose another output: {path}", path=str(path))
        if lacking:
            imported: set[str] = set()
            for entry in entries():
                if entry.key not in imported and journal.status_of(entry.key) in _SENT:
                    imported.add(entry.key)
                    _write(journal, entry)
            journal.sync()
    finally:
        journal.close()


def _write(journal: Journal, entry: JournalEntry) -> None:
    if entry.generation is not None:
        journal.write_done(
            entry.key,
            entry.generation,
            b"",
            attempts=entry.attempts,
            elapsed=entry.elapsed,
            tokens_used=entry.tokens_used,
        )
    elif (entry.text or entry.body) and not journal.has_response(entry.key):
        text, body = entry.text or "", (entry.body or "").encode(errors="replace")
        error = OutcomeUnknownError(entry.message or "", keys=(entry.key,), text=text, body=body)
        journal.write_failed(entry.key, error, None, attempts=entry.attempts, elapsed=entry.elapsed)
