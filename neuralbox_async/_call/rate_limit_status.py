"""What users see of the rate limits of an account: a snapshot."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from neuralbox_async._call.rate_limits import RateLimits, Window


@attrs.frozen(kw_only=True)
class RateLimitWindow:
    """
    One window of the rate limits; what is not known is None.

    * *limit*: requests in the window. *remaining*: how many of them are left.
    * *resets_at*: when the window ends, an aware datetime of this machine's clock.
    """

    limit: int | None = None
    remaining: int | None = None
    resets_at: datetime | None = None


@attrs.frozen(kw_only=True)
class RateLimitStatus:
    """
    The rate limits of an account: the windows of an *hour* and of a *day*.

    Source: the vendor's page "Rate limits". It documents no end of the day's window.
    """

    hour: RateLimitWindow = RateLimitWindow()
    day: RateLimitWindow = RateLimitWindow()


def snapshot_of(rate_limits: RateLimits) -> RateLimitStatus:
    """Return the state of *rate_limits* now."""
    return RateLimitStatus(hour=_snapshot(rate_limits.hour), day=_snapshot(rate_limits.day))


def _snapshot(window: Window) -> RateLimitWindow:
    limit, remaining, resets_at = window.limit, window.remaining, window.resets_at
    if resets_at is None:
        return RateLimitWindow(limit=limit, remaining=remaining)
    seconds = resets_at - time.monotonic()
    if seconds <= 0:  # a new window has begun, of which no response is known
        return RateLimitWindow(limit=limit, remaining=limit)
    return RateLimitWindow(limit=limit, remaining=remaining, resets_at=datetime.now(UTC) + timedelta(seconds=seconds))
