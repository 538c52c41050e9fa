"""Scripted faults: what the server is told to do wrong, once or a few times, in the order it was told."""

from __future__ import annotations

import threading
from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

HangUp: TypeAlias = Literal["eof", "close", "reset"]

_GENERATE = ("/generate", "/generate/stream")


@attrs.frozen(kw_only=True)
class Fault:
    """One thing to do wrong, to a request that it fits.

    *path* is a pattern (`/generate/status/*`) for the path below the base URL; None is both generate paths for a POST
    and any path for another method. *stream* aims at streaming requests only (True), at others only (False), or at
    both.
    """

    method: str = "POST"
    path: str | None = None
    stream: bool | None = None

    def fits(self, method: str, path: str, *, stream: bool) -> bool:
        """Whether this fault is for a request of *method* to *path*, asking for a *stream* or not."""
        return method == self.method and self._fits_path(path) and self.stream in (None, stream)

    def _fits_path(self, path: str) -> bool:
        if self.path is not None:
            return fnmatchcase(path, self.path)
        return self.method != "POST" or path in _GENERATE


@attrs.frozen(kw_only=True)
class Fail(Fault):
    """Answer with *status*; if *billed*, after the generation was run, as a gateway that gives up late does."""

    status: int
    code: str | None = None
    message: str | None = None
    body: bytes | str | Mapping[str, object] | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    retry_after: float | None = None
    billed: bool = False


@attrs.frozen(kw_only=True)
class Delay(Fault):
    """Take *seconds* longer before anything is done with the request."""

    seconds: float


@attrs.frozen(kw_only=True)
class Drop(Fault):
    """Close the connection without an answer: *before* the request is accepted, or *after* it was run and billed."""

    when: Literal["before", "after"]
    how: HangUp


@attrs.frozen(kw_only=True)
class StreamFault(Fault):
    """What befalls a stream after *after_events* events. If *finish*, the generation is completed (and billed)."""

    stream: bool | None = True
    after_events: int
    finish: bool = False


@attrs.frozen(kw_only=True)
class Cut(StreamFault):
    """End the stream early."""

    how: HangUp


@attrs.frozen(kw_only=True)
class Stall(StreamFault):
    """Go silent, with the connection open."""


@attrs.frozen(kw_only=True)
class ErrorEvent(StreamFault):
    """Send an `error` event, and end the body; with *done* after a `[DONE]`."""

    message: str
    done: bool = False


class FaultScript:
    """The faults still to come. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: deque[Fault] = deque()

    def add(self, fault: Fault, times: int) -> None:
        """Append *fault* for the next *times* requests that it fits."""
        with self._lock:
            self._faults.extend([fault] * times)

    def take(self, method: str, path: str, *, stream: bool) -> Fault | None:
        """Remove and return the oldest fault that fits the request."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.fits(method, path, stream=stream):
                    self._faults.remove(fault)
                    return fault
        return None

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._faults.clear()

    def pending(self) -> tuple[Fault, ...]:
        """Return the faults not yet taken, oldest first."""
        with self._lock:
            return tuple(self._faults)
