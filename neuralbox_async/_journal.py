"""
The journal of a batch: an append-only file of JSON lines that knows what was sent and what became of it.

A line is written, whole and by one system call, before a request is sent and when its outcome is known; so a process
that is killed loses nothing that it wrote, and leaves at most one torn line, the last. Opening cuts that off. What is
known of each key is kept in a compact index; the texts are not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async import _codec
from neuralbox_async._errors import JournalError, JournalLockedError, ResponseError
from neuralbox_async._keys import KeyIndex, digest_of
from neuralbox_async._types import Generation, GenerationId, is_mapping

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError

_HEADER: Final = b'{"event":"journal","version":1}\n'
_VERSION: Final = 1
_LINES_AT_ONCE: Final = 2000
_NUMBERED: Final = 1000
_dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: it is costly
_quoted: Final = json.encoder.encode_basestring
_LOCKED_BYTE: Final = 1 << 40  # on Windows, where a lock is on bytes; no journal is so long

# What is written most is known by its beginning; everything else, and what a user edited, is parsed.
_START: Final = re.compile(
    rb'\{"event":"start","key":"([^"\\]+)","idempotency_key":"([^"\\]+)","model":"([^"\\]+)","reserved":(\d+|null)'
)
_DONE: Final = re.compile(
    rb'\{"event":"done","key":"([^"\\]+)","at":[\d.]+,"attempts":\d+,"seconds":[\d.]+,"tokens":(\d+|null)'
)

# What the index says of a key.
NEW, IN_DOUBT, DONE, FAILED, PENDING = 0, 1, 2, 3, 4
_SEEN = 0x80  # in this run


@attrs.frozen(kw_only=True)
class JournalEntry:
    """
    One line of a journal.

    * *event*: ``"start"`` (about to be sent), ``"pending"`` (accepted; *generation_id* finds it), ``"done"`` or
      ``"failed"``. The last entry of a key tells how it stands; a key is done once.
    * *key*; *at*: when.
    * *generation*: of ``"done"``. *generation_id*: where it is known.
    * *error* (the name of its class), *message*, *billed*: of ``"failed"``.
    * *attempts*, *seconds*, *tokens*: as in `BatchResult`.
    * *idempotency_key*: of ``"start"``; the header that was sent. *model*, *reserved*: of ``"start"``; what was asked,
      and how many tokens the budget kept for it.
    """

    event: str
    key: str
    at: datetime | None = None
    generation: Generation | None = None
    generation_id: GenerationId | None = None
    error: str | None = None
    message: str | None = None
    billed: str | None = None
    attempts: int = 0
    seconds: float = 0.0
    tokens: int | None = None
    idempotency_key: str | None = None
    model: str | None = None
    reserved: int | None = None


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalEntry]:
    """
    Read the journal at *path*, entry by entry, also while a batch writes it; a torn last line is left out.

    Raises `JournalError` when it cannot be read, or is none.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as lines:  # noqa: PTH123 - a path may be bytes-like to os, and pathlib adds nothing
            for number, line in enumerate(lines, 1):
                if number == 1:
                    _check_header(line, name)
                elif line.endswith(b"\n"):
                    yield _entry(_members(line, name, number), name, number)
    except OSError as error:
        raise _unusable(name, error) from error


@attrs.define
class Doubt:
    """A key whose outcome is not known, with what may help to find it."""

    key: str
    idempotency_key: str | None = None
    generation_id: GenerationId | None = None
    model: str = ""
    reserved: int | None = None  # tokens
    earlier: Doubt | None = None  # of the same key, which was sent again all the same: both may be billed


