"""Rows in CSV or TSV: the header, and the cells under it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

from neuralbox_async._cli.input_text import DecodedLines, InvalidRowError, Row
from neuralbox_async._request_members import intended_field

REQUEST_FIELDS: Final = ("key", "model", "system", "temperature", "max_tokens")
PROMPT_FIELDS: Final = ("prompt", "messages")
_FIELDS: Final = frozenset({*REQUEST_FIELDS, "prompt"})
_STRIPPED: Final = frozenset({"model", "temperature", "max_tokens"})  # a prompt keeps its blanks, and so does a key
# A decimal comma is one of a temperature: 1,000 as thousands would be above its range.
_NUMBERS: Final[dict[str, Callable[[str], float]]] = {
    "temperature": lambda text: float(text.replace(",", ".")),
    "max_tokens": int,
}
_NUMBER: Final = re.compile(r"[-+]?[0-9.]*(,[0-9]+)?([eE][-+]?[0-9]+)?")
_MAX_CELL_LENGTH: Final = 64 << 20  # otherwise a quote that is never closed would read the rest of the file


class CSVRows:
    """
    The rows of *file*, with cells that *delimiter* separates; *required*: the columns of the prompt.

    *noted*: other columns that must exist. *skip_first*: the first line that is not blank is not the header. Column
    names are stripped of blanks, and those of request fields may have any case. After iteration, *ignored* has the
    columns that nothing reads. Raises `InvalidRowError` when the header is invalid, and at a quote that is out of
    place: where the next row begins is then unknown, and the rest of a cell could pass for prompts.
    """

    def __init__(
        self, file: BinaryIO, delimiter: str, required: frozenset[str], noted: frozenset[str], *, skip_first: bool
    ) -> None:
        csv.field_size_limit(_MAX_CELL_LENGTH)
        self._lines = DecodedLines(file)
        self._raw: list[str] = []  # the lines of the row that is being read
        self._reader = csv.reader(self._recorded_lines(), strict=True, delimiter=delimiter)
        self._required, self._skip_first = required, skip_first
        self._noted = frozenset(map(self._column, noted))
        self._well_formed = None if delimiter == "\t" else _well_formed(delimiter)
        self._width = 0  # the number of columns; 0 until it is known
        self.ignored: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Row]:
        columns = self._read_header()
        while (read := self._read_cells()) is not None:
            line, cells = read
            if error := self._lines.take_error():
                yield line, error
            elif len(cells) == len(columns):
                yield line, _row(zip(columns, cells, strict=True))
            elif cells:
                yield line, InvalidRowError(f"{len(cells)} cells for {len(columns)} columns")

    def _recorded_lines(self) -> Iterator[str]:
        for line in self._lines:
            self._raw.append(line)
            yield line

    def _read_cells(self) -> tuple[int, list[str]] | None:
        """Return the number of the line where the next row begins, and its cells; None at the end."""
        self._raw.clear()
        line = self._lines.number + 1
        try:
            cells = next(self._reader, None)
        except csv.Error as error:
            raise InvalidRowError(f"line {line}: not valid CSV ({error})") from None
        if cells is None:
            return None
        if any('"' in cell for cell in cells) and self._is_out_of_place(cells):
            raise InvalidRowError(
                f"line {line}: not valid CSV (a quote inside a cell; "
                'write the whole cell in quotes, without spaces before them, and "" for a quote)'
            )
        return line, cells

    def _is_out_of_place(self, cells: list[str]) -> bool:
        """Return whether one of the quotes in *cells* may belong to a cell that was to go on in the next line."""
        if self._well_formed:
            return not self._well_formed.fullmatch("".join(self._raw))
        return self._width not in {0, len(cells)}  # files with tabs often have no quoting at all

    # -------------------------------------------------------------------------------------------------------- header

    def _read_header(self) -> list[str]:
        cells: list[str] = []
        if self._skip_first:
            next(line for line in self._lines if line.strip())
        while not cells:
            try:
                read = self._read_cells()
            except InvalidRowError as error:
                raise InvalidRowError(f"the header is not valid CSV: {error}") from None
            if read is None:
                raise InvalidRowError("the header is missing")
            cells = read[1]
        if invalid := self._lines.take_error():
            raise InvalidRowError(f"the header is {invalid}")
        columns = [self._column(cell) for cell in cells]
        self._check_columns(columns)
        self._width = len(columns)
        used = self._required.union(self._noted, _FIELDS, PROMPT_FIELDS)
        self.ignored = tuple(column for column in columns if column and column not in used)
        for column in self.ignored:
            if (field := intended_field(column)) in _FIELDS and field not in columns:
                raise InvalidRowError(f"the column {column!r} is unknown; is it {field!r}? Rename or remove it")
        return columns

    def _column(self, cell: str) -> str:
        name = cell.strip().strip("\ufeff\u200b").strip()
        return name.lower() if name not in self._required and name.lower() in _FIELDS else name

    def _check_columns(self, columns: list[str]) -> None:
        if repeated := sorted({column for column in columns if column and columns.count(column) > 1}):
            raise InvalidRowError(f"the header has the column {repeated[0]!r} twice")
        if missing := sorted(self._required - set(columns)):
            advice = "; --template makes prompts from any columns" if self._required <= set(PROMPT_FIELDS) else ""
            raise InvalidRowError(f"{_missing(missing[0], columns)}{advice}")
        if missing := sorted(self._noted - set(columns)):
            raise InvalidRowError(_missing(missing[0], columns))


def _missing(column: str, columns: Iterable[str]) -> str:
    return f"the column {column!r} is missing (columns: {', '.join(map(repr, columns))})"


def member(row: dict[str, Any], column: str) -> Any:
    """Return what *row* has in *column*, None for nothing; the names of request fields may have any case."""
    return row.get(column, row.get(column.lower()) if column.lower() in _FIELDS else None)


def _well_formed(delimiter: str) -> re.Pattern[str]:
    """Return the pattern of a row in which each quote is where it should be."""
    delimiter = re.escape(delimiter)
    cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{delimiter}\r\n]*)'
    return re.compile(rf"{cell}(?:{delimiter}{cell})*[\r\n]*")


# --------------------------------------------------------------------------------------------------------------- cells


def _row(cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, cell in cells:
        text = cell.strip() if column in _STRIPPED else cell
        # An empty cell of a request field sets nothing; a template may use an empty cell.
        if text or column not in REQUEST_FIELDS:
            row[column] = _number(column, text) if column in _NUMBERS else text
    return row


def _number(column: str, text: str) -> str | float:
    try:
        # Not Python's notations, such as 1_000: if the field must be a number, the request refuses the text.
        return _NUMBERS[column](text) if _NUMBER.fullmatch(text) else text
    except ValueError:
        return text
