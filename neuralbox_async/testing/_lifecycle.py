"""Start and stop the thread of a local server: from blocking code, from async code, or until a signal arrives."""

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

from neuralbox_async.testing._server_thread import ServerThread

_CLOSE_SECONDS: Final = 1.9
# Polling needs no lock that a signal handler's exception could leave held. The interval is too short to be noticed.
_POLL_SECONDS: Final = 0.001


class Lifecycle:
    """A context manager, blocking and async, that runs the thread returned by *make_thread*."""

    def __init__(self, make_thread: Callable[[], ServerThread]) -> None:
        self._make_thread = make_thread
        self._thread: ServerThread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the server is running."""
        return self._thread is not None and self._thread.is_alive

    def start(self) -> Self:
        """Start the server. A closed server can be started again; with port 0 it then listens on a new port.

        Raises:
            OSError: if the server cannot listen on the address.
            RuntimeError: if the server is running.
        """
        self._start_thread()
        try:
            while not self._has_started():
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Abort all requests, close all sockets and stop the thread, in less than 2 s. Idempotent and thread-safe."""
        thread = self._thread
        if thread is None or not self._request_stop(thread):
            return
        thread.join(_CLOSE_SECONDS)
        self._warn_if_alive(thread)

    def run(self, *, ready: Callable[[Self], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM arrives (in the main thread) or another thread calls `close`.

        *ready* is called when the server listens.

        Raises:
            OSError: if the server cannot listen on the address.
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
        self._start_thread()
        try:
            await anyio.lowlevel.checkpoint()
            # Not in a worker thread: it would outlive a test that checks for leaked threads.
            while not self._has_started():  # noqa: ASYNC110 - the progress of another thread
                await anyio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread = self._thread
        if thread is None or not self._request_stop(thread):
            return
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            while thread.is_alive:  # noqa: ASYNC110 - the progress of another thread
                await anyio.sleep(_POLL_SECONDS)
        self._warn_if_alive(thread)

    def _start_thread(self) -> None:
        if self.is_running:
            raise RuntimeError("The server is running.")
        self._thread = self._make_thread()
        self._thread.start()

    def _has_started(self) -> bool:
        thread = self._started_thread()
        if thread.error is not None:
            raise thread.error
        return thread.is_ready

    @staticmethod
    def _request_stop(thread: ServerThread) -> bool:
        """Request *thread* to stop. Return whether the caller must wait for it."""
        thread.stop()
        return thread.is_alive and not thread.is_current

    @staticmethod
    def _warn_if_alive(thread: ServerThread) -> None:
        if thread.is_alive:
            message = "The local server's thread did not stop in time. Does its `reply` block?"
            warnings.warn(message, ResourceWarning, stacklevel=3)

    def _started_thread(self) -> ServerThread:
        if self._thread is None:
            raise RuntimeError("The server was not started.")
        return self._thread


@contextmanager
def _sigterm_as_interrupt() -> Generator[None, None, None]:
    """Make SIGTERM raise KeyboardInterrupt in the main thread. Other threads cannot set signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
