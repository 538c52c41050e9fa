"""The entries of a journal, one a line, and how to read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async._batch.errors import JournalError
from neuralbox_async._errors import ResponseError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._types import Generation, GenerationId
from neuralbox_async._validation import is_integer, is_mapping, is_number

if TYPE_CHECKING:
    from neuralbox_async._wire import json, responses
else:
    json = lazy_module("neuralbox_async._wire.json")
    responses = lazy_module("neuralbox_async._wire.responses")

HEADER: Final = b'{"event":"journal","version":1}\n'
_HEADER_START: Final = HEADER[:-2]
_VERSION: Final = 1
_MAX_COUNT: Final = 2**63 - 1
_MAX_SECONDS: Final = 250_000_000_000  # in the year 9892: later times cannot be represented


@attrs.frozen(kw_only=True)
class JournalEntry:
    """
    One line of a journal.

    * *event*: ``"start"`` (about to be sent), ``"pending"`` (accepted; *generation_id* identifies it), ``"done"``,
      ``"failed"``, or ``"invalid"`` (generated, but not of the output type; a repair may follow). The last entry of a
      key is its current state; a key is done once.
    * *key*; *at*: the time.
    * *generation*: of ``"done"`` and ``"invalid"``. *generation_id*: if it is known.
    * *error_type* (the name of the class), *message*, *billed*: of ``"failed"``. *text*: generated text that had
      arrived. *body*: the part of a response that had arrived, if no text could be read from it; at most 1 MiB.
    * *attempts*, *elapsed*: as in `BatchResult`. *tokens_used*: NeuralBox tokens billed for this generation;
      *tokens_used_total*: of ``"done"``; also for the invalid ones before it.
    * *idempotency_key*: of ``"start"``; the header that was sent. *model*, *reserved*: of ``"start"``; the model, and
      the tokens that the budget reserved. *request_hash*: of ``"start"``, if the key is the caller's own; of the body.
    """

    event: str
    key: str
    at: datetime | None = None
    generation: Generation | None = None
    generation_id: GenerationId | None = None
    error_type: str | None = None
    message: str | None = None
    billed: str | None = None
    text: str | None = None
    body: str | None = None
    attempts: int = 0
    elapsed: float = 0.0
    tokens_used: int | None = None
    tokens_used_total: int | None = None
    idempotency_key: str | None = None
    model: str | None = None
    reserved: int | None = None
    request_hash: str | None = None


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalEntry]:
    """
    Read the journal at *path*, entry by entry, also while a batch writes it; a torn last line is left out.

    Facts that are malformed, such as a time that is a word, are None in the entry. Raises `JournalError` when the file
    cannot be read, is not a journal, or has a line without event and key or with a malformed generation.
    """
    name = os.fsdecode(path)
    try:
        with open(name, "rb") as lines:  # noqa: PTH123 - a path may be bytes-like to os, and pathlib adds nothing
            for number, line in enumerate(lines, 1):
                if number == 1:
                    check_header(line, name)
                elif line.endswith(b"\n"):
                    yield entry_of(line, name, number)
    except OSError as error:
        raise unusable(name, error) from error
    except ValueError as error:  # the path cannot be one
        raise unusable(name, error) from error


def unusable(path: str, error: OSError | ValueError) -> JournalError:
    """Return the error of a journal that the operating system refuses."""
    reason = getattr(error, "strerror", None) or error
    return JournalError(f"the journal cannot be used: {path}: {reason}", path=path)


def not_a_journal(path: str) -> JournalError:
    """Return the error of another file."""
    return JournalError(f"the file is not a journal of a batch: {path}", path=path, line=1)


def malformed(path: str, number: int) -> JournalError:
    """Return the error of a line that is not an entry; *number*: 0 if it is unknown."""
    name = f"line {number}" if number else "a line"
    return JournalError(f"{name} of the journal is malformed: {path}", path=path, line=number or None)


def header_with(journal_id: str) -> bytes:
    """Return the first line of a journal that has an id, to recognise it by; a journal of one machine has none."""
    return b'%b,"id":"%b"}\n' % (_HEADER_START, journal_id.encode())


def is_torn_header(line: bytes) -> bool:
    """Return whether *line* is the beginning of a first line, or nothing."""
    return HEADER.startswith(line) or (line.startswith(_HEADER_START + b",") and not line.endswith(b"\n"))


def check_header(line: bytes, path: str) -> None:
    """Raise `JournalError` unless *line* begins a journal: another file is neither read nor written."""
    if line == HEADER or is_torn_header(line):
        return
    members = _object(line)
    if members is None or members.get("event") != "journal":
        raise not_a_journal(path)
    if members.get("version") != _VERSION:
        raise JournalError(f"the journal was written by a later version: {path}", path=path, line=1)


def members_of(line: bytes, path: str, number: int) -> Mapping[str, Any]:
    """Return the members of the entry in *line*. Raises `JournalError`, with the *number* of the line."""
    members = _object(line)
    if members is None or not isinstance(members.get("event"), str) or not isinstance(members.get("key"), str):
        raise malformed(path, number)
    return members


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return members if is_mapping(members) else None


def entry_of(line: bytes, path: str, number: int) -> JournalEntry:
    """Return the entry in *line*. Raises `JournalError`, with the *number* of the line."""
    members = members_of(line, path, number)
    raw = members.get("generation")
    generation = None if raw is None else _generation(raw, path, number)
    tokens_used = count(members.get("tokens_used"))
    return JournalEntry(
        event=members["event"],
        key=members["key"],
        at=_time(members.get("at")),
        generation=generation,
        generation_id=_id(members.get("id")) if generation is None else generation.id,
        error_type=_text(members.get("error_type")),
        message=_text(members.get("message")),
        billed=_text(members.get("billed")),
        text=_text(members.get("text")),
        body=_text(members.get("body")),
        attempts=count(members.get("attempts")) or 0,
        elapsed=_seconds(members.get("elapsed")) or 0.0,
        tokens_used=tokens_used,
        tokens_used_total=count(members["tokens_used_total"]) if "tokens_used_total" in members else tokens_used,
        idempotency_key=_text(members.get("idempotency_key")),
        model=_text(members.get("model")),
        reserved=count(members.get("reserved")),
        request_hash=_text(members.get("request_hash")),
    )


def _generation(raw: object, path: str, number: int) -> Generation:
    if not is_mapping(raw):
        raise malformed(path, number)
    try:
        return responses.structure_generation(raw)
    except (ResponseError, RecursionError) as error:
        raise malformed(path, number) from error


# A file may be damaged, and a user may have edited it: a fact of another type than ours is unknown.


def count(value: object) -> int | None:
    """Return *value* if it is a number of tokens or attempts, at most of 64 bits."""
    return value if is_integer(value) and 0 <= value <= _MAX_COUNT else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _id(value: object) -> GenerationId | None:
    return value if isinstance(value, str) or is_integer(value) else None


def _seconds(value: object) -> float | None:
    return float(value) if is_number(value) and 0 <= value <= _MAX_SECONDS else None


def _time(value: object) -> datetime | None:
    seconds = _seconds(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
