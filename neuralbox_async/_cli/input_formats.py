"""The formats of the input of a batch: which one a file has, by its name and its beginning."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Literal, TypeAlias

from neuralbox_async._cli.csv_rows import CSVRows
from neuralbox_async._cli.input_text import BOM, DecodedLines, InvalidRowError, Row, check_signature
from neuralbox_async._cli.json_rows import is_object, is_wrapped_array, json_array_rows, json_line_row

Format: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "lines"]

FORMATS: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "lines",
}
"""The formats by file extension."""
DELIMITERS: Final[dict[Format, str]] = {"csv": ",;\t", "tsv": "\t"}
"""The characters that may separate cells; spreadsheets write semicolons where a comma is the decimal point."""
_HEAD: Final = 1 << 16  # bytes
_MAX_LINE: Final = 64 << 20  # bytes
# Prose may begin with a bracket or brace: "[1] First question", "{name} is ...".
_JSON_START: Final = re.compile(r'\{\s*(?:"|$)|\[\s*(?:["{]|$)')
_SEPARATOR: Final = re.compile(r"sep=(.?)", re.IGNORECASE)  # a first line for Excel, which names the delimiter
_YAML: Final = re.compile(r"---|(?:- )?(?:prompts?|messages|key|model):(?: .*)?")
_MARKUP: Final = re.compile(r"<\?xml|<!doctype|<[a-z][\w:.-]*(?:\s[^<>]*)?>\s*$", re.IGNORECASE)


def choose_format(name: str, file: BinaryIO, columns: frozenset[str]) -> Format:
    """
    Return the format of *file*, which must be seekable: by the extension of *name*, and by the first line.

    *columns*: those that make the prompt. Raises `InvalidRowError` when the extension and the first line disagree, or
    neither is known: each line would be sent as a prompt.
    """
    start = file.tell()
    check_signature(file.read(_HEAD))
    file.seek(start)
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 - one path, one style
    by_name = FORMATS.get(extension)
    first, more = _first_line(file)
    file.seek(start)
    if by_name is not None and by_name in DELIMITERS:
        return by_name
    by_content = _format_of_line(first, columns)
    if by_name == "json":
        return "jsonl" if by_content == "jsonl" and more else "json"
    if by_name == "jsonl":
        # An invalid first row must not hide the others; an object that begins here and is not on one line must.
        return "json" if by_content == "json" and first[-1] in "[{,:]}" else "jsonl"
    if by_content is None and (by_name == "lines" or not extension):
        _check_prompt(first, columns)
        return "lines"
    if by_content is None:
        raise InvalidRowError(f"the extension {extension} is unknown: specify the --format")
    if by_name == "lines":
        raise InvalidRowError(
            f"this looks like {by_content.upper()}: choose --format {by_content}, "
            "or --format lines for one prompt per line"
        )
    return by_content


def _first_line(file: BinaryIO) -> tuple[str, bool]:
    """Return the first line that is not blank, without blanks around it, and whether there is another."""
    lines = (line for line in iter(lambda: file.readline(_MAX_LINE), b"") if line.removeprefix(BOM).strip())
    first = next(lines, b"").decode(errors="replace").removeprefix("\ufeff").strip()
    return first, next(lines, None) is not None


def _format_of_line(text: str, columns: frozenset[str]) -> Format | None:
    """Return the format of which *text* is a typical first line; None for prose. Raises `InvalidRowError` for XML."""
    if _MARKUP.match(text):
        raise InvalidRowError("this looks like XML or HTML: choose --format lines for one prompt per line")
    if _SEPARATOR.fullmatch(text):
        return "csv"
    value = _parsed(text) if text[:1] in {"[", "{"} else None
    if is_object(value) and not is_wrapped_array(value):
        return "jsonl"
    if isinstance(value, dict | list) or _JSON_START.match(text):
        return "json"
    delimiter = next((one for one in DELIMITERS["csv"] if _is_header(text, one, columns)), None)
    if delimiter is None:
        return None
    return "tsv" if delimiter in DELIMITERS["tsv"] else "csv"


def _check_prompt(text: str, columns: frozenset[str]) -> None:
    """Raise `InvalidRowError` when *text*, the first line, begins a file in a format that is not read."""
    known = (("YAML", bool(_YAML.fullmatch(text))), ('a table with "|" between cells', _is_header(text, "|", columns)))
    for name, matches in known:
        if matches:
            raise InvalidRowError(f"this looks like {name}: choose --format lines for one prompt per line")


def _is_header(text: str, delimiter: str, columns: frozenset[str]) -> bool:
    """Return whether *text* is the header of a table with a column `prompt`, or with all *columns*."""
    cells = {cell.strip().strip('"') for cell in text.split(delimiter)}
    return "prompt" in {cell.lower() for cell in cells} or (len(cells) > 1 and columns <= cells)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def rows_of(
    file: BinaryIO, file_format: Format, columns: frozenset[str], *, delimiter: str | None, noted: frozenset[str]
) -> Iterator[Row] | CSVRows:
    """
    Return the rows of *file*; *columns*: those that make the prompt; *noted*: others that must exist.

    *delimiter*: between the cells of CSV and TSV; None: by the first line.
    """
    if file_format in DELIMITERS:
        has_separator, found = _delimiter(file, DELIMITERS[file_format], columns)
        return CSVRows(file, delimiter or found, columns, noted, skip_first=has_separator)
    return json_array_rows(file) if file_format == "json" else _line_rows(file, file_format)


def _delimiter(file: BinaryIO, delimiters: str, columns: frozenset[str]) -> tuple[bool, str]:
    """
    Return whether the first line only names the delimiter, and the delimiter.

    Otherwise it is the one of *delimiters* that separates the columns in the header; the most frequent one if they are
    not there.
    """
    start = file.tell()
    header, _ = _first_line(file)
    file.seek(start)
    if separator := _SEPARATOR.fullmatch(header):
        return True, separator[1] or "\t"  # the line is stripped of blanks
    separating = (one for one in delimiters if one in header and _is_header(header, one, columns))
    return False, next(separating, max(delimiters, key=header.count))


def _line_rows(file: BinaryIO, file_format: Format) -> Iterator[Row]:
    lines = DecodedLines(file)
    for line in lines:
        error = lines.take_error()
        if not line.isspace():
            yield lines.number, error or (json_line_row(line) if file_format == "jsonl" else _text_row(line))


def _text_row(line: str) -> dict[str, Any] | InvalidRowError:
    prompt = line.rstrip("\r\n")
    return InvalidRowError("a carriage return within the line") if "\r" in prompt else {"prompt": prompt}