class Journal:
    """The journal that one batch writes. Not for several threads, but for `sync`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = -1
        self._pid = os.getpid()
        self._index = KeyIndex()
        self._doubts: dict[int, Doubt] = {}  # by digest; few
        self._superseded: list[Doubt] = []  # what no outcome of its key settles; fewer
        self.done_left = self.pending_left = 0  # entries of what is done, keys that wait, which this run did not claim
        self.spent = 0  # tokens that earlier runs were told of
        self.prices: dict[str, int] = {}  # the highest of them, by model
        self._numbers: dict[str, int] = {}  # the last that was given, of the keys numbered last
        self.unsynced = False  # whether there is anything that the disk may not have

    # -------------------------------------------------------------------------------------------- opening and closing

    def open(self) -> Iterator[None]:
        """
        Open and lock the file, repair its end and learn what it knows; stops at each yield to let others run.

        Raises `JournalLockedError` and `JournalError`.
        """
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise JournalError(f"the journal must be a regular file: {self.path}", path=self.path)
            self._lock()
            yield from self._scan()
        except OSError as error:
            raise _unusable(self.path, error) from error

    def close(self) -> None:
        """Give the file back. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # A forked child may hold the file open, so that closing alone would keep the lock; the child itself must
            # keep it, because it is its parent's.
            if self._pid == os.getpid():
                with contextlib.suppress(OSError):  # it may not be locked
                    _unlock(fd)
            os.close(fd)

    def sync(self) -> None:
        """Wait until the disk has what was written. Blocks; from any thread, while the journal is open."""
        if self.unsynced:
            self.unsynced = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise _unusable(self.path, error) from error

    def _lock(self) -> None:
        try:
            _lock(self._fd)
        except (BlockingIOError, PermissionError):
            message = f"the journal is in use by another batch: {self.path}"
            raise JournalLockedError(message, path=self.path) from None

    def _scan(self) -> Iterator[None]:
        end, tail = 0, b""
        with open(self._fd, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    tail = line
                elif number == 1:
                    _check_header(line, self.path)
                else:
                    self._take(line, number)
                end += len(line)
                if number % _LINES_AT_ONCE == 0:
                    yield
        self._repair(end, tail)
        self.pending_left = sum(doubt.generation_id is not None for doubt in self._doubts.values())

    def _repair(self, end: int, tail: bytes) -> None:
        """Make the file of *end* bytes, the last of them a line without its end, *tail*, one of whole lines."""
        if end == len(tail):
            if not _HEADER.startswith(tail):
                raise _no_journal(self.path)
            os.ftruncate(self._fd, 0)
            self._append(_HEADER)
        elif tail:
            try:
                self._take_slowly(_members(tail, self.path, 0))
            except JournalError:
                os.ftruncate(self._fd, end - len(tail))
            else:
                self._append(b"\n")  # only that was missing

    def _take(self, line: bytes, number: int) -> None:
        """Learn from one line."""
        if line.endswith(b"}\n"):
            if match := _START.match(line):
                key, idempotency_key, model, reserved = match.groups()
                self._started(key, Doubt("", idempotency_key.decode(), None, model.decode(), _tokens(reserved)))
                return
            if match := _DONE.match(line):
                self._done(match[1], _tokens(match[2]))
                return
        self._take_slowly(_members(line, self.path, number))

    def _take_slowly(self, members: Mapping[str, Any]) -> None:
        key = members["key"].encode(errors="surrogatepass")
        match members["event"], members.get("billed"):
            case "start", _:
                model, reserved = str(members.get("model") or ""), _count(members.get("reserved"))
                self._started(key, Doubt("", members.get("idempotency_key"), None, model, reserved))
            case "done", _:
                self._done(key, _count(members.get("tokens")))
            case "failed", "no":
                self._refused(key)
            case (("failed" | "pending"), _):
                self._doubted(key, members.get("id"))
            case _:
                pass  # of a later version

    def _started(self, key: bytes, doubt: Doubt) -> None:
        digest = digest_of(key)
        doubt.key, doubt.earlier = _text(key), self._doubts.get(digest)
        self._index[digest] = IN_DOUBT
        self._doubts[digest] = doubt

    def _done(self, key: bytes, tokens: int | None) -> None:
        digest = digest_of(key)
        self._index[digest] = DONE
        self.done_left += 1
        doubt = self._doubts.pop(digest, None)
        if doubt is not None and doubt.earlier is not None:
            self._superseded.append(doubt.earlier)  # it stays open what that one cost
            doubt.earlier = None
        if tokens is not None:
            self.spent += tokens
            if doubt is not None:
                self.prices[doubt.model] = max(tokens, self.prices.get(doubt.model, 0))
        elif doubt is not None:
            self._superseded.append(doubt)  # what it cost was not told

    def _refused(self, key: bytes) -> None:
        """Note that *key* was not billed the last time it was sent, which settles no earlier time."""
        digest = digest_of(key)
        doubt = self._doubts.pop(digest, None)
        if doubt is None or doubt.earlier is None:
            self._index[digest] = FAILED
        else:
            self._doubts[digest] = doubt.earlier
            self._index[digest] = _state_of(doubt.earlier)

    def _doubted(self, key: bytes, generation_id: GenerationId | None) -> None:
        digest = digest_of(key)
        doubt = self._doubts.setdefault(digest, Doubt(_text(key)))
        doubt.generation_id = generation_id
        self._index[digest] = _state_of(doubt)

    # ------------------------------------------------------------------------------------------------------- the keys

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keys of what was sent by an earlier run, and has no outcome and no id to ask for it."""
        return tuple(doubt.key for doubt in self._doubts.values() if doubt.generation_id is None)

    @property
    def doubts(self) -> Iterator[Doubt]:
        """All that earlier runs may have been billed for, without knowing."""
        for last in itertools.chain(self._doubts.values(), self._superseded):
            doubt: Doubt | None = last
            while doubt is not None:
                yield doubt
                doubt = doubt.earlier

    def number(self, key: str) -> str:
        """Return *key*, which this run has already, with a number behind it."""
        # All numbers up to the one looked for are taken, and nearly always it is the next one after the last.
        taken = self._numbers.pop(key, 1)
        free = taken + 1
        while self._seen(f"{key}-{free}"):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self._seen(f"{key}-{middle}") else (taken, middle)
        self._numbers[key] = free
        if len(self._numbers) > _NUMBERED:
            del self._numbers[next(iter(self._numbers))]
        return f"{key}-{free}"

    def claim(self, key: str) -> tuple[int, Doubt | None] | None:
        """Return how *key* stood at the beginning, and what is known if in doubt; None if this run has it already."""
        digest = digest_of(key.encode())
        state = self._index.mark(digest, _SEEN)
        if state & _SEEN:
            return None
        self.done_left -= state == DONE
        self.pending_left -= state == PENDING
        return state, self._doubts.pop(digest, None)

    def _seen(self, key: str) -> bool:
        return self._index[digest_of(key.encode())] & _SEEN != 0

    # -------------------------------------------------------------------------------------------------------- writing

    def start(self, key: str, idempotency_key: str, model: str, reserved: int | None) -> None:
        """Write that *key* is about to be sent, for *reserved* tokens. Like all that writes, raises `JournalError`."""
        asked = f'"idempotency_key":{_quoted(idempotency_key)},"model":{_quoted(model)}'
        kept = f'"reserved":{"null" if reserved is None else reserved},"at":{_now()}'
        self._write(f'{{"event":"start","key":{_quoted(key)},{asked},{kept}}}\n'.encode())

    def pending(self, key: str, generation_id: GenerationId) -> None:
        """Write that the API accepted *key* and is not finished with it."""
        self._write(_encoded({"event": "pending", "key": key, "at": _now(), "id": generation_id}) + b"\n")

    def done(
        self, key: str, generation: Generation, body: bytes, *, attempts: int, seconds: float, tokens: int | None
    ) -> None:
        """Write the *generation* of *key*: as the API told it in *body*, if that is known and of one line."""
        told = "null" if tokens is None else tokens
        facts = f'"at":{_now()},"attempts":{attempts},"seconds":{seconds:.3f},"tokens":{told}'
        beginning = f'{{"event":"done","key":{_quoted(key)},{facts},"generation":'.encode()
        if body[:1] != b"{" or b"\n" in body or body[-1:] != b"}":
            body = _encoded(generation.raw)
        self._write(b"%b%b}\n" % (beginning, body))

    def failed(self, key: str, error: NeuralBoxError, generation_id: GenerationId | None, **facts: object) -> None:
        """Write why *key* has no generation; *generation_id* finds it all the same."""
        known = {} if generation_id is None else {"id": generation_id}
        told = {"error": type(error).__name__, "message": error.message, "billed": error.billed}
        self._write(_encoded({"event": "failed", "key": key, "at": _now(), **facts, **told, **known}) + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            self._append(line)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _append(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        self.unsynced = True
        if written < len(line):  # the disk is about to be full
            try:
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)  # only the last line may be torn
                raise


def _state_of(doubt: Doubt) -> int:
    return IN_DOUBT if doubt.generation_id is None else PENDING


def _encoded(members: Mapping[str, object]) -> bytes:
    try:
        return _dumps(members).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON's escapes can carry
        return json.dumps(members).encode()


def _tokens(digits: bytes) -> int | None:
    return None if digits == b"null" else int(digits)


def _count(value: Any) -> int | None:
    """Return *value*, which anybody may have written, if it counts tokens."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _now() -> float:
    return round(time.time(), 3)


def _lock(fd: int) -> None:
    """Lock the file for this process, without waiting. Raises `BlockingIOError` or, on Windows, `PermissionError`."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)


def _unusable(path: str, error: OSError) -> JournalError:
    return JournalError(f"the journal cannot be used: {path}: {error.strerror}", path=path)


def _no_journal(path: str) -> JournalError:
    return JournalError(f"not the journal of a batch: {path}", path=path, line=1)


def _check_header(line: bytes, path: str) -> None:
    """Raise `JournalError` unless *line* begins a journal: another file is neither read nor written."""
    if line == _HEADER or _HEADER.startswith(line):
        return
    try:
        members = json.loads(line)
    except ValueError:
        members = None
    if not is_mapping(members) or members.get("event") != "journal":
        raise _no_journal(path)
    if members.get("version") != _VERSION:
        raise JournalError(f"the journal was written by a later version: {path}", path=path, line=1)


def _members(line: bytes, path: str, number: int) -> Mapping[str, Any]:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        members = None
    if is_mapping(members) and isinstance(members.get("event"), str) and isinstance(members.get("key"), str):
        return members
    raise JournalError(f"line {number} of the journal makes no sense: {path}", path=path, line=number)


def _entry(members: Mapping[str, Any], path: str, number: int) -> JournalEntry:
    try:
        raw = members.get("generation")
        generation = None if raw is None else _codec.structure_generation(raw)
        at = members.get("at")
        return JournalEntry(
            event=members["event"],
            key=members["key"],
            at=None if at is None else datetime.fromtimestamp(at, UTC),
            generation=generation,
            generation_id=members.get("id") if generation is None else generation.id,
            error=members.get("error"),
            message=members.get("message"),
            billed=members.get("billed"),
            attempts=members.get("attempts", 0),
            seconds=members.get("seconds", 0.0),
            tokens=members.get("tokens"),
            idempotency_key=members.get("idempotency_key"),
            model=members.get("model"),
            reserved=members.get("reserved"),
        )
    except (ResponseError, TypeError, ValueError, OverflowError, OSError) as error:
        raise JournalError(f"line {number} of the journal makes no sense: {path}", path=path, line=number) from error
