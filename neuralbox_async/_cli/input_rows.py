"""The input rows of a batch: read one by one, all validated in a first pass, and sent in a second."""

from __future__ import annotations

import hashlib
import json
import string
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import attrs

from neuralbox_async import GenerateRequest, InvalidParameterError
from neuralbox_async._batch.key_index import KeyIndex, digest_of, numbered_key
from neuralbox_async._cli.csv_rows import PROMPT_FIELDS, REQUEST_FIELDS, CSVRows
from neuralbox_async._cli.input_formats import Format, rows_of
from neuralbox_async._cli.input_text import InvalidRowError
from neuralbox_async._cli.pipes import read_chunks

MAX_ERRORS: Final = 10
_KEY_LENGTH: Final = 32  # hexadecimal digits


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

    @property
    def columns(self) -> frozenset[str]:
        """The columns that make the prompt."""
        return frozenset({"prompt"}) if self.template is None else self.template.columns

    def members(self, row: dict[str, Any], *, is_json: bool) -> dict[str, Any]:
        """Return the members of *row* that describe the request, with the defaults. Raises `InvalidRowError`."""
        if self.template is not None:
            members = {**_only(REQUEST_FIELDS, row), "prompt": self.template.fill(row)}
        else:
            # The other columns of a CSV file are the user's notes; the other members of a JSON object are sent.
            if is_json:
                _check_names(row)
            members = row if is_json else _only(REQUEST_FIELDS + PROMPT_FIELDS, row)
        members = {**self.defaults, **{name: value for name, value in members.items() if value is not None}}
        if members.keys().isdisjoint(PROMPT_FIELDS):
            raise InvalidRowError("'prompt' is missing")
        prompt = members.get("prompt")
        if isinstance(prompt, str) and (not prompt or prompt.isspace()):
            raise InvalidRowError("the prompt is empty")
        return members


def _check_names(row: dict[str, Any]) -> None:
    """Refuse a member such as "Max_Tokens" or " model": the API would ignore it."""
    for name in row:
        field = name.strip().lower()
        if field != name and field in REQUEST_FIELDS + PROMPT_FIELDS:
            raise InvalidRowError(f"the member {name!r} must be {field!r}")


def _only(names: Iterable[str], row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


class InputRows:
    """
    The rows of *file*, which must be seekable, as requests; each iteration reads the file again.

    Call `validate` first. Each request has a key: its own, or a hash of the row with the defaults; repeated hashes are
    numbered. *unit*: what the numbers of the rows count, "line" or, in a JSON array, "item".
    """

    def __init__(self, file: BinaryIO, input_format: Format, builder: RequestBuilder) -> None:
        self.invalid = 0
        self.errors: list[str] = []  # of the first invalid rows
        self.ignored_columns: tuple[str, ...] = ()
        self.unit = "item" if input_format == "json" else "line"
        self._file, self._builder = file, builder
        self._format: Format = input_format
        self._start = file.tell()
        self._lines = KeyIndex("I")  # the number of the line for each key

    def validate(self) -> None:
        """Read all rows and count the invalid ones. Raises `InvalidRowError` when the file as a whole is invalid."""
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                self._lines[_digest(str(request.key))] = line
            else:
                self.invalid += 1
                if len(self.errors) < MAX_ERRORS:
                    self.errors.append(f"{self.unit} {line}: {request}")

    def __len__(self) -> int:
        """Return the number of valid rows."""
        return len(self._lines)

    def __iter__(self) -> Iterator[GenerateRequest]:
        """Yield the valid rows. Raises `InvalidRowError` when the file has changed since `validate`."""
        left = len(self)
        for line, request in self._requests():
            if isinstance(request, GenerateRequest):
                if self.line_of(request.key) != line:
                    raise InvalidRowError(f"{self.unit} {line} has changed since it was validated")
                left -= 1
                yield request
        if left:
            raise InvalidRowError(f"it has changed since it was validated: {left:,} rows are missing, or invalid now")

    def line_of(self, key: object) -> int | None:
        """Return the number of the line where the row with *key* begins; None when there is no such row."""
        return self._lines[_digest(str(key))] or None

    def _requests(self) -> Iterator[tuple[int, GenerateRequest | InvalidRowError]]:
        self._file.seek(self._start)
        rows = rows_of(self._file, self._format, self._builder.columns)
        for line, row in rows:
            if isinstance(row, InvalidRowError):
                yield line, row
                continue
            try:
                yield line, self._request(row, line)
            except InvalidRowError as error:
                yield line, error
            except InvalidParameterError as error:
                yield line, InvalidRowError(error.message)
            except RecursionError:
                yield line, InvalidRowError("it is nested too deeply")
        if isinstance(rows, CSVRows):
            self.ignored_columns = rows.ignored

    def _request(self, row: dict[str, Any], line: int) -> GenerateRequest:
        members = self._builder.members(row, is_json=self._format in {"jsonl", "json"})
        if "key" not in members:
            members["key"] = self._content_key(members, line)
            return GenerateRequest.from_dict(members)
        request = GenerateRequest.from_dict(members)
        first = self.line_of(request.key)
        if first is not None and first != line:
            raise InvalidRowError(f"the key {request.key!r} is already used in {self.unit} {first}")
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


def make_seekable(file: BinaryIO) -> BinaryIO:
    """Return *file* if it is seekable, otherwise a copy in a temporary file that is deleted when it is closed."""
    if file.seekable():
        return file
    copy: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it  # type: ignore[assignment]
    copy.writelines(read_chunks(file))
    copy.seek(0)
    return copy
