"""The log of a server that a command runs: a line on stderr for each request."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime

from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.terminal import discard_stderr, print_error


class _RequestLog(logging.Handler):
    """Writes a line to stderr for each record; paths and models come from outside."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_error(printable_line(f"{datetime.now().astimezone():%H:%M:%S} {record.getMessage()}"))
        except BrokenPipeError:  # nobody reads the log: the server goes on
            discard_stderr()


@contextmanager
def request_log(name: str, level: int = logging.INFO) -> Generator[None]:
    """Write what the logger *name* records, from *level* on, to stderr while the context is open."""
    logger, handler = logging.getLogger(name), _RequestLog()
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
