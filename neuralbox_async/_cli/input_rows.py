"""The input rows of a batch: read one by one, all validated in a first pass, and sent in a second."""

from __future__ import annotations

import csv
import hashlib
import json
import string
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final, Literal, TypeAlias, TypeGuard

import attrs

from neuralbox_async import GenerateRequest, InvalidParameterError
from neuralbox_async._batch.key_index import KeyIndex, digest_of, numbered_key
from neuralbox_async._cli.pipes import read_chunks

Format: TypeAlias = Literal["jsonl", "csv", "lines"]

FORMATS: Final[dict[str, Format]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "lines"}
"""The formats by file extension."""
MAX_ERRORS: Final = 10
_REQUEST_FIELDS: Final = ("key", "model", "system", "temperature", "max_tokens")
_PROMPT_FIELDS: Final = ("prompt", "messages")
_NUMBERS: Final[dict[str, Callable[[str], float]]] = {"temperature": float, "max_tokens": int}
_BOM: Final = b"\xef\xbb\xbf"
_MAX_CELL_LENGTH: Final = 64 << 20  # otherwise a quote that is never closed would read the rest of the file
_KEY_LENGTH: Final = 32  # hexadecimal digits


class InvalidRowError(Exception):
    """A row that cannot be sent, or a file without valid rows; the text is for people."""


class Template:
    """A prompt with ``{column}`` placeholders; ``{{`` and ``}}`` stand for braces. Raises `ValueError`."""

    def __init__(self, text: str) -> None:
        # Not `str.format`: a template could read attributes of the values.
        self._pieces = [_check_piece(*piece) for piece in string.Formatter().parse(text)]
        self.columns = frozenset(column for _, column in self._pieces if column is not None)
        if not self.columns:
            raise ValueError("it has no {column}, so all prompts would be the same")

    def fill(self, row: dict[str, Any]) -> str:
        """Return the prompt for *row*. Raises `InvalidRowError`."""
        return "".join(text if column is None else text + self._value(row, column) for text, column in self._pieces)

    def _value(self, row: dict[str, Any], column: str) -> str:
        value = row.get(column)
        if value is None:
            raise InvalidRowError(f"{column!r} is missing; the template needs it")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_piece(text: str, column: str | None, spec: str | None, conversion: str | None) -> tuple[str, str | None]:
    if column is not None and (not column or spec or conversion):
        raise ValueError("a placeholder is the name of a column and nothing else, such as {text}")
    return text, column


@attrs.frozen(kw_only=True)
class RequestBuilder:
    """Makes requests from rows: prompts from *template*, if any; *defaults* are the fields of rows without them."""

    defaults: dict[str, Any]
    template: Template | None = None

    def members(self, row: dict[str, Any], *, is_json: bool) -> dict[str, Any]:
        """Return the members of *row* that describe the request, with the defaults. Raises `InvalidRowError`."""
        if self.template is not None:
            members = {**_only(_REQUEST_FIELDS, row), "prompt": self.template.fill(row)}
        else:
            # The other columns of a CSV file are the user's notes; the other members of a JSON object are sent.
            members = row if is_json else _only(_REQUEST_FIELDS + _PROMPT_FIELDS, row)
        members = {**self.defaults, **{name: value for name, value in members.items() if value is not None}}
        if members.keys().isdisjoint(_PROMPT_FIELDS):
            raise InvalidRowError("'prompt' is missing")
        prompt = members.get("prompt")
        if isinstance(prompt, str) and (not prompt or prompt.isspace()):
            raise InvalidRowError("the prompt is empty")
        return members


def _only(names: Iterable[str], row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


class InputRows:
    """
    The rows of *file*, which must be seekable, as requests; each iteration reads the file again.

    Call `validate` first. Each request has a key: its own, or a hash of the row with the defaults; repeated hashes are
    numbered.
    """

    def __init__(self, file: BinaryIO, input_format: Format, builder: RequestBuilder) -> None:
        self.invalid = 0
        self.errors: list[str] = []  # of the first invalid rows
        self._file, self._format, self._builder = file, input_format, builder
        self._start = file.tell()
        self._lines = KeyIndex("I")  # the number of the line for each key

    def validate(self) -> None:
        """Read all rows and count the invalid ones. Raises `InvalidRowError` when the file as a whole is invalid."""
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                self._lines[_digest(request.key or "")] = line
            else:
                self.invalid += 1
                if len(self.errors) < MAX_ERRORS:
                    self.errors.append(f"line {line}: {request}")

    def __len__(self) -> int:
        """Return the number of valid rows."""
        return len(self._lines)

    def __iter__(self) -> Iterator[GenerateRequest]:
        """Yield the valid rows. Raises `InvalidRowError` when the file has changed since `validate`."""
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                if self.line_of(request.key or "") != line:
                    raise InvalidRowError(f"line {line} has changed since it was validated")
                yield request

    def line_of(self, key: str) -> int | None:
        """Return the number of the line where the row with *key* begins; None when there is no such row."""
        return self._lines[_digest(key)] or None

    def _requests(self) -> Iterator[tuple[int, GenerateRequest | InvalidRowError]]:
        self._file.seek(self._start)
        for line, row in self._rows():
            if isinstance(row, InvalidRowError):
                yield line, row
                continue
            try:
                yield line, self._request(row, line)
            except InvalidRowError as error:
                yield line, error
            except InvalidParameterError as error:
                yield line, InvalidRowError(error.message)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | InvalidRowError]]:
        if self._format == "csv":
            template = self._builder.template
            return _csv_rows(self._file, frozenset({"prompt"}) if template is None else template.columns)
        return _line_rows(self._file, _json_row if self._format == "jsonl" else _text_row)

    def _request(self, row: dict[str, Any], line: int) -> GenerateRequest:
        members = self._builder.members(row, is_json=self._format == "jsonl")
        if "key" not in members:
            members["key"] = self._content_key(members, line)
            return GenerateRequest.from_dict(members)
        request = GenerateRequest.from_dict(members)
        first = self.line_of(request.key or "")
        if first is not None and first != line:
            raise InvalidRowError(f"the key {request.key!r} is already used in line {first}")
        return request

    def _content_key(self, members: dict[str, Any], line: int) -> str:
        # It must never change: a journal identifies rows by it.
        encoded = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
        key = hashlib.sha256(encoded).hexdigest()[:_KEY_LENGTH]

        # Rows are read in order, so that keys of earlier lines have the lowest numbers in the second pass, too.
        def is_taken(key: str) -> bool:
            return 0 < self._lines[_digest(key)] < line

        return numbered_key(key, is_taken)[0] if is_taken(key) else key


