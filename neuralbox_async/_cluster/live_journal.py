"""The journal of a coordinator on a cluster: what it writes counts at once, as if it had been read from the file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

import attrs

from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.journal_entries import entry_of, header_with, unusable
from neuralbox_async._batch.journal_file import JournalFile
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
from neuralbox_async._cluster.messages import JournalMark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from neuralbox_async._types import GenerationId

_ID: Final = re.compile(rb'"id":"([^"\\]+)"')
_CLAIM: Final = re.compile(rb',"claim":"([^"\\]+)"[,}]')
_CLAIM_AT_END: Final = re.compile(rb',"claim":"([^"\\]+)"\}\s*\Z')  # the last line may lack its newline
_MAX_CLAIM: Final = 200  # bytes of it


@attrs.frozen
class JournaledKey:
    """
    What the journal has of a key now.

    *changed*, *invalid*: see `Claim`. *is_own*: whether this coordinator has let its request start.
    """

    status: KeyStatus
    unresolved: Unresolved | None = None
    changed: bool = False
    invalid: tuple[int, ...] = ()
    is_own: bool = False


class _CheckedFile(JournalFile):
    """A file with the *checksum* of its lines; *begins_as* its first lines were, if it *is_expected*."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: bytes,
        take_line: Callable[[bytes, int], None],
        begins_as: JournalMark | None,
    ) -> None:
        super().__init__(path, header, self._take)
        self._take_checked, self._begins_as = take_line, begins_as
        self.is_expected = begins_as is None
        self.checksum = 0
        self._first_line, self._last_line = b"", (0, b"")  # and its offset

    def check(self) -> None:
        """Do the same as `JournalFile.check`. Raises `JournalError` also if the lines of another file are in it."""
        super().check()
        offset, line = self._last_line  # there may be more meanwhile
        if self._has(0, self._first_line) and self._has(offset, line):
            return
        raise JournalError(f"the journal was overwritten while it was in use: {self.path}", path=self.path)

    def _has(self, offset: int, line: bytes) -> bool:
        if sys.platform == "win32":  # it has no call that leaves the position of the file
            return True
        try:
            return os.pread(self._fd, len(line), offset) == line
        except OSError as error:
            raise unusable(self.path, error) from error

    def _take(self, line: bytes, number: int) -> None:
        self._take_checked(line, number)
        self._add(line, self.offset + len(line))

    def _append(self, line: bytes) -> None:
        super()._append(line)
        self._add(line, self.end)

    def _add(self, line: bytes, end: int) -> None:
        self.checksum = crc32(line, self.checksum)
        self._first_line, self._last_line = self._first_line or line, (end - len(line), line)
        if self._begins_as is not None and end == self._begins_as.size:
            self.is_expected = self.checksum == self._begins_as.checksum


