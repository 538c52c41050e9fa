"""The output of a batch: one line of JSON for each key, the same from this run as from the journal."""

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
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.terminal import TextWriter

_LINES_PER_WRITE: Final = 500
_OFFSET_BITS: Final = 48
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


class Output:
    """
    The lines of the file *path*, or of stdout for None.

    `open` replaces a regular file atomically; then lines are only appended.
    """

    def __init__(self, path: str | None) -> None:
        # A symbolic link stays; its target is replaced.
        self.path = None if path is None else os.path.realpath(path)
        self._file: BinaryIO | None = None
        self._stdout = TextWriter() if path is None else None

    @property
    def is_terminal(self) -> bool:
        """Whether the lines are shown at a terminal."""
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
        """Whether replacing it would lose nothing."""
        return self.path is None or not os.path.exists(self.path) or os.path.getsize(self.path) == 0  # noqa: PTH110, PTH202

    def open(self, lines: Iterable[str]) -> None:
        """Replace the content by *lines*."""
        if self.path is None:
            self._write_all(lines)
        elif self.is_regular:
            self._replace(self.path, lines)
        else:
            self._file = open(self.path, "wb", buffering=0)  # noqa: PTH123, SIM115 - open until `close`
            self._write_all(lines)

    def write(self, lines: Iterable[str]) -> None:
        """Append *lines*. When it returns, the operating system has them."""
        text = "".join(lines)
        if self._stdout is not None:
            self._stdout.write(text)
        elif self._file is not None:
            rest = memoryview(_encoded(text))
            while rest:  # a pipe may accept a part only
                rest = rest[self._file.write(rest) :]

    def sort(self) -> None:
        """Sort the lines of a regular file in the order of the rows. Keeps only the offsets of lines in memory."""
        if self.path is not None and self.is_regular:
            self.close()
            with open(self.path, "rb") as file:  # noqa: PTH123
                self._replace(self.path, _in_order(file))

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()

    def _replace(self, path: str, lines: Iterable[str | bytes]) -> None:
        temporary = f"{path}.new"
        try:
            with open(temporary, "wb") as file:  # noqa: PTH123
                file.writelines(line if isinstance(line, bytes) else _encoded(line) for line in lines)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                os.remove(temporary)  # noqa: PTH107
            raise
        self._file = open(path, "ab", buffering=0)  # noqa: PTH123, SIM115 - open until `close`

    def _write_all(self, lines: Iterable[str]) -> None:
        chunk: list[str] = []
        for line in lines:
            chunk.append(line)
            if len(chunk) == _LINES_PER_WRITE:
                self.write(chunk)
                chunk.clear()
        self.write(chunk)


def _in_order(file: BinaryIO) -> Iterator[bytes]:
    positions: list[int] = []
    offset = 0
    for line in file:
        # Line number and offset in one integer: a million pairs would need twice the memory.
        positions.append(json.loads(line)["line"] << _OFFSET_BITS | offset)
        offset += len(line)
    positions.sort()
    for position in positions:
        file.seek(position & ((1 << _OFFSET_BITS) - 1))
        yield file.readline()


def has_entries(journal: str) -> bool:
    """Return whether the file *journal* has entries. Raises `JournalError` when it is not a journal."""
    if not os.path.exists(journal):  # noqa: PTH110
        return False
    return next(read_journal(journal), None) is not None


def completed_lines(journal: str, rows: InputRows) -> Iterator[str]:
    """Yield the lines of those *rows* that *journal* has as done. Raises `JournalError`."""
    for entry in read_journal(journal):
        if entry.event == "done" and entry.generation is not None and (line := rows.line_of(entry.key)):
            yield _completed_line(entry, entry.generation, line)


def result_line(result: BatchResult, rows: InputRows) -> str:
    """Return the line of *result*, which belongs to one of *rows*."""
    line = rows.line_of(result.key)
    if result.generation is not None:
        return _completed_line(result, result.generation, line)
    error = result.error
    return _line(
        key=result.key,
        line=line,
        error_type=type(error).__name__,
        message="" if error is None else printable_line(error.message),
        billed=None if error is None else error.billed,
        model=None if result.request is None else result.request.model,
        id=None if error is None else error.generation_id,
        tokens_used=result.tokens_used,
        attempts=result.attempts,
        elapsed=round(result.elapsed, 3),
    )


def _completed_line(result: BatchResult | JournalEntry, generation: Generation, line: int | None) -> str:
    files = {"url": generation.url, "thumbnail_url": generation.thumbnail_url}
    return _line(
        key=result.key,
        line=line,
        content=generation.content,
        **{name: url for name, url in files.items() if url is not None},
        model=generation.model,
        id=generation.id,
        tokens_used=generation.tokens_used,
        attempts=result.attempts,
        elapsed=round(result.elapsed, 3),
    )


def _line(**members: Any) -> str:
    return _encode(members) + "\n"


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which the escapes of JSON can carry
        return "".join(json.dumps(json.loads(line)) + "\n" for line in text.split("\n") if line).encode()
