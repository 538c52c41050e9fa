"""
When the next request of a batch may start.

Nothing here waits or does I/O. A `Pacer` decides from the rate limits of the account and from the outcomes of the
batch's own requests. Times are those of `time.monotonic`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._call.rate_limits import RateLimits

_INITIAL_WINDOW = 16
_OUTAGE_AFTER = 3  # failures in a row; fewer are ordinary network failures
_MAX_COOLDOWN = 8.0  # seconds
_CATCH_UP = 0.1  # seconds by which a fixed rate may be late and make up for it


class Pacer:
    """
    Decides when the next request of one batch may start.

    *rate*: requests per second, or None to adapt: more at a time while the server accepts them, half as many when it
    pushes back. Either way no more than *max_in_flight* are in flight, nor more than a known limit leaves, and after a
    limit's end one request goes first, alone. *is_over* returns True when the batch's requests will never end.
    """

    def __init__(
        self,
        limits: RateLimits,
        *,
        max_in_flight: int,
        rate: float | None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.in_flight = 0
        self.is_over = is_over
        self._limits, self._max_in_flight, self._rate = limits, max_in_flight, rate
        self._window = float(max_in_flight if rate else min(max_in_flight, _INITIAL_WINDOW))
        self._threshold = math.inf
        self._halved_at = 0.0
        self._failures = self._cooldowns = 0  # since the last response
        self._cooldown_until = 0.0
        self._next_start = 0.0
        self._probe_in_flight: bool | None = None  # after a limit's end: True while one request probes, False before
        self.opens_at: float | None = None  # when a limit that delays the next request ends
        limits.subscribe(self)

    def close(self) -> None:
        """End: nothing more will start. Idempotent."""
        self._limits.unsubscribe(self)

    def delay(self, now: float) -> float:
        """Return the seconds until one more may start: 0 for now, infinity for after a response."""
        opens_at = max(self._limits.opens_at(now, self.in_flight), self._cooldown_until)
        if opens_at > now:
            self.opens_at = opens_at if opens_at < math.inf else None
            if self.opens_at:
                self._probe_in_flight = False
            return opens_at - now
        self.opens_at = None
        if self._probe_in_flight or self.in_flight >= int(self._window):
            return math.inf
        return max(0.0, self._next_start - now) if self._rate else 0.0

    def record_start(self, now: float) -> None:
        """Record that a request starts."""
        self.in_flight += 1
        if self._probe_in_flight is False:
            self._probe_in_flight = True
        if self._rate:
            self._next_start = max(self._next_start, now - _CATCH_UP) + 1 / self._rate

    def record_admitted(self) -> None:
        """Record that the server accepted a request in flight, whatever its outcome."""
        self.in_flight -= 1
        self._probe_in_flight = None
        self._failures = self._cooldowns = 0
        self._limits.record_admitted()
        if self._window < self._max_in_flight:
            if self._threshold == math.inf and self._limits.known:
                self._window = self._max_in_flight  # the limits are known: there is nothing to probe
            else:
                self._window += 1.0 if self._window < self._threshold else 1.0 / self._window

    def record_pushed_back(self, now: float, started: float) -> None:
        """Record that a request *started* at that time was refused, or did not get through."""
        self.record_ended()
        if started < self._halved_at:
            return  # it started before the window was halved, and adds no information
        self._halved_at, self._probe_in_flight = now, False
        if self._rate is None:
            self._window = self._threshold = max(1.0, self._window / 2)

    def record_failed(self, now: float, started: float) -> None:
        """Record that a request *started* at that time got no response; several in a row reduce the pace."""
        self._failures += 1
        if self._failures < _OUTAGE_AFTER or started < self._halved_at:
            self.record_ended()
            return
        self.record_pushed_back(now, started)
        self._cooldown_until = now + min(_MAX_COOLDOWN, 0.25 * 2**self._cooldowns)
        self._cooldowns = min(10, self._cooldowns + 1)

    def record_ended(self) -> None:
        """Record that a request in flight ended without any information about the server."""
        self.in_flight -= 1
        if self._probe_in_flight:
            self._probe_in_flight = False
