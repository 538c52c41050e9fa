"""Starting and stopping the thread of a local server: from blocking code, from async code, or until a signal comes."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel

from neuralbox_async.testing._thread import ServerThread

_CLOSE_SECONDS: Final = 1.9
# Short enough not to be noticed, and no lock that a signal could leave held.
_POLL_SECONDS: Final = 0.001


class Lifecycle:
    """What can be entered, blocking or async, and runs the thread that *make_thread* makes in between."""

    def __init__(self, make_thread: Callable[[], ServerThread]) -> None:
        self._make_thread = make_thread
        self._thread: ServerThread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the server listens."""
        return self._thread is not None and self._thread.is_alive

    def start(self) -> Self:
        """Start to listen. A server that was closed can be started again, on a new port if it had a free one.

        Raises:
            OSError: if the address cannot be listened on.
            RuntimeError: if the server is running.
        """
        self._launch()
        try:
            while not self._has_started():
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop: end every request, close every socket and the thread, in less than 2 s. Idempotent, from any thread."""
        thread = self._thread
        if thread is None or not self._ask_to_stop(thread):
            return
        thread.join(_CLOSE_SECONDS)
        self._warn_if_alive(thread)

    def run(self, *, ready: Callable[[Self], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM comes (in the main thread), or `close` is called elsewhere; then return.

        *ready* is called once the server listens.

        Raises:
            OSError: if the address cannot be listened on.
        """
        with suppress(KeyboardInterrupt), _sigterm_as_interrupt(), self:
            if ready is not None:
                ready(self)
            while self.is_running:
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._launch()
        try:
            await anyio.lowlevel.checkpoint()
            # Not waited for in a worker thread: that would outlive the test, which may look for leaked threads.
            while not self._has_started():  # noqa: ASYNC110 - another thread's progress
                await anyio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread = self._thread
        if thread is None or not self._ask_to_stop(thread):
            return
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            while thread.is_alive:  # noqa: ASYNC110 - another thread's progress
                await anyio.sleep(_POLL_SECONDS)
        self._warn_if_alive(thread)

    def _launch(self) -> None:
        if self.is_running:
            raise RuntimeError("The server is running.")
        self._thread = self._make_thread()
        self._thread.start()

    def _has_started(self) -> bool:
        thread = self._running_thread()
        if thread.failure is not None:
            raise thread.failure
        return thread.is_ready

    @staticmethod
    def _ask_to_stop(thread: ServerThread) -> bool:
        """Ask *thread* to stop, and return whether it makes sense to wait for it."""
        thread.stop()
        return thread.is_alive and not thread.is_current

    @staticmethod
    def _warn_if_alive(thread: ServerThread) -> None:
        if thread.is_alive:
            message = "The local server's thread does not end: does its `reply` block?"
            warnings.warn(message, ResourceWarning, stacklevel=3)

    def _running_thread(self) -> ServerThread:
        if self._thread is None:
            raise RuntimeError("The server was not started.")
        return self._thread


@contextmanager
def _sigterm_as_interrupt() -> Generator[None, None, None]:
    """Let SIGTERM raise KeyboardInterrupt, where signals can be handled at all: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
