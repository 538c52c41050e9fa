"""The rows that earlier runs of a batch completed, by its journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from neuralbox_async import GenerateRequest, JournalEntry, read_journal
from neuralbox_async._batch.changed_requests import hash_of
from neuralbox_async._batch.key_index import KeyIndex, digest_of
from neuralbox_async._batch.typed_items import TypedOutput
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.output import completed_line
from neuralbox_async._cli.schema import Schema

_UNKNOWN: Final = 1  # instead of a hash; an index has no 0
_HASH_DIGITS: Final = 8  # of the hashes that are compared: one change in 4 billion is not noticed


class CompletedRows:
    """
    Those of *rows* that *journal*, which may not exist, has as done: by the last ``"done"`` entry of each key.

    *retries_changed*: without those whose requests differ from what was completed, because they are sent again.
    *schema*: of the results. Raises `JournalError`.
    """

    def __init__(
        self, journal: str | None, rows: InputRows, schema: Schema | None, *, retries_changed: bool = False
    ) -> None:
        self._journal = journal if journal is not None and os.path.exists(journal) else None  # noqa: PTH110
        self._rows, self._schema = rows, schema
        self._output = None if schema is None else TypedOutput.of(schema.output_type, 0)
        self._retries_changed = retries_changed
        self._counts = KeyIndex("I")  # of the "done" entries of each key
        self._hashes = KeyIndex("Q")  # of the request that was completed, if known
        started = KeyIndex("Q")
        for digest, entry in self._entries():
            if entry.event == "start":
                started[digest] = _short(entry.request_hash)
            elif entry.event == "done":
                self._counts[digest] += 1
                self._hashes[digest] = started[digest] or _UNKNOWN

    def __contains__(self, request: GenerateRequest) -> bool:
        """Return whether *request*, of one of the rows, is done."""
        digest = _digest(str(request.key))
        if not self._counts[digest]:
            return False
        known = self._hashes[digest]
        return not self._retries_changed or known in {_UNKNOWN, _short(hash_of(request, self._output))}

    def lines(self) -> Iterator[str]:
        """Yield the line of each, in the order in which they were completed."""
        changed, seen = KeyIndex(), KeyIndex("I")
        if self._retries_changed and len(self._counts):
            for request in self._rows:
                if request not in self:
                    changed[_digest(str(request.key))] = 1
        for digest, entry in self._entries():
            if entry.event != "done" or entry.generation is None:
                continue
            seen[digest] += 1
            is_last = seen[digest] == self._counts[digest]
            if is_last and not changed[digest] and (place := self._rows.place_of(entry.key)):
                yield completed_line(entry, entry.generation, place, self._schema)

    def _entries(self) -> Iterator[tuple[int, JournalEntry]]:
        entries = iter(()) if self._journal is None else read_journal(self._journal)
        return ((_digest(entry.key), entry) for entry in entries)


def _digest(key: str) -> int:
    return digest_of(key.encode(errors="replace"))


def _short(request_hash: str | None) -> int:
    try:
        return int((request_hash or "")[:_HASH_DIGITS], 16) + _UNKNOWN + 1
    except ValueError:  # there is none, or a user has edited it
        return _UNKNOWN
