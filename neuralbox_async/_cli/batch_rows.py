"""The rows of a batch, checked before anything is sent."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import click

from neuralbox_async import GenerateRequest
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.input_formats import DELIMITERS, Format, choose_format
from neuralbox_async._cli.input_rows import InputRows, RequestBuilder
from neuralbox_async._cli.input_text import InvalidRowError
from neuralbox_async._cli.terminal import print_error, spinner

_USAGE_ERROR: Final = 2
_MAX_COLUMNS_SHOWN: Final = 10


def open_rows(
    source: str, stream: BinaryIO, input_format: Format | None, builder: RequestBuilder, **options: Any
) -> InputRows:
    """Return the rows in *stream*; *options*: see `InputRows`. Raises `click.UsageError`."""
    is_table = options["delimiter"] is not None
    try:
        known = input_format or ("csv" if is_table else choose_format(source, stream, builder.columns))
    except InvalidRowError as error:
        raise click.UsageError(f"{name_of(source)}: {error}") from None
    if is_table and known not in DELIMITERS:
        raise click.UsageError("--delimiter is for CSV and TSV.")
    return InputRows(stream, known, builder, **options)


def name_of(source: str) -> str:
    """Return the name of the input in messages."""
    return "stdin" if source == "-" else source


def check_rows(source: str, rows: InputRows, builder: RequestBuilder, *, skip_invalid: bool) -> None:
    """Validate all rows and report the invalid ones; exit with status 2 if there are any, unless *skip_invalid*."""
    name = name_of(source)
    GenerateRequest.from_dict({**builder.defaults, "prompt": "any"})  # an invalid option is not the fault of the rows
    try:
        with spinner(f"validating the rows of {name}"):
            rows.validate()
    except InvalidRowError as error:
        raise click.UsageError(f"{name}: {error}") from None
    if rows.ignored_columns:
        shown = ", ".join(map(repr, rows.ignored_columns[:_MAX_COLUMNS_SHOWN]))
        more = ", ..." if len(rows.ignored_columns) > _MAX_COLUMNS_SHOWN else ""
        print_error(printable_line(f"neuralbox: {name}: columns that are not used: {shown}{more}"))
    for message in rows.errors:
        print_error(printable_line(f"neuralbox: {name}, {message}"))
    if rows.invalid > len(rows.errors):
        print_error(f"neuralbox: and {rows.invalid - len(rows.errors):,} more")
    if rows.has_encoding_errors:
        print_error("neuralbox: the CSV files of Excel for Windows are often not in UTF-8: try --encoding cp1252")
    if rows.invalid and not skip_invalid:
        counts = f"{rows.invalid:,} of {rows.invalid + len(rows):,} rows are invalid"
        print_error(f"neuralbox: {counts}; nothing was sent (--skip-invalid skips them)")
        raise click.exceptions.Exit(_USAGE_ERROR)
