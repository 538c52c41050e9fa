"""The input rows of a batch: read one by one, all validated in a first pass, and sent in a second."""

from __future__ import annotations

import hashlib
import json
import string
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, Final

import attrs

from neuralbox_async import GenerateRequest, InvalidParameterError
from neuralbox_async._batch.key_index import KeyIndex, digest_of, numbered_key
from neuralbox_async._cli.csv_rows import PROMPT_FIELDS, REQUEST_FIELDS, CSVRows, member
from neuralbox_async._cli.input_formats import Format, rows_of
from neuralbox_async._cli.input_text import EncodingError, InvalidRowError
from neuralbox_async._cli.kept_items import KeptItems

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
    """
    Makes requests from rows: prompts from *template*, if any; *defaults* are the fields of rows without them.

    *key_column*: the column or member that is the key instead of "key". *schema*: of the answers, part of the hash that
    is the key of a row without one.
    """

    defaults: dict[str, Any]
    template: Template | None = None
    key_column: str | None = None
    schema: Mapping[str, Any] | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that make the prompt."""
        return frozenset({"prompt"}) if self.template is None else self.template.columns

    def members(self, row: dict[str, Any], *, is_json: bool) -> dict[str, Any]:
        """Return the members of *row* that describe the request, with the defaults. Raises `InvalidRowError`."""
        if self.template is not None:
            members = {**_only(REQUEST_FIELDS, row), "prompt": self.template.fill(row)}
        else:
            # Others are not sent. Of a JSON object they are part of its hash, and a near miss of a field is an error.
            if is_json:
                _check_names(row)
            members = row if is_json else _only(REQUEST_FIELDS + PROMPT_FIELDS, row)
        members = {**self.defaults, **{name: value for name, value in members.items() if value is not None}}
        if self.key_column is not None:
            members["key"] = _key(row, self.key_column)
        if members.keys().isdisjoint(PROMPT_FIELDS):
            raise InvalidRowError("'prompt' is missing")
        prompt = members.get("prompt")
        if isinstance(prompt, str) and (not prompt or prompt.isspace()):
            raise InvalidRowError("the prompt is empty")
        return members


def _key(row: dict[str, Any], column: str) -> str:
    value = member(row, column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidRowError(f"the key in {column!r} is missing: it must be a string or an integer")
    return value


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
    numbered. *unit*: what the numbers of the rows count, "line" or, in a JSON array, "item". *delimiter*: between the
    cells of CSV; None: by the first line. *items* keeps what the output repeats of each row. *limit*: read only so many
    rows, the first.
    """

    def __init__(
        self,
        file: BinaryIO,
        input_format: Format,
        builder: RequestBuilder,
        *,
        delimiter: str | None = None,
        items: KeptItems | None = None,
        limit: int | None = None,
    ) -> None:
        self.invalid = 0
        self.errors: list[str] = []  # of the first invalid rows
        self.has_encoding_errors = False
        self.ignored_columns: tuple[str, ...] = ()
        self.unit = "item" if input_format == "json" else "line"
        self._file, self._builder = file, builder
        self._format: Format = input_format
        self._start = file.tell()
        self._delimiter, self._items, self._limit = delimiter, items, limit
        self._numbers = KeyIndex("I")  # the number of the row for each key, from 1
        self._lines = array("Q")  # the number of the line for each row
        noted = {builder.key_column, *(items.columns or () if items else ())}
        self._noted = frozenset(column for column in noted if column is not None)

    def validate(self) -> None:
        """Read all rows and count the invalid ones. Raises `InvalidRowError` when the file as a whole is invalid."""
        for number, (line, row, request) in enumerate(self._requests(), 1):
            self._lines.append(line)
            if self._items is not None:
                self._items.append(row)
            if isinstance(request, GenerateRequest):
                self._numbers[_digest(str(request.key))] = number
            else:
                self.invalid += 1
                self.has_encoding_errors |= isinstance(request, EncodingError)
                if len(self.errors) < MAX_ERRORS:
                    self.errors.append(f"{self.unit} {line}: {request}")
        if self._items is not None and self._lines and (missing := self._items.missing_columns):
            raise InvalidRowError(f"no row has {missing[0]!r}, which --keep names")

    def __len__(self) -> int:
        """Return the number of valid rows."""
        return len(self._numbers)

    def __contains__(self, request: object) -> bool:
        """Return whether *request* has the key of a row. With this it is a collection, which a batch may read twice."""
        return isinstance(request, GenerateRequest) and bool(self._numbers[_digest(str(request.key))])

    def __iter__(self) -> Iterator[GenerateRequest]:
        """Yield the valid rows. Raises `InvalidRowError` when the file has changed since `validate`."""
        left = len(self)
        for number, (line, _, request) in enumerate(self._requests(), 1):
            if isinstance(request, GenerateRequest):
                if self._numbers[_digest(str(request.key))] != number or self._lines[number - 1] != line:
                    raise InvalidRowError(f"{self.unit} {line} has changed since it was validated")
                left -= 1
                yield request
        if left:
            raise InvalidRowError(f"it has changed since it was validated: {left:,} rows are missing, or invalid now")

    def place_of(self, key: object) -> dict[str, Any] | None:
        """
        Return where the row with *key* is in the input; None when there is no such row.

        *row*: its number, from 1; *line*: that of its first line; *item*: what the output repeats of it, if anything.
        """
        number = self._numbers[_digest(str(key))]
        if not number:
            return None
        place = {"row": number, "line": self._lines[number - 1]}
        return place if self._items is None else {**place, "item": self._items[number]}

    def _requests(self) -> Iterator[tuple[int, dict[str, Any], GenerateRequest | InvalidRowError]]:
        """Yield for each row the number of its line, its members, and its request or what is wrong with it."""
        self._file.seek(self._start)
        rows = rows_of(self._file, self._format, self._builder.columns, delimiter=self._delimiter, noted=self._noted)
        for number, (line, row) in enumerate(islice(rows, self._limit), 1):
            if isinstance(row, InvalidRowError):
                yield line, {}, row
                continue
            try:
                yield line, row, self._request(row, number)
            except InvalidRowError as error:
                yield line, row, error
            except InvalidParameterError as error:
                yield line, row, InvalidRowError(error.message.replace(", or None", ""))  # a word of Python
            except RecursionError:
                yield line, {}, InvalidRowError("it is nested too deeply")
        if isinstance(rows, CSVRows):
            unused = (column for column in rows.ignored if self._items is None or column not in self._items)
            self.ignored_columns = tuple(unused)

    def _request(self, row: dict[str, Any], number: int) -> GenerateRequest:
        members = self._builder.members(row, is_json=self._format in {"jsonl", "json"})
        if "key" not in members:
            members["key"] = self._content_key(members, number)
            return GenerateRequest.from_dict(members)
        request = GenerateRequest.from_dict(members)
        first = self._numbers[_digest(str(request.key))]
        if first not in {0, number}:
            raise InvalidRowError(f"the key {request.key!r} is already used in {self.unit} {self._lines[first - 1]}")
        return request

    def _content_key(self, members: dict[str, Any], number: int) -> str:
        # It must never change: a journal identifies rows by it.
        identity = members if self._builder.schema is None else [members, self._builder.schema]
        encoded = json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()
        key = hashlib.sha256(encoded).hexdigest()[:_KEY_LENGTH]

        # Rows are read in order, so that keys of earlier rows have the lowest numbers in the second pass, too.
        def is_taken(key: str) -> bool:
            return 0 < self._numbers[_digest(key)] < number

        return numbered_key(key, is_taken)[0] if is_taken(key) else key


def _digest(key: str) -> int:
    return digest_of(key.encode(errors="replace"))