class LiveJournal(Journal):
    """
    A journal whose index has each line as soon as it is written.

    A coordinator that is restarted reads the same lines, and so knows the same.

    *begins_as*: what it had before; None if it may be any, or new. *must_exist*: whether it may not be new. *run*: the
    id of this run, for its starts: keys are marked whose requests it has let start; None: no line needs it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        begins_as: JournalMark | None = None,
        must_exist: bool = False,
        run: str | None = None,
    ) -> None:
        super().__init__(path, keep_offsets=True)
        self._begins_as, self._must_exist = begins_as, must_exist or begins_as is not None
        self._id = os.urandom(8).hex()
        self._checked = _CheckedFile(path, header_with(self._id), self._read_line, begins_as)
        self._file: JournalFile = self._checked
        self._writer = os.urandom(8).hex()
        self._size_before = 0  # when it was opened
        self._end_of_own_start = None if run is None else b',"run":"%b"}\n' % run.encode()
        self._is_own_start = False
        self._claim_id: str | None = None

    def open(self) -> Iterator[None]:
        """Do the same as `Journal.open`. Raises `JournalError` also for a file that is not the one of before."""
        if self._must_exist and not Path(self._file.path).exists():
            raise self._other_error()
        yield from super().open()
        self._size_before = self._file.end
        is_other = self._begins_as is not None and self._begins_as.journal != self._id
        if is_other or not self._checked.is_expected:
            raise self._other_error()

    def _other_error(self) -> JournalError:
        path = self._file.path
        return JournalError(f"this node has another journal than the batch, or an older copy: {path}", path=path)

    @property
    def mark(self) -> JournalMark:
        """What it has now."""
        return JournalMark(self._file.end, self._checked.checksum, self._id, self._writer)

    def check_seen(self, mark: JournalMark) -> None:
        """Raise `JournalError` if it lacks lines that a worker has *seen* the mark of, from an earlier coordinator."""
        if mark.writer != self._writer and (mark.journal != self._id or mark.size > self._size_before):
            raise self._other_error()

    def _read_line(self, line: bytes, number: int) -> None:
        if number == 1:
            self._id = found[1].decode() if (found := _ID.search(line)) else ""
        is_start = line.startswith(b'{"event":"start"')
        end = self._end_of_own_start
        self._is_own_start = is_start and end is not None and line.rstrip().endswith(end[:-1])
        # A response of the server comes before the end.
        found = _CLAIM.search(line) if is_start else _CLAIM_AT_END.search(line[-_MAX_CLAIM:])
        self._claim_id = found[1].decode() if found else None
        super()._read_line(line, number)

    def _on_start(self, key: bytes, unresolved: Unresolved) -> None:
        unresolved.claim_id = self._claim_id
        super()._on_start(key, unresolved)
        if self._is_own_start:
            self._index.mark(digest_of(key), CLAIMED_BIT)
        if unresolved.reserved is not None:  # the price that was quoted, which a bill may be lower than
            self.prices[unresolved.model] = max(unresolved.reserved, self.prices.get(unresolved.model, 0))

    # Of the requests of a key that have no outcome, an outcome belongs to the one that its line names. That one may be
    # superseded: another request brought a generation before. Or its start is missing; then it settles no other one.

    def _on_done(self, key: bytes, tokens: int | None) -> None:
        self._choose(key, tokens)
        super()._on_done(key, tokens)

    def _on_invalid(self, key: bytes, tokens: int | None) -> None:
        self._choose(key, tokens)
        super()._on_invalid(key, tokens)

    def _on_not_billed(self, key: bytes) -> None:
        if not self._lacks_start(key):
            self._choose(key, 0)
            super()._on_not_billed(key)

    def _on_unresolved(self, key: bytes, generation_id: GenerationId | None, *, has_response: bool) -> None:
        digest = digest_of(key)
        settled = self.settled_request(_text(key), self._claim_id, None)
        if self._lacks_start(key) or (settled is not None and not _has(self._unresolved.get(digest), settled)):
            return  # one that is superseded may be billed, as before, and what the key has is better
        if settled is not None:
            self._put_last(digest, settled)
        super()._on_unresolved(key, generation_id, has_response=has_response)

    def _lacks_start(self, key: bytes) -> bool:
        """Return whether the line names a request that the journal lacks, of a key that has others."""
        is_other = self._claim_id is not None and digest_of(key) in self._unresolved
        return is_other and self.settled_request(_text(key), self._claim_id, 0) is None

    def _choose(self, key: bytes, tokens: int | None) -> None:
        """Make the request that the line names the last one of *key*; if the key is done, record its *tokens*."""
        digest = digest_of(key)
        settled = self.settled_request(_text(key), self._claim_id, tokens)
        if self._lacks_start(key):
            settled = Unresolved(_text(key), model=self._unresolved[digest].model, claim_id=self._claim_id)
        if settled is None:
            return
        if self._status_of(digest) != KeyStatus.DONE:
            self._put_last(digest, settled)
        elif tokens is not None:
            self._take_superseded(settled)
            spent: int = self.spent
            self.spent = spent + tokens
            self.prices[settled.model] = max(tokens, self.prices.get(settled.model, 0))

    def _put_last(self, digest: int, chosen: Unresolved) -> None:
        last = self._unresolved.get(digest)
        if last is chosen:
            return
        if last is None or not _has(last, chosen):
            self._take_superseded(chosen)
            chosen.earlier, chosen.done_before = last, 0
        else:
            later = last
            while later.earlier is not None and later.earlier is not chosen:
                later = later.earlier
            later.earlier, chosen.earlier = chosen.earlier, last
            if chosen.done_before:  # it belongs to the first one
                later.done_before, chosen.done_before = chosen.done_before, 0
        self._unresolved[digest] = chosen

    def _take_superseded(self, taken: Unresolved) -> None:
        others: list[Unresolved] = []
        for chain in self._superseded:
            one: Unresolved | None = chain
            while one is not None:
                following, one.earlier = one.earlier, None
                if one is not taken:
                    others.append(one)
                one = following
        self._superseded = others

    def _bill(self, digest: int, tokens: int | None) -> None:
        settled = self._unresolved.get(digest)
        super()._bill(digest, tokens)
        if settled is not None:
            settled.has_outcome = True

    def state_of(self, key: str, request_hash: str | None) -> JournaledKey:
        """Return what it has of *key*, which is now for a request with *request_hash*."""
        digest = digest_of(key.encode())
        number = self._index[digest]
        status = KeyStatus(number & STATUS_BITS)
        changed = status in BILLED and is_changed(number, short_hash(request_hash))
        is_own = number & CLAIMED_BIT != 0
        return JournaledKey(status, self._unresolved.get(digest), changed, tuple(self._invalid.get(digest, ())), is_own)

    def started_request(self, key: str, claim_id: str | None) -> Unresolved | None:
        """
        Return the request of *key* whose start names *claim_id* (None: no claim) and whose bill is not known.

        Another request may have brought a generation.
        """
        digest = digest_of(key.encode())
        if (found := _find(self._unresolved.get(digest), claim_id)) is not None or not self._index[digest]:
            return found
        superseded = (_find(chain, claim_id) for chain in self._superseded if chain.key == key)
        return next((one for one in superseded if one is not None), None)

    def settled_request(self, key: str, claim_id: str | None, tokens: int | None) -> Unresolved | None:
        """
        Return the request of *key* that an outcome for *claim_id* settles; None if it has its outcome.

        It is among those without an outcome, or another one has brought a generation. *tokens*: of the outcome; None:
        unknown, which is no news of a request that has an outcome with an unknown bill.
        """
        found = self.started_request(key, claim_id)
        if found is not None and not (found.has_outcome and tokens is None):
            return found
        return _without_start(self._unresolved.get(digest_of(key.encode())))

    def done_line(self, key: str) -> bytes:
        """Return the line with the generation of *key*; ``b""`` if it cannot be read."""
        if self._offsets is None:
            raise AssertionError("a live journal keeps offsets")
        return self._file.line_at(self._offsets[digest_of(key.encode())])

    def has_invalid(self, key: str, line: bytes) -> bool:
        """Return whether an ``"invalid"`` line of *key* has the generation of *line*."""
        lines = self.lines_at(self._invalid.get(digest_of(key.encode()), ()))
        return any(_generation_in(line) == _generation_in(one) for one in lines)

    def lines_at(self, offsets: Iterable[int]) -> tuple[bytes, ...]:
        """Return the lines at *offsets*."""
        return tuple(self._file.line_at(offset) for offset in offsets)

    def append_outcome(self, line: bytes, key: str, claim_id: str) -> None:
        """
        Write the *line* of an outcome of *key*, for *claim_id*, with the time of now, and apply it.

        Raises `JournalError`.
        """
        line = journal_lines.stamped(line)
        last = self._unresolved.get(digest_of(key.encode()))
        is_only = last is not None and last.earlier is None and last.claim_id is None and last.is_of_claim(claim_id)
        if not is_only:
            line = _with_claim(line, claim_id)
        self._append(line, retry=True)

    def _append(self, line: bytes, *, retry: bool = False) -> None:
        self._file.write(line, retry=retry)
        self._file.offset = self._file.end - len(line)
        self._read_line(line, 0)

    def append_start(
        self,
        key: str,
        idempotency_key: str,
        model: str,
        reserved: int | None,
        request_hash: str | None,
        *,
        claim_id: str,
    ) -> None:
        """Write that *key* is about to be sent for the claim *claim_id*. Raises `JournalError`."""
        line = journal_lines.start(key, idempotency_key, model, reserved, request_hash)
        # What a coordinator that replaces this one cannot know otherwise.
        if claim_id != idempotency_key:
            line = _with_claim(line, claim_id)
        if self._end_of_own_start is not None:
            line = line[:-2] + self._end_of_own_start
        self._append(line)


def _generation_in(line: bytes) -> tuple[object, ...]:
    try:
        generation = entry_of(line, "", 0).generation
    except JournalError:  # a user has edited it
        return ()
    return () if generation is None else (generation.id, generation.content)


def _with_claim(line: bytes, claim_id: str) -> bytes:
    return b'%b,"claim":"%b"}\n' % (line[:-2], claim_id.encode())


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _requests(chain: Unresolved | None) -> Iterator[Unresolved]:
    while chain is not None:
        yield chain
        chain = chain.earlier


def _has(chain: Unresolved | None, request: Unresolved) -> bool:
    return any(one is request for one in _requests(chain))


def _find(chain: Unresolved | None, claim_id: str | None) -> Unresolved | None:
    """Return the request in *chain* that was sent for *claim_id*; None: that its line names no claim."""
    if claim_id is not None:
        return next((one for one in _requests(chain) if one.is_of_claim(claim_id)), None)
    if chain is None or chain.claim_id is None:
        return chain
    # A run without a cluster sends a request, which is the last one then, or asks for one that is pending.
    pending = (one for one in _requests(chain) if one.status is KeyStatus.PENDING)
    return next(pending, None) or next((one for one in _requests(chain) if one.claim_id is None), None)


def _without_start(chain: Unresolved | None) -> Unresolved | None:
    """Return the pending request in *chain* whose start is missing: whoever asks for it uses a claim of its own."""
    pending = (one for one in _requests(chain) if one.status is KeyStatus.PENDING)
    return next((one for one in pending if one.idempotency_key is None and one.claim_id is None), None)
