"""The entries of a journal, one a line, and how to read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async._errors import JournalError, ResponseError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._types import Generation, GenerationId
from neuralbox_async._validation import is_mapping

if TYPE_CHECKING:
    from neuralbox_async._wire import responses
else:
    responses = lazy_module("neuralbox_async._wire.responses")

HEADER: Final = b'{"event":"journal","version":1}\n'
_VERSION: Final = 1


@attrs.frozen(kw_only=True)
class JournalEntry:
    """
    One line of a journal.

    * *event*: ``"start"`` (about to be sent), ``"pending"`` (accepted; *generation_id* identifies it), ``"done"`` or
      ``"failed"``. The last entry of a key has its state; a key is done once.
    * *key*; *at*: the time.
    * *generation*: of ``"done"``. *generation_id*: if it is known.
    * *error_type* (the name of the class), *message*, *billed*: of ``"failed"``.
    * *attempts*, *elapsed*, *tokens_used*: as in `BatchResult`.
    * *idempotency_key*: of ``"start"``; the header that was sent. *model*, *reserved*: of ``"start"``; the model, and
      the tokens that the budget reserved.
    """

    event: str
    key: str
    at: datetime | None = None
    generation: Generation | None = None
    generation_id: GenerationId | None = None
    error_type: str | None = None
    message: str | None = None
    billed: str | None = None
    attempts: int = 0
    elapsed: float = 0.0
    tokens_used: int | None = None
    idempotency_key: str | None = None
    model: str | None = None
    reserved: int | None = None


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalEntry]:
    """
    Read the journal at *path*, entry by entry, also while a batch writes it; a torn last line is left out.

    Raises `JournalError` when it cannot be read or is not a journal.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as lines:  # noqa: PTH123 - a path may be bytes-like to os, and pathlib adds nothing
            for number, line in enumerate(lines, 1):
                if number == 1:
                    check_header(line, name)
                elif line.endswith(b"\n"):
                    yield _entry(members_of(line, name, number), name, number)
    except OSError as error:
        raise unusable(name, error) from error


def unusable(path: str, error: OSError) -> JournalError:
    """Return the error of a journal that the operating system refuses."""
    return JournalError(f"the journal cannot be used: {path}: {error.strerror}", path=path)


def not_a_journal(path: str) -> JournalError:
    """Return the error of another file."""
    return JournalError(f"the file is not a journal of a batch: {path}", path=path, line=1)


def check_header(line: bytes, path: str) -> None:
    """Raise `JournalError` unless *line* begins a journal: another file is neither read nor written."""
    if line == HEADER or HEADER.startswith(line):
        return
    try:
        members = json.loads(line)
    except ValueError:
        members = None
    if not is_mapping(members) or members.get("event") != "journal":
        raise not_a_journal(path)
    if members.get("version") != _VERSION:
        raise JournalError(f"the journal was written by a later version: {path}", path=path, line=1)


def members_of(line: bytes, path: str, number: int) -> Mapping[str, Any]:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        members = None
    if is_mapping(members) and isinstance(members.get("event"), str) and isinstance(members.get("key"), str):
        return members
    raise JournalError(f"line {number} of the journal is malformed: {path}", path=path, line=number)


def _entry(members: Mapping[str, Any], path: str, number: int) -> JournalEntry:
    try:
        raw = members.get("generation")
        generation = None if raw is None else responses.structure_generation(raw)
        at = members.get("at")
        return JournalEntry(
            event=members["event"],
            key=members["key"],
            at=None if at is None else datetime.fromtimestamp(at, UTC),
            generation=generation,
            generation_id=members.get("id") if generation is None else generation.id,
            error_type=members.get("error_type"),
            message=members.get("message"),
            billed=members.get("billed"),
            attempts=members.get("attempts", 0),
            elapsed=members.get("elapsed", 0.0),
            tokens_used=members.get("tokens_used"),
            idempotency_key=members.get("idempotency_key"),
            model=members.get("model"),
            reserved=members.get("reserved"),
        )
    except (ResponseError, TypeError, ValueError, OverflowError, OSError) as error:
        raise JournalError(f"line {number} of the journal is malformed: {path}", path=path, line=number) from error
