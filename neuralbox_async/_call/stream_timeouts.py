"""The timeouts of a stream: for the whole of it, for the first event, and for the time without content."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neuralbox_async._types import ContentDelta, GenerationEnd, GenerationStart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuralbox_async._call.stream_reader import StreamLimits
    from neuralbox_async._types import StreamEvent


_LATE_READS = 0.25  # seconds


class StreamTimeouts:
    """Deadlines (times of the event loop), and the seconds of waiting without content that are left."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self.total = math.inf
        self._expires = math.inf  # from the first read after *total*
        self._first_event_deadline: float | None = math.inf  # None once the first event with content has arrived
        self._content = math.inf
        self._stall_budget = self._stall_timeout = _or_infinity(limits.stall_timeout)
        self._was_held_up = False  # since the last content
        self._recovery_budget = self._stall_timeout

    def start(self, now: float) -> None:
        """Start the timeouts at the time *now*."""
        self.total = now + _or_infinity(self._limits.timeout)
        self._first_event_deadline = now + _or_infinity(self._limits.first_event_timeout)

    def total_has_expired(self, now: float) -> bool:
        """
        Return whether a read that starts at *now* is too late for the total timeout.

        It is not at once: what had arrived before, while the process was stopped, say, is read first, for a moment.
        """
        if now < self.total:
            return False
        self._expires = min(self._expires, now + _LATE_READS)
        return now >= self._expires

    def read_deadline(self, now: float) -> float:
        """Return the deadline of a read that starts at *now*."""
        self._content = now + self._stall_budget if self._first_event_deadline is None else self._first_event_deadline
        return min(self._content, self.total)

    def body_deadline(self, now: float) -> tuple[float, str]:
        """Return the deadline of reading a whole body from *now*, and the timeout that it belongs to."""
        self._first_event_deadline = None  # its first byte has arrived
        return min((self.total, "total"), (now + self._stall_budget, "stall"))

    def recovery_deadline(self, now: float) -> float:
        """Return the deadline of a recovery that starts or, after a cancelled read, starts again at the time *now*."""
        return min(self.total, now + max(0.0, self._recovery_budget))

    def count_recovery(self, waited: float) -> None:
        """Account for a recovery, or one that a cancelled read ended, that took *waited* seconds."""
        self._recovery_budget -= waited

    @property
    def phase(self) -> str:
        """The timeout that the last read deadline belongs to: ``"total"``, ``"stall"`` or ``"first_event"``."""
        if self.total <= self._content:
            return "total"
        return "stall" if self._first_event_deadline is None else "first_event"

    def has_expired(self, now: float) -> bool:
        """Return whether the timeout for content has expired at the time *now*."""
        return self._stall_budget <= 0 if self._first_event_deadline is None else now >= self._first_event_deadline

    def update(self, received: Iterable[StreamEvent | dict[str, Any]], waited: float) -> None:
        """Account for a read that *received* these events (dicts are deltas) and *waited* so many seconds."""
        # Comments, unknown events and empty deltas are heartbeats; they must not keep a dead generation alive.
        for event in received:
            if event["delta"] if isinstance(event, dict) else self._is_progress(event):
                self._first_event_deadline = None
                self._stall_budget = self._stall_timeout
                self._was_held_up = False
                return
        if self._first_event_deadline is not None:
            return
        if waited > self._stall_budget + _LATE_READS and not self._was_held_up:
            # Data ended the wait, long after its deadline: the process was stopped meanwhile, or the loop blocked.
            # That is no time in which the server was silent; but a loop that is blocked again and again still ends.
            self._was_held_up = True
            return
        self._stall_budget -= waited

    def _is_progress(self, event: StreamEvent) -> bool:
        if isinstance(event, GenerationStart):
            return self._first_event_deadline is not None  # repeated, it is a heartbeat as well
        return isinstance(event, GenerationEnd) or (isinstance(event, ContentDelta) and event.delta != "")


def _or_infinity(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
