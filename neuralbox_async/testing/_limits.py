"""Hour and day limits as fixed windows, with the headers and the 429 body that the vendor documents."""

from __future__ import annotations

import math
import time

import attrs

from neuralbox_async.testing._refusals import RefusalError


@attrs.define
class Window:
    """At most *limit* requests in *seconds*, None is no limit. It opens with the first request after the last one."""

    limit: int | None
    seconds: float
    _used: int = 0
    _ends: float = 0.0

    def is_full(self, now: float) -> bool:
        """Whether a request at *now* (monotonic seconds) would be one too many."""
        return self.limit is not None and self.remaining(now) == 0

    def count(self, now: float) -> None:
        """Count a request at *now*, opening a new window if the last one has ended."""
        if now >= self._ends:
            self._used, self._ends = 0, now + self.seconds
        self._used += 1

    def remaining(self, now: float) -> int:
        """Return how many requests are left at *now*. Only for a window with a limit."""
        used = self._used if now < self._ends else 0
        return max(0, (self.limit or 0) - used)

    def resets_in(self, now: float) -> float:
        """Return the seconds from *now* to the end of the window; a window not yet open counts as opening now."""
        return self._ends - now if now < self._ends else self.seconds

    def reset(self) -> None:
        """Forget what was counted."""
        self._used, self._ends = 0, 0.0


@attrs.define(kw_only=True)
class RateLimits:
    """Both windows of one plan."""

    hour: Window
    day: Window
    plan: str
    retry_after_header: bool

    def admit(self, now: float) -> None:
        """Count a request at *now*.

        Raises:
            RefusalError: 429, with the seconds to the window's end, when a limit is reached. Then nothing is counted.
        """
        for window, name in ((self.day, "day"), (self.hour, "hour")):
            if window.is_full(now):
                raise self._refusal(window, name, now)
        self.hour.count(now)
        self.day.count(now)

    def headers(self, now: float) -> dict[str, str]:
        """Return the documented headers, without those of a limit that is not set. No Reset-Day is documented."""
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
        """Return the top-level members of a 429 body beside its code and message."""
        return {
            "retry_after": retry_after,
            "plan": self.plan,
            "limit_hour": self.hour.limit,
            "limit_day": self.day.limit,
        }

    def reset(self) -> None:
        """Open both windows afresh."""
        self.hour.reset()
        self.day.reset()

    def _refusal(self, window: Window, name: str, now: float) -> RefusalError:
        retry_after = max(1, math.ceil(window.resets_in(now)))
        kind = {"hour": "Hourly", "day": "Daily"}[name]
        return RefusalError(
            429,
            message=f"{kind} limit reached: {window.limit} requests/{name} on {self.plan.upper()} plan",
            members=self.members(retry_after),
            headers={"Retry-After": str(retry_after)} if self.retry_after_header else None,
        )