def _digest(key: str) -> int:
    return digest_of(key.encode(errors="replace"))


# ------------------------------------------------------------------------------------------------------------- formats


def make_seekable(file: BinaryIO) -> BinaryIO:
    """Return *file* if it is seekable, otherwise a copy in a temporary file that is deleted when it is closed."""
    if file.seekable():
        return file
    copy: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it  # type: ignore[assignment]
    copy.writelines(read_chunks(file))
    copy.seek(0)
    return copy


def detect_format(file: BinaryIO) -> Format:
    """Return the format of *file*, which must be seekable, by its first line: JSONL if that is a JSON object."""
    start = file.tell()
    first = next((line for line in file if line.removeprefix(_BOM).strip()), b"")
    file.seek(start)
    return "jsonl" if _is_object(_json_row(first.decode(errors="replace").removeprefix("\ufeff"))) else "lines"


class _DecodedLines:
    """The lines of a file as text. Raises `InvalidRowError` for a line that is not UTF-8, and continues after it."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = enumerate(file, 1)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        try:
            # Not the locale's encoding: the meaning of a prompt must not depend on the machine.
            return (line.removeprefix(_BOM) if self.number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise InvalidRowError(f"not valid UTF-8: byte {error.start} of the line is invalid") from None


def _line_rows(
    file: BinaryIO, parse: Callable[[str], dict[str, Any] | InvalidRowError]
) -> Iterator[tuple[int, dict[str, Any] | InvalidRowError]]:
    lines = _DecodedLines(file)
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except InvalidRowError as error:
            yield lines.number, error
            continue
        if not line.isspace():
            yield lines.number, parse(line)


def _text_row(line: str) -> dict[str, Any]:
    return {"prompt": line.rstrip("\r\n")}


def _json_row(line: str) -> dict[str, Any] | InvalidRowError:
    try:
        row: object = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = f" ({error.msg}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        return InvalidRowError(f"not valid JSON{reason}")
    return row if _is_object(row) else InvalidRowError("not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities are not JSON


def _csv_rows(file: BinaryIO, required: frozenset[str]) -> Iterator[tuple[int, dict[str, Any] | InvalidRowError]]:
    csv.field_size_limit(_MAX_CELL_LENGTH)
    reader = csv.reader(_DecodedLines(file), strict=True)
    columns = _read_header(reader, required)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, InvalidRowError(f"not valid CSV ({error})")
            continue
        except InvalidRowError as error:
            yield line, error
            continue
        if len(cells) == len(columns):
            yield line, _csv_row(zip(columns, cells, strict=True))
        elif cells:
            yield line, InvalidRowError(f"{len(cells)} cells for {len(columns)} columns")


def _read_header(reader: Iterator[list[str]], required: frozenset[str]) -> list[str]:
    columns: list[str] = []
    try:
        columns = next((cells for cells in reader if cells), columns)
    except csv.Error as error:
        raise InvalidRowError(f"the header is not valid CSV ({error})") from None
    if not columns:
        raise InvalidRowError("the header is missing")
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise InvalidRowError(f"the header has the column {repeated[0]!r} twice")
    if missing := sorted(required - set(columns)):
        known = ", ".join(map(repr, columns))
        raise InvalidRowError(
            f"the column {missing[0]!r} is missing (columns: {known}); --template makes prompts from any columns"
        )
    return columns


def _csv_row(cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
    # An empty cell of a request field sets nothing; a template may use an empty cell.
    return {name: _parse_number(name, text) for name, text in cells if text or name not in _REQUEST_FIELDS}


def _parse_number(column: str, text: str) -> str | float:
    try:
        return _NUMBERS[column](text)
    except (KeyError, ValueError):
        return text  # if the field must be a number, the request refuses it


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
