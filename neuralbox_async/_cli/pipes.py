"""Reading from pipes and terminals, in which Ctrl-C takes effect at once."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import BinaryIO, Final

_POLL_INTERVAL: Final = 0.2  # seconds between checks for a signal
_CHUNK_SIZE: Final = 1 << 16


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of *file* as they arrive, up to its end. A signal is handled within 0.2 s."""
    if file.seekable():
        yield file.read()
        return
    # A signal that arrives just before a blocking read, or between two reads of one `read`, is handled only after it:
    # CPython 3.15 misses every third. Windows has no such select.
    descriptor = file.fileno()
    while True:
        while os.name != "nt" and not select.select([descriptor], [], [], _POLL_INTERVAL)[0]:
            pass
        chunk = os.read(descriptor, _CHUNK_SIZE)
        if not chunk:
            return
        yield chunk
