"""What a worker learns of the rate limits: reported to the coordinator, which decides for all workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._call.rate_limits import RateLimits
from neuralbox_async._cluster.messages import LimitReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._errors import RateLimitError

_HEADERS = tuple(
    f"x-ratelimit-{fact}-{window}" for fact in ("limit", "remaining", "reset") for window in ("hour", "day")
)


@attrs.define(eq=False)
class LearnedLimits(RateLimits):
    """The limits of the account of one worker, and the *reports* that the coordinator has not got yet."""

    reports: list[LimitReport] = attrs.field(factory=list[LimitReport])

    def observe(self, headers: Mapping[str, str], *, counted: bool) -> None:
        """Learn from the *headers* (lower-case names) of a response to a request that *counted* against the limits."""
        super().observe(headers, counted=counted)
        facts = {name: headers[name] for name in (*_HEADERS, "date") if name in headers}
        if counted or len(facts) > 1:
            self.reports.append(LimitReport(headers=facts, counted=counted))

    def record_refused(self, error: RateLimitError) -> None:
        """Learn from a 429."""
        super().record_refused(error)
        self.reports.append(
            LimitReport(
                refused=True,
                retry_after=error.retry_after,
                limit_hour=error.limit_hour,
                limit_day=error.limit_day,
            )
        )

    def close_for(self, seconds: float) -> None:
        """Send nothing for so many *seconds*, because of a limit that another worker has reached."""
        if seconds > 0:
            self.closed_until = max(self.closed_until, time.monotonic() + seconds)
