"""The hourly and daily rate limits, as fixed windows, with the documented headers and the documented 429 body."""

from __future__ import annotations

import math
import time

import attrs

from neuralbox_async.testing._http_errors import HTTPError


@attrs.define
class Window:
    """At most *limit* requests (None: no limit) in *seconds*. The first request after the last window starts a new one.

    All times are monotonic seconds.
    """

    limit: int | None
    seconds: float
    _used: int = 0
    _end: float = 0.0

    def is_full(self, now: float) -> bool:
        """Whether a request at *now* would exceed the limit."""
        return self.limit is not None and self.remaining(now) == 0

    def record(self, now: float) -> None:
        """Count a request at *now*. Starts a new window if the last one has ended."""
        if now >= self._end:
            self._used, self._end = 0, now + self.seconds
        self._used += 1

    def remaining(self, now: float) -> int:
        """Return the number of requests left at *now*. Only for a window with a limit."""
        used = self._used if now < self._end else 0
        return max(0, (self.limit or 0) - used)

    def resets_in(self, now: float) -> float:
        """Return the seconds from *now* to the end of the window, which starts at *now* if none is open."""
        return self._end - now if now < self._end else self.seconds

    def reset(self) -> None:
        """Discard all counted requests."""
        self._used, self._end = 0, 0.0


@attrs.define(kw_only=True)
class RateLimits:
    """The hourly and the daily window of one plan."""

    hour: Window
    day: Window
    plan: str
    retry_after_header: bool

    def admit(self, now: float) -> None:
        """Count a request at *now* (monotonic seconds).

        Raises:
            HTTPError: 429 with the seconds to the end of the window if a limit is reached. The request is not counted.
        """
        for window, name in ((self.day, "day"), (self.hour, "hour")):
            if window.is_full(now):
                raise self._error(window, name, now)
        self.hour.record(now)
        self.day.record(now)

    def headers(self, now: float) -> dict[str, str]:
        """Return the documented headers of the limits that are set. The vendor documents no Reset-Day header."""
        headers: dict[str, str] = {}
        if self.hour.limit is not None:
            reset = math.ceil(time.time() + self.hour.resets_in(now))
            headers["X-RateLimit-Limit-Hour"] = str(self.hour.limit)
            headers["X-RateLimit-Remaining-Hour"] = str(self.hour.remaining(now))
            headers["X-RateLimit-Reset-Hour"] = str(reset)
        if self.day.limit is not None:
            headers["X-RateLimit-Limit-Day"] = str(self.day.limit)
            headers["X-RateLimit-Remaining-Day"] = str(self.day.remaining(now))
        return headers

    def members(self, retry_after: float) -> dict[str, object]:
        """Return the top-level members of a 429 body besides its code and message."""
        return {
            "retry_after": retry_after,
            "plan": self.plan,
            "limit_hour": self.hour.limit,
            "limit_day": self.day.limit,
        }

    def reset(self) -> None:
        """Reset both windows."""
        self.hour.reset()
        self.day.reset()

    def _error(self, window: Window, name: str, now: float) -> HTTPError:
        retry_after = max(1, math.ceil(window.resets_in(now)))
        adjective = {"hour": "Hourly", "day": "Daily"}[name]
        return HTTPError(
            429,
            message=f"{adjective} limit reached: {window.limit} requests/{name} on {self.plan.upper()} plan",
            members=self.members(retry_after),
            headers={"Retry-After": str(retry_after)} if self.retry_after_header else None,
        )
