"""The journal of a coordinator on a cluster: what it writes counts at once, as if it had been read from the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.key_index import digest_of
from neuralbox_async._batch.key_status import (
    BILLED,
    CLAIMED_BIT,
    STATUS_BITS,
    KeyStatus,
    Unresolved,
    is_changed,
    short_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@attrs.frozen
class KeyState:
    """
    The state of a key, as the journal has it now.

    *changed*, *invalid*: see `Claim`. *is_own*: whether this coordinator has let its request start.
    """

    status: KeyStatus
    unresolved: Unresolved | None = None
    changed: bool = False
    invalid: tuple[int, ...] = ()
    is_own: bool = False


class LiveJournal(Journal):
    """
    A journal whose index has each line as soon as it is written.

    A coordinator that is restarted reads the same lines, and so knows the same. Keys are marked whose requests this one
    has let start.

    *least_size*: bytes of whole lines that it had before; 0 if it may be new.
    """

    def __init__(self, path: str | os.PathLike[str], least_size: int) -> None:
        super().__init__(path, keep_offsets=True)
        self._least_size = least_size

    def open(self) -> Iterator[None]:
        """Do the same as `Journal.open`. Raises `JournalError` also for a file that is not the one of before."""
        if self._least_size and not Path(self._file.path).exists():
            raise self._other_error()
        yield from super().open()
        if self.size < self._least_size:
            raise self._other_error()

    def _other_error(self) -> JournalError:
        path = self._file.path
        return JournalError(f"this node has another journal than the batch, or an older copy: {path}", path=path)

    @property
    def size(self) -> int:
        """The bytes of its lines."""
        return self._file.end

    def _on_start(self, key: bytes, unresolved: Unresolved) -> None:
        super()._on_start(key, unresolved)
        if unresolved.reserved is not None:  # the price that was quoted, which a bill may be lower than
            self.prices[unresolved.model] = max(unresolved.reserved, self.prices.get(unresolved.model, 0))

    def state_of(self, key: str, request_hash: str | None) -> KeyState:
        """Return the state of *key*, which is now for a request with *request_hash*."""
        digest = digest_of(key.encode())
        number = self._index[digest]
        status = KeyStatus(number & STATUS_BITS)
        changed = status in BILLED and is_changed(number, short_hash(request_hash))
        is_own = number & CLAIMED_BIT != 0
        return KeyState(status, self._unresolved.get(digest), changed, tuple(self._invalid.get(digest, ())), is_own)

    def unresolved_request(self, key: str, idempotency_key: str) -> Unresolved | None:
        """Return the request of *key* without an outcome, if it is the last one and had *idempotency_key*."""
        unresolved = self._unresolved.get(digest_of(key.encode()))
        return unresolved if unresolved is not None and unresolved.idempotency_key == idempotency_key else None

    def done_line(self, key: str) -> bytes:
        """Return the line with the generation of *key*; ``b""`` if it cannot be read."""
        if self._offsets is None:
            raise AssertionError("a live journal keeps offsets")
        return self._file.line_at(self._offsets[digest_of(key.encode())])

    def lines_at(self, offsets: Iterable[int]) -> tuple[bytes, ...]:
        """Return the lines at *offsets*."""
        return tuple(self._file.line_at(offset) for offset in offsets)

    def append(self, line: bytes, *, retry: bool = False) -> None:
        """Write *line* and apply it. Raises `JournalError`; *retry*: see `JournalFile.write`."""
        self._file.write(line, retry=retry)
        self._file.offset = self._file.end - len(line)
        self._read_line(line, 0)

    def append_start(
        self, key: str, idempotency_key: str, model: str, reserved: int | None, request_hash: str | None
    ) -> None:
        """Write that *key* is about to be sent. Raises `JournalError`."""
        self.append(journal_lines.start(key, idempotency_key, model, reserved, request_hash))
        self._index.mark(digest_of(key.encode()), CLAIMED_BIT)
