"""Reading from pipes and terminals, in which Ctrl-C takes effect at once."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

_POLL_INTERVAL: Final = 0.2  # seconds between checks for a signal
_CHUNK_SIZE: Final = 1 << 16
_PATIENCE: Final = 10  # polls, so 2 s: other programs may take as long to write


def read_chunks(file: BinaryIO, on_wait: Callable[[], None] | None = None) -> Iterator[bytes]:
    """
    Yield the bytes of *file* as they arrive, up to its end. A signal is handled within 0.2 s.

    *on_wait* is called once when nothing arrives for 2 s; not on Windows.
    """
    if file.seekable():
        yield file.read()
        return
    # A signal that arrives just before a blocking read, or between two reads of one `read`, is handled only after it:
    # CPython 3.15 misses every third. Windows has no such select.
    descriptor = file.fileno()
    polls = 0
    while True:
        while os.name != "nt" and not select.select([descriptor], [], [], _POLL_INTERVAL)[0]:
            polls += 1
            if polls == _PATIENCE and on_wait is not None:
                on_wait()
        chunk = os.read(descriptor, _CHUNK_SIZE)
        if not chunk:
            return
        yield chunk
