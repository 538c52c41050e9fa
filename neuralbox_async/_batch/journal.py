"""
The journal of a batch: an append-only file of JSON lines with each request that was sent and its outcome.

A line is written before a request is sent and when its outcome is known. Of the lines of earlier runs a compact index
of their keys is kept in memory; the texts are not.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.journal_entries import (
    HEADER,
    JournalEntry,
    check_header,
    count,
    entry_of,
    malformed,
    members_of,
)
from neuralbox_async._batch.journal_file import JournalFile
from neuralbox_async._batch.journal_lines import usable_id
from neuralbox_async._batch.key_index import KeyIndex, digest_of, numbered_key
from neuralbox_async._batch.key_status import (
    BILLED,
    CLAIMED_BIT,
    HASH_SHIFT,
    STATUS_BITS,
    KeyStatus,
    Unresolved,
    is_changed,
    short_hash,
)
from neuralbox_async._types import Generation, GenerationId

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError

_CACHED_NUMBERS: Final = 1000
_NEW: Final = (KeyStatus.NEW, None, False, ())  # of a key that no run has sent
_MAX_DIGITS: Final = 19  # of a number of 64 bits

# The most frequent lines are recognised by their beginning; all others, and lines that a user edited, are parsed.
_START: Final = re.compile(
    rb'\{"event":"start","key":"([^"\\]+)","idempotency_key":"([^"\\]+)","model":"([^"\\]+)","reserved":(\d+|null)'
    rb'(?:,"request_hash":"([0-9a-f]{6,})")?'
)
_DONE: Final = re.compile(
    rb'\{"event":"done","key":"([^"\\]+)","at":[\d.]+,"attempts":\d+,"elapsed":[\d.]+,"tokens_used":(\d+|null)'
)


class Journal:
    """
    The journal that one batch writes. Not thread-safe, except for `check` and `sync`.

    *keep_offsets*: whether `done_entry` will be called; another 16 bytes or more for each key.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_offsets: bool = False) -> None:
        self._file = JournalFile(path, HEADER, self._read_line)
        self._index = KeyIndex("I")
        self._offsets = KeyIndex("Q") if keep_offsets else None  # of the lines of done keys
        self.has_hashes = False  # of the requests of any key
        self._unresolved: dict[int, Unresolved] = {}  # by digest; few
        self._invalid: dict[int, list[int]] = {}  # by digest, of keys that are not done: the lines' offsets; few
        self._superseded: list[Unresolved] = []  # whose bill no outcome of their key settles; fewer
        self.done_left = self.pending_left = 0  # done entries, and pending keys, that this run has not claimed
        self.spent = 0  # tokens of earlier runs
        self.prices: dict[str, int] = {}  # the highest bill of each model
        self._numbers: dict[str, int] = {}  # the last number of each key that was numbered recently

    def open(self) -> Iterator[None]:
        """Open the file and read its lines; see `JournalFile.open`."""
        yield from self._file.open()
        self.pending_left = sum(one.status is KeyStatus.PENDING for one in self._unresolved.values())

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._file.close()

    @property
    def unsynced(self) -> bool:
        """Whether there are lines that the disk may not have."""
        return self._file.unsynced

    def check(self) -> None:
        """Raise `JournalError` unless the file is still there; see `JournalFile.check`."""
        self._file.check()

    def sync(self) -> None:
        """Wait until the disk has every line; see `JournalFile.sync`."""
        self._file.sync()

    # -------------------------------------------------------------------------------------------------------- reading

    def _read_line(self, line: bytes, number: int) -> None:
        if number == 1:
            check_header(line, self._file.path)
        elif match := _START.match(line) if line.endswith(b"}\n") else None:
            key, *facts, reserved, request_hash = match.groups()
            try:
                idempotency_key, model = (fact.decode() for fact in facts)
            except UnicodeDecodeError:
                raise malformed(self._file.path, number) from None
            unresolved = Unresolved("", idempotency_key, None, model, _tokens(reserved))
            unresolved.short_hash = short_hash(request_hash)
            self._on_start(key, unresolved)
        elif match := _DONE.match(line) if line.endswith(b"}\n") else None:
            self._on_done(match[1], _tokens(match[2]))
        else:
            self._on_members(members_of(line, self._file.path, number))

    def _on_members(self, members: Mapping[str, Any]) -> None:
        key = members["key"].encode(errors="surrogatepass")
        match members["event"], members.get("billed"):
            case "start", _:
                model, idempotency_key = members.get("model"), members.get("idempotency_key")
                unresolved = Unresolved("", idempotency_key, None, model if isinstance(model, str) else "")
                unresolved.reserved = count(members.get("reserved"))
                unresolved.short_hash = short_hash(members.get("request_hash"))
                self._on_start(key, unresolved)
            case "done", _:
                self._on_done(key, count(members.get("tokens_used")))
            case "invalid", _:
                self._on_invalid(key, count(members.get("tokens_used")))
            case "failed", "no":
                self._on_not_billed(key)
            case (("failed" | "pending"), _):
                self._on_unresolved(key, usable_id(members.get("id")), has_response=bool(_response_in(members)))
            case _:
                pass  # of a later version

    # A request is done once: what a damaged or edited file has after that cannot make it one that is sent again. Only
    # another request with the same key can follow.

    def _on_start(self, key: bytes, unresolved: Unresolved) -> None:
        digest = digest_of(key)
        number = self._index[digest]
        if number & STATUS_BITS == KeyStatus.DONE:
            if not is_changed(number, unresolved.short_hash):
                return
            unresolved.done_before = number
            self.done_left -= 1
        if self._invalid and is_changed(number, unresolved.short_hash):
            self._invalid.pop(digest, None)  # they are of another request
        unresolved.key, unresolved.earlier = _text(key), self._unresolved.get(digest)
        self.has_hashes = self.has_hashes or unresolved.short_hash > 0
        self._index[digest] = unresolved.short_hash << HASH_SHIFT | KeyStatus.UNRESOLVED
        self._unresolved[digest] = unresolved

    def _on_done(self, key: bytes, tokens: int | None) -> None:
        digest = digest_of(key)
        if self._status_of(digest) == KeyStatus.DONE:
            return
        self._set_status(digest, KeyStatus.DONE)
        if self._offsets is not None:
            self._offsets[digest] = self._file.offset
        self.done_left += 1
        self._invalid.pop(digest, None)
        self._bill(digest, tokens)

    def _on_invalid(self, key: bytes, tokens: int | None) -> None:
        digest = digest_of(key)
        if self._status_of(digest) == KeyStatus.DONE:
            return
        self._set_status(digest, KeyStatus.INVALID)
        self._invalid.setdefault(digest, []).append(self._file.offset)
        self._bill(digest, tokens)

    def _bill(self, digest: int, tokens: int | None) -> None:
        """Record that the last request of a key cost so many *tokens*, None if that is unknown."""
        unresolved = self._unresolved.pop(digest, None)
        if unresolved is not None and unresolved.earlier is not None:
            self._superseded.append(unresolved.earlier)  # the cost of that one stays unknown
            unresolved.earlier = None
        if tokens is not None:
            self.spent += tokens
            if unresolved is not None:
                self.prices[unresolved.model] = max(tokens, self.prices.get(unresolved.model, 0))
        elif unresolved is not None:
            self._superseded.append(unresolved)  # the API did not report its cost

    def _on_not_billed(self, key: bytes) -> None:
        """Record that *key* was not billed the last time it was sent, which settles no earlier time."""
        digest = digest_of(key)
        if self._status_of(digest) == KeyStatus.DONE:
            return
        unresolved = self._unresolved.pop(digest, None)
        if unresolved is not None and unresolved.earlier is not None:
            earlier = self._unresolved[digest] = unresolved.earlier
            self._index[digest] = earlier.short_hash << HASH_SHIFT | earlier.status
        elif unresolved is not None and unresolved.done_before:
            self._index[digest] = unresolved.done_before
            self.done_left += 1
        else:
            self._set_status(digest, KeyStatus.INVALID if digest in self._invalid else KeyStatus.FAILED)

    def _on_unresolved(self, key: bytes, generation_id: GenerationId | None, *, has_response: bool) -> None:
        digest = digest_of(key)
        if self._status_of(digest) == KeyStatus.DONE:
            return
        unresolved = self._unresolved.setdefault(digest, Unresolved(_text(key)))
        unresolved.generation_id = generation_id
        if has_response:
            unresolved.offset = self._file.offset
        self._set_status(digest, unresolved.status)

    def _status_of(self, digest: int) -> int:
        return self._index[digest] & STATUS_BITS

    def _set_status(self, digest: int, status: KeyStatus) -> None:
        self._index[digest] = self._index[digest] & ~STATUS_BITS | status

    # ----------------------------------------------------------------------------------------------------------- keys

    @property
    def unresolved_keys(self) -> tuple[str, ...]:
        """The keys that an earlier run sent, and that have no outcome and no id to retrieve it."""
        return tuple(one.key for one in self._unresolved.values() if one.status is KeyStatus.UNRESOLVED)

    @property
    def unresolved(self) -> Iterator[Unresolved]:
        """All requests that earlier runs may have been billed for without a response."""
        for last in itertools.chain(self._unresolved.values(), self._superseded):
            one: Unresolved | None = last
            while one is not None:
                yield one
                one = one.earlier

    def response_of(self, unresolved: Unresolved) -> tuple[str, bytes]:
        """Return what had arrived of the response of *unresolved*: a text, or else a part of its body."""
        one: Unresolved | None = unresolved
        while one is not None and one.offset is None:
            one = one.earlier
        if one is None or one.offset is None:
            return "", b""
        try:
            text, body = _response_in(members_of(self._file.line_at(one.offset), self._file.path, 0)) or ("", "")
        except JournalError:  # it was readable when the journal was opened
            return "", b""
        return text, body.encode(errors="replace")

    def has_response(self, key: str) -> bool:
        """Whether there is a part of the response to *key*, which this run has not claimed."""
        one = self._unresolved.get(digest_of(key.encode(errors="surrogatepass")))
        return one is not None and one.offset is not None

    def status_of(self, key: str) -> KeyStatus:
        """Return the state in which earlier runs left *key*, without claiming it."""
        return KeyStatus(self._status_of(digest_of(key.encode(errors="surrogatepass"))))

    def has_changed(self, key: str, request_hash: str) -> bool:
        """Return whether earlier runs sent another request with *key*, and were or may have been billed for it."""
        number = self._index[digest_of(key.encode())]
        return number & STATUS_BITS in BILLED and is_changed(number, short_hash(request_hash))

    def done_entry(self, key: str) -> JournalEntry:
        """Return the last ``"done"`` entry of *key* that an earlier run wrote. Raises `JournalError`."""
        offset = 0 if self._offsets is None else self._offsets[digest_of(key.encode())]
        return entry_of(self._file.line_at(offset), self._file.path, 0)

    def entries_at(self, offsets: Iterable[int]) -> tuple[JournalEntry, ...]:
        """Return the entries in the lines at *offsets*. Raises `JournalError`."""
        return tuple(entry_of(self._file.line_at(offset), self._file.path, 0) for offset in offsets)

    def number(self, key: str) -> str:
        """Return *key*, which this run has claimed already, with a number appended."""
        numbered, number = numbered_key(key, self._is_claimed, last_taken=self._numbers.pop(key, 1))
        self._numbers[key] = number
        if len(self._numbers) > _CACHED_NUMBERS:
            del self._numbers[next(iter(self._numbers))]
        return numbered

    def claim(
        self, key: str, request_hash: str | None
    ) -> tuple[KeyStatus, Unresolved | None, bool, tuple[int, ...]] | None:
        """
        Return the state in which earlier runs left *key*, and whether `has_changed`; None if this run has claimed it.

        Also the offsets of its ``"invalid"`` lines, for `entries_at`. *request_hash*: None for a key that is the hash
        of its request.
        """
        digest = digest_of(key.encode())
        marked = self._index.mark(digest, CLAIMED_BIT)
        if not marked:
            return _NEW
        if marked & CLAIMED_BIT:
            return None
        status = KeyStatus(marked & STATUS_BITS)
        changed = status in BILLED and is_changed(marked, short_hash(request_hash))
        self.done_left -= status is KeyStatus.DONE
        self.pending_left -= status is KeyStatus.PENDING
        return status, self._unresolved.pop(digest, None), changed, tuple(self._invalid.pop(digest, ()))

    def _is_claimed(self, key: str) -> bool:
        return self._index[digest_of(key.encode())] & CLAIMED_BIT != 0

    # -------------------------------------------------------------------------------------------------------- writing

    # A line that the disk refuses is tried again later, except for a start: then the request is not sent.

    def write_start(
        self, key: str, idempotency_key: str, model: str, reserved: int | None, request_hash: str | None = None
    ) -> None:
        """Write that *key* is about to be sent, for *reserved* tokens. Like all methods that write: `JournalError`."""
        self._file.write(journal_lines.start(key, idempotency_key, model, reserved, request_hash))

    def write_pending(self, key: str, generation_id: GenerationId) -> None:
        """Write that the API accepted *key* and has not finished it."""
        self._file.write(journal_lines.pending(key, generation_id), retry=True)

    def write_done(
        self,
        key: str,
        generation: Generation,
        body: bytes,
        *,
        attempts: int,
        elapsed: float,
        tokens_used: int | None,
        is_valid: bool = True,
        tokens_of_invalid: Sequence[int | None] = (),
    ) -> None:
        """
        Write the *generation* of *key*: the bytes of the response in *body* if there are any.

        *is_valid*: whether it is of the output type; *tokens_of_invalid*: the tokens of each one before it, which were
        not.
        """
        line = journal_lines.done(
            key,
            generation,
            body,
            attempts=attempts,
            elapsed=elapsed,
            tokens_used=tokens_used,
            is_valid=is_valid,
            tokens_of_invalid=tokens_of_invalid,
        )
        self._file.write(line, retry=True)

    def write_failed(
        self, key: str, error: NeuralBoxError, generation_id: GenerationId | None, *, attempts: int, elapsed: float
    ) -> None:
        """Write why *key* has no generation, and what had arrived of it; *generation_id* if it was accepted."""
        line = journal_lines.failed(key, error, generation_id, attempts=attempts, elapsed=elapsed)
        self._file.write(line, retry=True)


def _response_in(members: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the text and the body in the *members* of a failure, if there are any."""
    text, body = (value if isinstance(value, str) else "" for value in (members.get("text"), members.get("body")))
    return (text, body) if text or body else None


def _tokens(digits: bytes) -> int | None:
    return None if digits == b"null" or len(digits) > _MAX_DIGITS else count(int(digits))


def _text(key: bytes) -> str:
    return key.decode(errors="replace")
