"""The rows of a file of prompts: read one by one, all of them checked first and sent in a second reading."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import string
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final, Literal, TypeAlias, TypeGuard

import attrs

from neuralbox_async import GenerateRequest, InvalidParameterError

Format: TypeAlias = Literal["jsonl", "csv", "lines"]

FORMATS: Final[dict[str, Format]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "lines"}
SHOWN_BAD_ROWS: Final = 10
_FIELDS: Final = ("key", "model", "system", "temperature", "max_tokens")
_NUMBERS: Final[dict[str, Callable[[str], float]]] = {"temperature": float, "max_tokens": int}
_BOM: Final = b"\xef\xbb\xbf"
_LARGEST_CELL: Final = 64 << 20  # a quote that is never closed would otherwise take the rest of the file
_KEY_LENGTH: Final = 32  # hexadecimal digits


class BadRowError(Exception):
    """A row that cannot be sent, or a file of which that is true of all rows; the text is for people."""


class Template:
    """A prompt with ``{column}`` placeholders; ``{{`` and ``}}`` stand for braces. Raises `ValueError`."""

    def __init__(self, text: str) -> None:
        # Not `str.format`: it would let a template look into the attributes of what it is filled with.
        self._pieces = [_piece(*piece) for piece in string.Formatter().parse(text)]
        self.columns = frozenset(column for _, column in self._pieces if column is not None)
        if not self.columns:
            raise ValueError("it has no {column}, so that all prompts would be the same")

    def fill(self, row: dict[str, Any]) -> str:
        """Return the prompt for *row*. Raises `BadRowError`."""
        return "".join(text if column is None else text + self._value(row, column) for text, column in self._pieces)

    def _value(self, row: dict[str, Any], column: str) -> str:
        value = row.get(column)
        if value is None:
            raise BadRowError(f"there is no {column!r} for the template")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _piece(text: str, column: str | None, spec: str | None, conversion: str | None) -> tuple[str, str | None]:
    if column is not None and (not column or spec or conversion):
        raise ValueError("a placeholder is the name of a column and nothing else, such as {text}")
    return text, column


@attrs.frozen(kw_only=True)
class Recipe:
    """How a row becomes a request: the *template* of the prompt, if any, and the fields of rows that lack them."""

    defaults: dict[str, Any]
    template: Template | None = None

    def fields(self, row: dict[str, Any], *, is_json: bool) -> dict[str, Any]:
        """Return what `GenerateRequest` is made of. Raises `BadRowError`."""
        members = {name: value for name, value in row.items() if value is not None}
        own: dict[str, Any] = {name: members.pop(name) for name in _FIELDS if name in members}
        fields = {**self.defaults, **own}
        fields["messages"] = self._messages(row, members)
        # With a template, and in a table, the other columns are the user's notes: nothing for the API.
        if is_json and self.template is None:
            extra = members.pop("extra_body", {})
            fields["extra_body"] = {**members, **extra} if _is_object(extra) else extra
        return fields

    def _messages(self, row: dict[str, Any], members: dict[str, Any]) -> Any:
        prompt = members.pop("prompt", None) if self.template is None else self.template.fill(row)
        if prompt is None:
            if "messages" in members:
                return members.pop("messages")
            raise BadRowError("there is no 'prompt'")
        if self.template is None and "messages" in members:
            raise BadRowError("there are both 'prompt' and 'messages'")
        if not isinstance(prompt, str):
            raise BadRowError("'prompt' is not a string")
        if not prompt or prompt.isspace():
            raise BadRowError("the prompt is empty")
        return prompt


class Rows:
    """
    The rows of *file*, which must be seekable, as requests; read anew for each iteration.

    `check` comes first. Each request has a key: its row's own or a hash of what the row asks for, with a number from
    the second such row on.
    """

    def __init__(self, file: BinaryIO, kind: Format, recipe: Recipe) -> None:
        self.bad = 0
        self.complaints: list[str] = []  # about the first bad rows
        self._file, self._kind, self._recipe = file, kind, recipe
        self._start = file.tell()
        self._lines = _LineIndex()

    def check(self) -> None:
        """Read all rows, and note the bad ones. Raises `BadRowError` when it is not the rows that are wrong."""
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                self._lines.add(request.key or "", line)
            else:
                self.bad += 1
                if len(self.complaints) < SHOWN_BAD_ROWS:
                    self.complaints.append(f"line {line}: {request}")

    def __len__(self) -> int:
        """Return how many good rows there are."""
        return len(self._lines)

    def __iter__(self) -> Iterator[GenerateRequest]:
        """Return the good rows. Raises `BadRowError` when the file is not what it was."""
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                if self._lines.get(request.key or "") != line:
                    raise BadRowError(f"line {line} has changed since it was checked")
                yield request

    def line_of(self, key: str) -> int | None:
        """Return the number of the line where the row with *key* begins; None when there is no such row."""
        return self._lines.get(key) or None

    def _requests(self) -> Iterator[tuple[int, GenerateRequest | BadRowError]]:
        self._file.seek(self._start)
        for line, row in self._rows():
            if isinstance(row, BadRowError):
                yield line, row
                continue
            try:
                yield line, self._request(row, line)
            except BadRowError as error:
                yield line, error
            except InvalidParameterError as error:
                yield line, BadRowError(error.message)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
        if self._kind == "csv":
            template = self._recipe.template
            return _csv_rows(self._file, frozenset({"prompt"}) if template is None else template.columns)
        return _line_rows(self._file, _json_row if self._kind == "jsonl" else _text_row)

    def _request(self, row: dict[str, Any], line: int) -> GenerateRequest:
        fields = self._recipe.fields(row, is_json=self._kind == "jsonl")
        key = fields.get("key")
        if key is None:
            fields["key"] = self._lines.free_key(_content_key(fields), line)
        elif isinstance(key, int) and not isinstance(key, bool):
            fields["key"] = key = str(key)
        request = GenerateRequest(**fields)
        if key is not None and (first := self._lines.get(str(key))) and first != line:
            raise BadRowError(f"the key {key!r} is that of line {first} already")
        return request


def _content_key(fields: dict[str, Any]) -> str:
    # Must never change: it is how a journal knows the row again.
    told = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()[:_KEY_LENGTH]


class _LineIndex:
    """
    The lines, from 1, of keys: a million of them in some 25 MB.

    A hash table with open addressing; of a million keys two have the same hash with a chance of 3 in 100 million.
    """

    def __init__(self) -> None:
        self._count = 0
        self._digests, self._lines = array("Q", bytes(8 * 64)), array("I", [0]) * 64

    def __len__(self) -> int:
        return self._count

    def get(self, key: str) -> int:
        """Return the line of *key*, 0 if it has none."""
        return self._lines[self._slot(_digest(key))]

    def add(self, key: str, line: int) -> None:
        """Note that *key*, which is not there yet, is that of *line*."""
        self._count += 1
        if 3 * self._count > 2 * len(self._lines):
            self._grow()
        digest = _digest(key)
        slot = self._slot(digest)
        self._digests[slot], self._lines[slot] = digest, line

    def free_key(self, key: str, line: int) -> str:
        """Return *key*, or the first of "key-2", "key-3", ... that no line before *line* has."""
        if not self._is_before(key, line):
            return key
        # Lines come in order, so those before it have the lowest numbers, whether it is noted already or not.
        taken, free = 1, 2
        while self._is_before(f"{key}-{free}", line):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self._is_before(f"{key}-{middle}", line) else (taken, middle)
        return f"{key}-{free}"

    def _is_before(self, key: str, line: int) -> bool:
        return 0 < self.get(key) < line

    def _slot(self, digest: int) -> int:
        """Return where *digest* is, or where it belongs."""
        digests, lines, mask = self._digests, self._lines, len(self._lines) - 1
        slot = digest & mask
        while lines[slot] and digests[slot] != digest:
            slot = slot + 1 & mask
        return slot

    def _grow(self) -> None:
        old = zip(self._digests, self._lines, strict=True)
        size = 2 * len(self._lines)
        self._digests, self._lines = array("Q", [0]) * size, array("I", [0]) * size
        for digest, line in old:
            if line:
                slot = self._slot(digest)
                self._digests[slot], self._lines[slot] = digest, line


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest(), "little")


# ------------------------------------------------------------------------------------------------------------- formats


def seekable(file: BinaryIO) -> BinaryIO:
    """Return *file*, or what can be read from it in a temporary file that vanishes when it is closed."""
    if file.seekable():
        return file
    spool: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it  # type: ignore[assignment]
    shutil.copyfileobj(file, spool)
    spool.seek(0)
    return spool


def guessed_format(file: BinaryIO) -> Format:
    """Return the format of *file*, which must be seekable, by its first line: JSONL if that is an object."""
    start = file.tell()
    first = next((line for line in file if line.removeprefix(_BOM).strip()), b"")
    file.seek(start)
    return "jsonl" if _is_object(_json_row(first.decode(errors="replace").removeprefix("\ufeff"))) else "lines"


class _Decoded:
    """The lines of a file as text. Raises `BadRowError` for one that is none, and goes on after it."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = enumerate(file, 1)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        try:
            # Not the locale's encoding: what a prompt means must not depend on the machine.
            return (line.removeprefix(_BOM) if self.number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise BadRowError(f"not UTF-8 text: byte {error.start} of the line cannot be decoded") from None


def _line_rows(
    file: BinaryIO, parse: Callable[[str], dict[str, Any] | BadRowError]
) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
    lines = _Decoded(file)
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except BadRowError as error:
            yield lines.number, error
            continue
        if not line.isspace():
            yield lines.number, parse(line)


def _text_row(line: str) -> dict[str, Any]:
    return {"prompt": line.rstrip("\r\n")}


def _json_row(line: str) -> dict[str, Any] | BadRowError:
    try:
        row: object = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = f" ({error.msg}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        return BadRowError(f"not JSON{reason}")
    return row if _is_object(row) else BadRowError("not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _csv_rows(file: BinaryIO, wanted: frozenset[str]) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(_Decoded(file), strict=True)
    columns = _header(reader, wanted)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadRowError(f"not CSV ({error})")
            continue
        except BadRowError as error:
            yield line, error
            continue
        if len(cells) == len(columns):
            yield line, _csv_row(zip(columns, cells, strict=True))
        elif cells:
            yield line, BadRowError(f"{len(cells)} cells under {len(columns)} columns")


def _header(reader: Iterator[list[str]], wanted: frozenset[str]) -> list[str]:
    columns: list[str] = []
    try:
        columns = next((cells for cells in reader if cells), columns)
    except csv.Error as error:
        raise BadRowError(f"the header is not CSV ({error})") from None
    if not columns:
        raise BadRowError("there is no header")
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise BadRowError(f"the header has {twice[0]!r} twice")
    if missing := sorted(wanted - set(columns)):
        known = ", ".join(map(repr, columns))
        raise BadRowError(f"there is no column {missing[0]!r} (there are {known}); --template makes prompts of columns")
    return columns


def _csv_row(cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
    # An empty cell is one that has nothing to say, but the template may well be filled with it.
    return {name: _number_in(name, text) for name, text in cells if text or name not in _FIELDS}


def _number_in(column: str, text: str) -> str | float:
    try:
        return _NUMBERS[column](text)
    except (KeyError, ValueError):
        return text  # if it had to be a number, the request says so


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
