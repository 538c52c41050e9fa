"""The input of a batch as a file that can be read twice, in UTF-8."""

from __future__ import annotations

import codecs
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO, Final, TextIO

import click

from neuralbox_async._cli.pipes import read_chunks

_PIECE: Final = 1 << 16  # characters


def check_encoding(_context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Return *name*, of an encoding that Python knows. Raises `click.BadParameter`."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise click.BadParameter(f"{name!r} is not the name of an encoding.", param=parameter) from None
    return codecs.lookup(name).name


@contextmanager
def open_input(source: str | None, encoding: str) -> Generator[BinaryIO]:
    """Yield the input as a seekable binary file in UTF-8."""
    with nullcontext(_stdin(source)) if source in {None, "-"} else open(source or "", "rb") as file:  # noqa: PTH123
        if file.seekable() and encoding == "utf-8":
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            copy.writelines(read_chunks(file))
            copy.seek(0)
            if encoding == "utf-8":
                yield copy
                return
            with tempfile.TemporaryFile() as recoded:
                _recode(copy, recoded, encoding)
                yield recoded


def _recode(file: BinaryIO, target: BinaryIO, encoding: str) -> None:
    reader = codecs.getreader(encoding)(file)
    writer = codecs.getwriter("utf-8")(target)
    try:
        shutil.copyfileobj(reader, writer, _PIECE)
    except UnicodeError:
        raise click.UsageError(f"The input is not valid {encoding}.") from None
    target.seek(0)


def _stdin(source: str | None) -> BinaryIO:
    stdin: TextIO | None = sys.stdin  # None if the process was started with stdin closed
    if stdin is None or (stdin.isatty() and source is None):
        raise click.UsageError("There are no rows: pass a file, or rows on stdin.")
    return stdin.buffer
