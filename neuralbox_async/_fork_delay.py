"""
Forks wait until threads of ours that have used OpenSSL are gone.

While such a thread ends, after its Python code, it holds a lock of OpenSSL for some microseconds. A child that is
forked then could never exit.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator

_DELAY = 0.1  # seconds; before Python 3.13, nothing tells when a thread is gone
_last_end = -_DELAY


@contextlib.contextmanager
def last_block_of_thread() -> Generator[None]:
    """Delay forks for 0.1 s after the block, with which the Python code of its thread ends."""
    global _last_end  # noqa: PLW0603 - there is one operating system's process to fork
    try:
        yield
    finally:
        _last_end = time.monotonic()


def _wait_for_ends() -> None:
    while (left := _last_end + _DELAY - time.monotonic()) > 0:
        time.sleep(left)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_ends)
