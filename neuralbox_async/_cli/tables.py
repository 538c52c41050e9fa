"""Tables on stdout: as wide as the terminal, or as wide as their contents where stdout is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.terminal import console

_MAX_WIDTH: Final = 100_000  # of a table in a file or a pipe: nothing is cut off
_MAX_CELL: Final = 2000  # characters


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, cut: str | None = None) -> None:
    """
    Print *rows* under *headings*; None is an empty cell, and numbers stand at the right.

    The column *cut* is shortened where the terminal is too narrow for all. Raises `OSError`.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    values = [list(row) for row in rows]
    for index, heading in enumerate(headings):
        numeric = any(isinstance(row[index], int) for row in values)
        # Of the columns that rich may wrap, it narrows the widest first; the texts in this one do not wrap.
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != cut)
    for row in values:
        table.add_row(*(Text(_cell(value), no_wrap=True, overflow="ellipsis") for value in row))
    out = console(sys.stdout)
    if not sys.stdout.isatty():
        out.width = _MAX_WIDTH
    out.print(table)


def local_time(time: datetime | None) -> str | None:
    """Return *time* in the time zone of this machine, to the minute."""
    return None if time is None else f"{time.astimezone():%Y-%m-%d %H:%M}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    # Names and prompts come from outside.
    return f"{value:,}" if isinstance(value, int) else printable_line(str(value)[:_MAX_CELL])
