"""The question what to do with requests of an earlier run that may have been billed."""

from __future__ import annotations

import os
import select
import sys
from typing import Final, Literal, TextIO

from neuralbox_async import OutcomeUnknownError
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.terminal import print_error

_MAX_KEYS_SHOWN: Final = 10
_STDIN_POLL: Final = 0.2  # seconds between checks for an interrupt while a reply is awaited


def ask(source: str, error: OutcomeUnknownError) -> Literal["retry", "skip"] | None:
    """Ask the user about the requests that may have been billed; None: send nothing."""
    for key in error.keys[:_MAX_KEYS_SHOWN]:
        print_error(printable_line(f"neuralbox: may have been billed without a response: {key}"))
    if len(error.keys) > _MAX_KEYS_SHOWN:
        print_error(f"neuralbox: and {len(error.keys) - _MAX_KEYS_SHOWN:,} more")
    stdin: TextIO | None = sys.stdin  # None if the process was started with stdin closed
    if source == "-" or stdin is None or not (stdin.isatty() and sys.stderr.isatty()):
        print_error("neuralbox: nothing was sent; use --on-unknown retry to send them again, or skip to skip them")
        return None
    while True:
        sys.stderr.write("Send them again? They may be billed twice. [yes: retry, no: skip, Ctrl-C: stop] ")
        sys.stderr.flush()
        reply = _read_reply()
        if not reply:  # Ctrl-D
            print_error("")
            return None
        if reply.strip().lower() in {"y", "yes", "retry"}:
            return "retry"
        if reply.strip().lower() in {"n", "no", "skip"}:
            return "skip"


def _read_reply() -> str:
    """Return the next line of stdin, or "" at its end."""
    # A signal that arrives just before a blocking read is handled only after it. Windows has no such select.
    while os.name != "nt" and not select.select([sys.stdin], [], [], _STDIN_POLL)[0]:
        pass
    return sys.stdin.readline()
