"""The faults that a server can inject, and the queue of pending faults."""

from __future__ import annotations

import threading
from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

CloseMode: TypeAlias = Literal["eof", "close", "reset"]

_GENERATE_PATHS = ("/generate", "/generate/stream")


@attrs.frozen(kw_only=True)
class Fault:
    """A fault for one request that it matches.

    *path* is a pattern (`/generate/status/*`) for the path below the base URL. None matches both generate endpoints if
    *method* is POST, and any path otherwise. *stream* matches only streaming requests (True), only others (False), or
    both (None).
    """

    method: str = "POST"
    path: str | None = None
    stream: bool | None = None

    def matches(self, method: str, path: str, *, stream: bool) -> bool:
        """Whether this fault is for a request of *method* to *path*, streaming or not."""
        return method == self.method and self._matches_path(path) and self.stream in (None, stream)

    def _matches_path(self, path: str) -> bool:
        if self.path is not None:
            return fnmatchcase(path, self.path)
        return self.method != "POST" or path in _GENERATE_PATHS


@attrs.frozen(kw_only=True)
class Fail(Fault):
    """Respond with *status*. If *billed*, run and bill the generation first, as when a gateway times out."""

    status: int
    code: str | None = None
    message: str | None = None
    body: bytes | str | Mapping[str, object] | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    retry_after: float | None = None
    billed: bool = False


@attrs.frozen(kw_only=True)
class Delay(Fault):
    """Wait for *seconds* before the request is handled."""

    seconds: float


@attrs.frozen(kw_only=True)
class Drop(Fault):
    """Close the connection without a response, *before* the generation is accepted or *after* it is billed."""

    when: Literal["before", "after"]
    how: CloseMode


@attrs.frozen(kw_only=True)
class StreamFault(Fault):
    """A fault after *after_events* events of a stream. If *finish*, the generation is completed and billed."""

    stream: bool | None = True
    after_events: int
    finish: bool = False


@attrs.frozen(kw_only=True)
class Cut(StreamFault):
    """End the stream early."""

    how: CloseMode


@attrs.frozen(kw_only=True)
class Stall(StreamFault):
    """Send nothing more and keep the connection open."""


@attrs.frozen(kw_only=True)
class ErrorEvent(StreamFault):
    """Send an `error` event, then `[DONE]` if *done*, and end the body."""

    message: str
    done: bool = False


class FaultQueue:
    """The pending faults. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: deque[Fault] = deque()

    def add(self, fault: Fault, times: int) -> None:
        """Append *fault* for the next *times* requests that match it."""
        with self._lock:
            self._faults.extend([fault] * times)

    def take(self, method: str, path: str, *, stream: bool) -> Fault | None:
        """Remove and return the oldest fault that matches the request."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.matches(method, path, stream=stream):
                    self._faults.remove(fault)
                    return fault
        return None

    def clear(self) -> None:
        """Remove all pending faults."""
        with self._lock:
            self._faults.clear()

    def pending(self) -> tuple[Fault, ...]:
        """Return the pending faults, oldest first."""
        with self._lock:
            return tuple(self._faults)
