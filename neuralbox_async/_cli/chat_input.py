"""The messages of a chat: lines of stdin, which can be edited at a terminal."""

from __future__ import annotations

import importlib
import io
import os
import select
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import click

from neuralbox_async._cli.terminal import print_error

_PROMPT: Final = "> "
_PASTE_GAP: Final = 0.05  # seconds between the lines of a pasted text, at most


def configure_input() -> None:
    """Read UTF-8, whatever the locale, and let a terminal edit lines and repeat earlier ones, where Python can."""
    stdin: TextIO | None = sys.stdin  # None if the process was started with stdin closed
    if stdin is None:
        raise click.UsageError("There are no messages: stdin is closed.")
    if isinstance(stdin, io.TextIOWrapper):
        cast("io.TextIOWrapper", stdin).reconfigure(encoding="utf-8", errors="surrogateescape")
    with suppress(ImportError):  # Windows has an editor of its own
        importlib.import_module("readline")


def read_message() -> str | None:
    """Return the next message, None at the end of stdin. Lines that are pasted into a terminal together are one."""
    try:
        lines = [input(_PROMPT if _is_interactive() else "")]
    except EOFError:
        if _is_interactive():
            print_error("")
        return None
    with suppress(EOFError):
        while not lines[0].startswith("/") and _has_more():
            lines.append(input())
    text = "\n".join(lines)
    try:
        text.encode()
    except UnicodeEncodeError:
        print_error("neuralbox: the message is not valid UTF-8, and was not sent")
        return ""
    return text


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _has_more() -> bool:
    """Return whether another line is at the terminal already. Windows has no such select."""
    return _is_interactive() and os.name != "nt" and bool(select.select([sys.stdin], [], [], _PASTE_GAP)[0])
