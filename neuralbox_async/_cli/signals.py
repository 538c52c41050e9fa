"""The signals that end a run of a batch: handled in its event loop, on every system."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGHUP: Final[int | None] = getattr(signal, "SIGHUP", None)  # Windows has none


@contextmanager
def handle_signals(handle: Callable[[int], None]) -> Generator[None]:
    """Call *handle* in the event loop with the number of each SIGINT, SIGTERM and SIGHUP."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    loop = asyncio.get_running_loop()

    # Not `loop.add_signal_handler`: it does not exist on Windows.
    def call_in_loop(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(handle, number)

    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    if SIGHUP is not None and signal.getsignal(SIGHUP) is not signal.SIG_IGN:  # as `nohup` wants it
        numbers.append(SIGHUP)
    previous = {number: signal.signal(number, call_in_loop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
