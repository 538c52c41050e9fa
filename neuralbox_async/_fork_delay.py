"""
Forks wait until threads of ours that have used OpenSSL are gone.

While such a thread ends, after its Python code, it holds a lock of OpenSSL for some microseconds. A child that is
forked then could never exit.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Final

_TASKS: Final = "/proc/self/task"  # Linux lists the threads there; elsewhere nothing tells when a thread is gone
_LISTED: Final = os.path.isdir(_TASKS)  # noqa: PTH112 - pathlib takes long to import
_MAX_DELAY: Final = 1.0 if _LISTED else 0.1  # seconds
_POLL: Final = 0.0005

_lock = threading.RLock()  # held during a fork: none of the threads begins to end between the wait and the fork
_ending: deque[tuple[int, float]] = deque()  # the threads that may not be gone yet, with when they began to end


@contextlib.contextmanager
def forks_wait_for_thread() -> Generator[None]:
    """Let forks wait until this thread is gone, once the block has ended, with which its Python code ends."""
    try:
        yield
    finally:
        with _lock:
            now = time.monotonic()
            while _ending and _ending[0][1] < now - _MAX_DELAY:
                _ending.popleft()
            _ending.append((threading.get_native_id(), now))


def _wait() -> None:
    while _ending:
        thread, began = _ending[0]
        while time.monotonic() < began + _MAX_DELAY and _may_run(thread):
            select.select([], [], [], _POLL)  # gevent's `time.sleep` would run other greenlets during the fork
        _ending.popleft()


def _may_run(thread: int) -> bool:
    return not _LISTED or os.path.exists(f"{_TASKS}/{thread}")  # noqa: PTH110 - the same


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_child=_ending.clear)
    # A fork acquires it before it waits: in reverse order of registration.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
