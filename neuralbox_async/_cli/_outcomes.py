"""What a batch writes: one line of JSON for each key, the same whether it comes from this run or from the journal."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

from neuralbox_async import BatchResult, Generation, JournalEntry, read_journal
from neuralbox_async._cli._failures import one_line
from neuralbox_async._cli._rows import Rows
from neuralbox_async._cli._terminal import Page

_LINES_AT_ONCE: Final = 500
_OFFSET_BITS: Final = 48
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


class Output:
    """
    Where the lines go: to the file *path*, or to stdout for None.

    A regular file is replaced, whole and at once, by `begin`, and then only grows.
    """

    def __init__(self, path: str | None) -> None:
        # Where a link points to is what is replaced, not the link.
        self.path = None if path is None else os.path.realpath(path)
        self._file: BinaryIO | None = None
        self._page = Page() if path is None else None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody reads it right now, line by line."""
        return self.path is None and sys.stdout.isatty()

    @property
    def is_regular(self) -> bool:
        """Whether it is, or will be, a file that can be replaced: not stdout, a pipe or a device."""
        if self.path is None:
            return False
        try:
            return stat.S_ISREG(os.stat(self.path).st_mode)  # noqa: PTH116 - one path, one style
        except FileNotFoundError:
            return True

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost by replacing it."""
        return self.path is None or not os.path.exists(self.path) or os.path.getsize(self.path) == 0  # noqa: PTH110, PTH202

    def begin(self, lines: Iterable[str]) -> None:
        """Write *lines*, in place of all that was there."""
        if self.path is None:
            self._write_all(lines)
        elif self.is_regular:
            self._replace(self.path, lines)
        else:
            self._file = open(self.path, "wb", buffering=0)  # noqa: PTH123, SIM115 - open until `close`
            self._write_all(lines)

    def write(self, lines: Iterable[str]) -> None:
        """Add *lines*, each whole, before it returns."""
        text = "".join(lines)
        if self._page is not None:
            self._page.write(text)
        elif self._file is not None:
            rest = memoryview(_encoded(text))
            while rest:  # a pipe may take less than all
                rest = rest[self._file.write(rest) :]

    def sort(self) -> None:
        """Bring the lines of a regular file into the order of the rows. Only the places of lines are kept in memory."""
        if self.path is not None and self.is_regular:
            self.close()
            with open(self.path, "rb") as file:  # noqa: PTH123
                self._replace(self.path, _in_order(file))

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()

    def _replace(self, path: str, lines: Iterable[str | bytes]) -> None:
        fresh = f"{path}.new"
        try:
            with open(fresh, "wb") as file:  # noqa: PTH123
                file.writelines(line if isinstance(line, bytes) else _encoded(line) for line in lines)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                shutil.copymode(path, fresh)
            os.replace(fresh, path)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                os.remove(fresh)  # noqa: PTH107
            raise
        self._file = open(path, "ab", buffering=0)  # noqa: PTH123, SIM115 - open until `close`

    def _write_all(self, lines: Iterable[str]) -> None:
        some: list[str] = []
        for line in lines:
            some.append(line)
            if len(some) == _LINES_AT_ONCE:
                self.write(some)
                some.clear()
        self.write(some)


def _in_order(file: BinaryIO) -> Iterator[bytes]:
    places: list[int] = []
    offset = 0
    for line in file:
        # One number for both: a million pairs would take twice the memory.
        places.append(json.loads(line)["line"] << _OFFSET_BITS | offset)
        offset += len(line)
    places.sort()
    for place in places:
        file.seek(place & ((1 << _OFFSET_BITS) - 1))
        yield file.readline()


def knows_anything(journal: str) -> bool:
    """Return whether there is an entry in the file *journal*. Raises `JournalError` when it is no journal."""
    if not os.path.exists(journal):  # noqa: PTH110
        return False
    return next(read_journal(journal), None) is not None


def lines_done(journal: str, rows: Rows) -> Iterator[str]:
    """Return the lines of what *journal* has as done, of *rows*. Raises `JournalError`."""
    for entry in read_journal(journal):
        if entry.event == "done" and entry.generation is not None and (line := rows.line_of(entry.key)):
            yield _done_line(entry, entry.generation, line)


def line_of(result: BatchResult, rows: Rows) -> str:
    """Return the line of *result*, which is of one of *rows*."""
    line = rows.line_of(result.key)
    if result.generation is not None:
        return _done_line(result, result.generation, line)
    error = result.error
    return _line(
        key=result.key,
        line=line,
        error="" if error is None else one_line(error.message),
        kind=type(error).__name__,
        billed=None if error is None else error.billed,
        model=None if result.request is None else result.request.model,
        id=None if error is None else error.generation_id,
        tokens_used=result.tokens_used,
        attempts=result.attempts,
        seconds=round(result.elapsed, 3),
    )


def _done_line(outcome: BatchResult | JournalEntry, generation: Generation, line: int | None) -> str:
    files = {"url": generation.url, "thumbnail_url": generation.thumbnail_url}
    return _line(
        key=outcome.key,
        line=line,
        content=generation.content,
        **{name: url for name, url in files.items() if url is not None},
        model=generation.model,
        id=generation.id,
        tokens_used=generation.tokens_used,
        attempts=outcome.attempts,
        seconds=round(outcome.seconds, 3),
    )


def _line(**members: Any) -> str:
    return _encode(members) + "\n"


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which the API's own JSON can carry
        return "".join(json.dumps(json.loads(line)) + "\n" for line in text.split("\n") if line).encode()
