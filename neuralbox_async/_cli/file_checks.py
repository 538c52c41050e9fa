"""The files of a batch: the input, the output and the journal, checked before anything is sent."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import TextIO

import click

from neuralbox_async._cli.output import Output, has_entries
from neuralbox_async._cli.terminal import check_stdout


def default_journal(path: str, output: Output, *, local: bool) -> str | None:
    """Return the path of the journal for the *output* at *path*; None if the output is not a regular file."""
    if not output.is_regular:
        return None
    # The echoes of a local server must not pass for generations of the API.
    return f"{path}.local.journal.jsonl" if local else f"{path}.journal.jsonl"


def check_files(source: str, output: Output, journal: str | None) -> None:
    """
    Refuse files of which one would overwrite another, and files that cannot be written.

    Raises `click.UsageError`, and `OSError` when the output cannot be written.
    """
    output_name = "stdout" if output.path is None else "OUTPUT"
    input_name = "stdin" if source == "-" else "INPUT"
    input_id, output_id = _identity(source, sys.stdin), _identity(output.path or "-", sys.stdout)
    if input_id is not None and input_id == output_id:
        raise click.UsageError(f"{input_name} and {output_name} are the same file.")
    if journal is not None:
        journal_id = _identity(journal)
        for name, file_id in ((input_name, input_id), (output_name, output_id)):
            if file_id == journal_id:
                raise click.UsageError(f"{name} and the journal are the same file.")
    if output.path is None:
        check_stdout()
    else:
        output.check()
    if journal is not None:
        _check_journal(journal)


def check_content(output: Output, journal: str | None) -> None:
    """Refuse to replace a file that no journal can restore."""
    if output.is_regular and not output.is_empty and not (journal and has_entries(journal)):
        raise click.UsageError(f"{output.path} already exists, and its content is in no journal: remove it first.")


def _check_journal(journal: str) -> None:
    """Refuse a journal that cannot be one; opening a FIFO would wait for its other end."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(journal).st_mode):  # noqa: PTH116 - one path, one style
            raise click.UsageError(f"The journal {journal} is not a regular file.")
    folder = os.path.dirname(os.path.realpath(journal))  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        raise click.UsageError(f"The folder of the journal does not exist: {folder}.")


def _identity(path: str, stream: TextIO | None = None) -> object:
    """
    Return what only this file has, whatever its path: it may have hard links. None if it is not a regular file.

    *stream*: for the path "-".
    """
    try:
        status = os.fstat(stream.fileno()) if path == "-" and stream is not None else os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a stream without a descriptor, or closed
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
