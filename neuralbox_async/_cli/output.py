"""The output of a batch: one line of JSON for each key, the same from this run as from the journal."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from neuralbox_async import (
    APIConnectionError,
    BatchResult,
    Generation,
    JournalEntry,
    NeuralBoxError,
    OutcomeUnknownError,
    ParsingError,
    ResponseError,
    read_journal,
)
from neuralbox_async._cli import output_file
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.schema import Schema
from neuralbox_async._cli.terminal import TextWriter
from neuralbox_async._parsed import InvalidOutputError

_LINES_PER_WRITE: Final = 500
_STDOUT: Final = 1  # its descriptor
_OFFSET_BITS: Final = 48
_MAX_BODY: Final = 1024 * 1024  # bytes
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


class Output:
    """
    The lines of the file *path*, or of stdout for None.

    `open` replaces a regular file atomically; then lines are only appended. Other files are written to. Without lines
    to replace it by, `open_empty`.
    """

    def __init__(self, path: str | None) -> None:
        if path is not None and output_file.descriptor_of(path) == _STDOUT:
            path = None
        self.is_regular = path is not None and output_file.is_replaceable(path)
        # A symbolic link to a file stays; its target is replaced. The target of other links may have no path.
        self.path = os.path.realpath(path) if path is not None and self.is_regular else path
        self._file: BinaryIO | None = None
        self._stdout = TextWriter() if path is None else None

    @property
    def is_terminal(self) -> bool:
        """Whether the lines are shown at a terminal."""
        return self.path is None and sys.stdout.isatty()

    @property
    def is_empty(self) -> bool:
        """Whether replacing it would lose nothing."""
        return self.path is None or not os.path.exists(self.path) or os.path.getsize(self.path) == 0  # noqa: PTH110, PTH202

    def check(self) -> None:
        """Raise `OSError` when the file cannot be written. A file that is not regular is opened here."""
        if self.path is None:
            return
        if not self.is_regular:
            self._file = self._file or output_file.open_stream(self.path)
            return
        folder = os.path.dirname(self.path)  # noqa: PTH120
        if not os.path.isdir(folder):  # noqa: PTH112
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
        if os.path.exists(self.path) and not os.access(self.path, os.W_OK):  # noqa: PTH110
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.path)

    def open_empty(self) -> None:
        """
        Open an output that is empty, and does not become so here: another run may write to it at the same time.

        Raises `FileExistsError` when it has content by now, and `OSError`.
        """
        self.check()
        if self.path is not None and self.is_regular:
            self._file = open(self.path, "ab", buffering=0)  # noqa: PTH123, SIM115 - open until `close`
            if os.fstat(self._file.fileno()).st_size:
                raise FileExistsError(errno.EEXIST, "another program has written to it", self.path)

    def open(self, lines: Iterable[str]) -> None:
        """Replace the content by *lines*."""
        if self.path is not None and self.is_regular:
            self._replace(self.path, output_file.write_temporary(self.path, map(_encoded, lines)))
        else:
            self.check()
            self._write_all(lines)

    def write(self, lines: Iterable[str]) -> None:
        """Append *lines*. When it returns, the operating system has them."""
        text = "".join(lines)
        if self._stdout is not None:
            self._stdout.write(text)
        elif self._file is not None:
            self.check_in_place()
            rest = memoryview(_encoded(text))
            while rest:  # a pipe may accept a part only
                rest = rest[self._file.write(rest) :]

    def check_in_place(self) -> None:
        """Raise `OSError` when the path no longer names the file that is open: it was removed or replaced."""
        if self.path is None or not self.is_regular or self._file is None or self._file.closed:
            return
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):  # noqa: PTH116
                return
        except FileNotFoundError:
            pass
        raise FileNotFoundError(errno.ENOENT, "the output was removed or replaced while it was written", self.path)

    def sort(self) -> None:
        """Sort the lines of a regular file in the order of the rows. Keeps only the offsets of lines in memory."""
        if self.path is not None and self.is_regular:
            self.close()
            with open(self.path, "rb") as file:  # noqa: PTH123
                temporary = output_file.write_temporary(self.path, _in_order(file))
            self._replace(self.path, temporary)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()

    def _replace(self, path: str, temporary: str) -> None:
        output_file.replace(temporary, path)
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


def completed_line(entry: JournalEntry, generation: Generation, place: dict[str, Any], schema: Schema | None) -> str:
    """
    Return the line of a row that *entry* has as done, with a value under *schema*; *place*: see `InputRows.place_of`.

    A text that is not valid, because the row was completed with another schema, is an error.
    """
    try:
        parsed = {} if schema is None else {"value": schema.parse(generation.content)}
    except InvalidOutputError as error:
        return _invalid_line(entry, generation, place, error)
    return _completed_line(entry, generation, place, parsed, entry.tokens_used_total)


def result_line(result: BatchResult, rows: InputRows, schema: Schema | None) -> str:
    """Return the line of *result*, which belongs to one of *rows*."""
    place = rows.place_of(result.key) or {}
    if result.generation is not None:
        parsed = {} if schema is None else {"value": result.value}
        return _completed_line(result, result.generation, place, parsed, result.tokens_used)
    error = result.error
    return _line(
        key=str(result.key),
        **place,
        error_type=type(error).__name__,
        message="" if error is None else printable_line(error.message),
        **_received(error),
        billed=None if error is None else error.billed,
        model=None if result.request is None else result.request.model,
        id=None if error is None else error.generation_id,
        tokens_used=result.tokens_used,
        attempts=result.attempts,
        elapsed=round(result.elapsed, 3),
    )


def _received(error: NeuralBoxError | None) -> dict[str, str]:
    """Return the text that had arrived before *error*, or else the part of a response that may be billed."""
    if error is None or error.text:
        return {} if error is None else {"text": error.text}
    if error.billed == "no" or not isinstance(error, APIConnectionError | ResponseError | OutcomeUnknownError):
        return {}
    return {"body": error.body[:_MAX_BODY].decode(errors="replace")} if error.body else {}


def _completed_line(
    result: BatchResult | JournalEntry,
    generation: Generation,
    place: dict[str, Any],
    parsed: dict[str, Any],
    tokens_used: int | None,
) -> str:
    files = {"url": generation.url, "thumbnail_url": generation.thumbnail_url}
    return _line(
        key=str(result.key),
        **place,
        **parsed,
        content=generation.content,
        **{name: url for name, url in files.items() if url is not None},
        model=generation.model,
        id=generation.id,
        tokens_used=tokens_used if parsed else generation.tokens_used,
        attempts=result.attempts,
        elapsed=round(result.elapsed, 3),
    )


def _invalid_line(entry: JournalEntry, generation: Generation, place: dict[str, Any], error: InvalidOutputError) -> str:
    return _line(
        key=str(entry.key),
        **place,
        error_type=ParsingError.__name__,
        message=printable_line(str(error)),
        text=generation.content,
        billed="yes",
        model=generation.model,
        id=generation.id,
        tokens_used=entry.tokens_used_total,
        attempts=entry.attempts,
        elapsed=round(entry.elapsed, 3),
    )


def _line(**members: Any) -> str:
    return _encode(members) + "\n"


def escaped(line: str) -> str:
    """Return a line of JSON in ASCII, without the line break."""
    return json.dumps(json.loads(line))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which the escapes of JSON can carry
        return "".join(f"{escaped(line)}\n" for line in text.split("\n") if line).encode()
