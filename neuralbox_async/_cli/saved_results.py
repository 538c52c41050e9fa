"""The results in an output file of an earlier run, as entries of a journal."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from neuralbox_async import Generation, JournalEntry

_GENERATION = ("id", "model", "content", "url", "thumbnail_url", "tokens_used")


def saved_results(path: str | None) -> Iterator[JournalEntry]:
    """
    Yield the results with a text, or a part of a response, in the output at *path*, which may not exist.

    Other failures are left out, and what a crash has left of the last line. Raises `FileExistsError` at any
    other line: the file is not, or not only, the output of a batch, and would be replaced; `OSError`.
    """
    if path is None:
        return
    try:
        file = open(path, "rb")  # noqa: PTH123, SIM115 - one path, one style
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, 1):
            members: object = None
            with suppress(ValueError, RecursionError):
                members = json.loads(line)
            if _is_result(members):
                yield from _result(members)
            elif line.endswith(b"\n") and line.strip(b"\0\r\n\t "):
                message = f"line {number} is not a result of a batch and would be overwritten; choose another output"
                raise FileExistsError(errno.EEXIST, message, path)


def _is_result(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and isinstance(value.get("key"), str)  # pyright: ignore[reportUnknownMemberType]


def _result(members: Mapping[str, Any]) -> Iterator[JournalEntry]:
    facts: dict[str, Any] = {"key": members["key"], "attempts": _count(members.get("attempts"))}
    if isinstance(members.get("content"), str):
        raw = {name: members[name] for name in _GENERATION if members.get(name) is not None}
        tokens_used = members.get("tokens_used")
        yield JournalEntry(
            event="done",
            generation=Generation(content=members["content"], raw={"status": "completed", **raw}),
            tokens_used=None if tokens_used is None else _count(tokens_used),
            **facts,
        )
    elif members.get("billed") != "no":
        received = {name: members[name] for name in ("text", "body") if isinstance(members.get(name), str)}
        if received:
            yield JournalEntry(event="failed", message=str(members.get("message")), **received, **facts)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
