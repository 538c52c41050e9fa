"""
The rate limits of the account, as far as responses report them.

`RateLimits` belongs to an API key, so derived clients share it, and learns from each response of any call. Nothing here
waits or does I/O. Times are those of `time.monotonic`.

Source: the vendor's page "Rate limits" (``X-RateLimit-*``, fixed hour and day windows, the body of a 429).
"""

from __future__ import annotations

import functools
import math
import random
import time
import weakref
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async._errors import RateLimitError

_HOUR, _DAY = 3600.0, 86400.0
_REMAINING_HOUR, _REMAINING_DAY = "x-ratelimit-remaining-hour", "x-ratelimit-remaining-day"
_MIN_LIMIT_WITH_RESERVE, _MAX_RESERVE = 20, 10
_MAX_CLOCK_SKEW = 2.0  # seconds; the ``Date`` header has whole ones, so ours is the better clock unless it is off
_OVERDUE_RECHECK = 0.5  # seconds until the next check, when a window lasts longer than announced
_MAX_SPARE, _SPARE_PART = 100, 20  # at most 100 requests, and a twentieth of what remains,
_SPARE_SECONDS = 1.0  # for so long: others use the account, too
_MAX_REFUSAL_PAUSE = 60.0
_SHORT = 1.0  # seconds
_MAX_DOUBLINGS = 10  # of a pause: there is no power of 2 for any number of refusals


@attrs.define(eq=False)
class Window:
    """One fixed window, as far as it is known: *limit* requests in *seconds*, *remaining* of them until *resets_at*."""

    seconds: float
    limit: int | None = None
    remaining: int | None = None
    resets_at: float | None = None
    announced_reset: int = 0  # its end as a Unix time, as the server sent it

    def update(self, limit: int | None, remaining: int, announced_reset: int, resets_at: float | None) -> None:
        """Apply the numbers of one response; responses do not arrive in the order in which requests were counted."""
        if limit:
            self.limit = limit
        known = self.remaining
        if announced_reset > self.announced_reset:
            self.announced_reset, self.resets_at, self.remaining = announced_reset, resets_at, remaining
        elif announced_reset == self.announced_reset and (
            known is None or remaining < known or remaining > known + (self.limit or 0) / 2
        ):
            self.remaining = remaining

    def count(self, now: float) -> None:
        """Count a request whose response has no limits, in a window that is known from a refusal."""
        if self.remaining is not None:
            self.remaining -= 1
            self.resets_at = self.resets_at or now + self.seconds

    def exhaust(self, limit: int | None, resets_at: float) -> None:
        """Record that no request remains until *resets_at*."""
        self.limit, self.remaining, self.resets_at = limit or self.limit, 0, resets_at

    def opens_at(self, now: float, in_flight: int) -> float:
        """Return when one more request may join the *in_flight* ones: 0 for now, infinity for after a response."""
        if self.remaining is None:
            return 0.0
        if self.resets_at is not None and now >= self.resets_at:
            self.remaining, self.resets_at = self.limit, None
            return 0.0
        if in_flight + _MAX_RESERVE < self.remaining:  # nearly always
            return 0.0
        # Without a known end only a refusal reports it: then nothing is reserved.
        left = self.remaining - (0 if self.resets_at is None else self._reserve())
        if in_flight < left or (self.resets_at is None and in_flight == 0):
            return 0.0
        return math.inf if self.resets_at is None or left > 0 else self.resets_at

    def _reserve(self) -> int:
        """Return how many requests are reserved for calls that do not wait."""
        limit = self.limit or 0
        return 0 if limit < _MIN_LIMIT_WITH_RESERVE else max(1, min(_MAX_RESERVE, limit // 50))


class Subscriber(Protocol):
    """A running batch, whose requests count together with those of other batches."""

    @property
    def in_flight(self) -> int:
        """Its requests in flight."""
        ...

    @property
    def is_over(self) -> Callable[[], bool]:
        """Returns whether it will never end its requests, because its loop is closed."""
        ...


@attrs.define(eq=False)
class RateLimits:
    """The limits of the account of one API key, learned from the responses of all its calls."""

    _hour: Window = attrs.field(factory=lambda: Window(_HOUR))
    _day: Window = attrs.field(factory=lambda: Window(_DAY))
    closed_until: float = 0.0
    # Weak: a batch may be dropped without an end. No WeakSet: that cannot be read while another thread changes it.
    _subscribers: set[weakref.ref[Subscriber]] = attrs.field(factory=set[weakref.ref["Subscriber"]])
    _refusals: int = 0
    _unread: tuple[Mapping[str, str], float] | None = None  # headers of the latest response, and when it arrived
    _spare: int = 0  # requests of batches that may start before the limits are read again,
    _spare_until: float = 0.0  # at the latest at this time

    def subscribe(self, subscriber: Subscriber) -> None:
        """Learn from every response from now on, not only from the latest, unless the limits are far away."""
        self._catch_up()
        self._subscribers.add(weakref.ref(subscriber, self._subscribers.discard))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End the subscription. Idempotent."""
        self._subscribers.discard(weakref.ref(subscriber))

    @property
    def active_subscribers(self) -> list[Subscriber]:
        """The subscribers that are running."""
        # Copying a set is atomic, unlike a loop over it.
        alive = [reference() for reference in self._subscribers.copy()]
        return [subscriber for subscriber in alive if subscriber is not None and not subscriber.is_over()]

    @property
    def hour(self) -> Window:
        """The window of an hour."""
        self._catch_up()
        return self._hour

    @property
    def day(self) -> Window:
        """The window of a day."""
        self._catch_up()
        return self._day

    @property
    def known(self) -> bool:
        """Whether any response reported a limit."""
        return self.hour.remaining is not None or self.day.remaining is not None

    def observe(self, headers: Mapping[str, str], *, counted: bool) -> None:
        """Learn from the *headers* (lower-case names) of a response to a request that *counted* against the limits."""
        if self._subscribers and self._spare <= 0:
            self._learn(headers, counted=counted)
        elif _REMAINING_HOUR in headers or _REMAINING_DAY in headers:
            # Until somebody needs them, the latest response is enough, and it is not parsed: 4 % of a call. A batch
            # needs them when the limits are near (benchmark scenario `batch`).
            self._unread = headers, time.monotonic()
        elif counted and self.known:
            self._count()

    def _catch_up(self) -> None:
        if (unread := self._unread) is not None:
            self._unread, (headers, arrived) = None, unread
            self._learn(headers, counted=True, age=time.monotonic() - arrived)

    def _least_pause(self, requested: float, now: float) -> float:
        """Return the least pause after a 429 that requests *requested* seconds: it grows with the refusals in a row."""
        if requested >= _SHORT or now < self.closed_until:
            return 0.0  # in the second case: one of many that were refused together
        # A short one may be wrong: many requests in a short time could close the account for longer.
        first, most = (0.1, _SHORT) if requested else (1.0, _MAX_REFUSAL_PAUSE)
        pause = min(most, first * 2.0 ** min(self._refusals, _MAX_DOUBLINGS))
        self._refusals += 1
        return pause

    def _learn(self, headers: Mapping[str, str], *, counted: bool, age: float = 0.0) -> None:
        hour = _number(headers.get(_REMAINING_HOUR))
        day = _number(headers.get(_REMAINING_DAY))
        if hour is None and day is None:
            if counted and self.known:
                self._count()
            return
        limit_hour = _cached_number(headers.get("x-ratelimit-limit-hour"))
        limit_day = _cached_number(headers.get("x-ratelimit-limit-day"))
        # A plan without a limit is reported as a limit of 0.
        if hour is not None and limit_hour != 0:
            reset = _cached_number(headers.get("x-ratelimit-reset-hour")) or 0
            known = reset == self._hour.announced_reset
            self._hour.update(limit_hour, hour, reset, None if known else _local_time(reset, headers, age))
            if known and self._hour.resets_at is None and reset:
                self._hour.resets_at = time.monotonic() + _OVERDUE_RECHECK
        if day is not None and limit_day != 0:
            self._day.update(limit_day, day, 0, None)

    def record_refused(self, error: RateLimitError) -> None:
        """Learn from a 429: send nothing before its *retry_after* has passed, or a growing pause of our own."""
        now, self._spare = time.monotonic(), 0
        requested = error.retry_after or 0.0
        pause = max(requested, self._least_pause(requested, now))
        if error.limit_hour and 0 < requested <= _HOUR and not self.hour.announced_reset:
            self.hour.exhaust(error.limit_hour, now + pause)
        elif error.limit_day and requested > _HOUR:
            self.day.exhaust(error.limit_day, now + pause)
        # A little later than requested, each client at another moment, so that they do not all return together.
        jitter = random.uniform(0.0, min(1.0, 0.05 * pause))  # noqa: S311 - not a secret
        self.closed_until = max(self.closed_until, now + pause + jitter)

    def record_admitted(self) -> None:
        """Record that the server accepted a request."""
        self._refusals = 0

    def opens_at(self, now: float, in_flight: int) -> float:
        """
        Return when one more request of a batch may start: 0 for now, infinity for after a response.

        *in_flight*: the requests of the batch itself.
        """
        if now < self.closed_until:
            return self.closed_until
        if self._spare > 0 and now < self._spare_until:
            self._spare -= 1
            return 0.0
        self._catch_up()
        known = [window for window in (self._hour, self._day) if window.remaining is not None]
        if not known:
            return 0.0
        if len(self._subscribers) > 1:
            in_flight = sum(subscriber.in_flight for subscriber in self.active_subscribers)
        opens_at = max(window.opens_at(now, in_flight) for window in known)
        if not opens_at and self._hour.resets_at is not None:  # otherwise what remains is an assumption
            left = min(window.remaining or 0 for window in known) - in_flight
            self._spare, self._spare_until = max(0, min(_MAX_SPARE, left // _SPARE_PART)), now + _SPARE_SECONDS
        return opens_at

    def _count(self) -> None:
        now = time.monotonic()
        self.hour.count(now)
        self.day.count(now)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 12 and text.isascii() and text.isdigit() else None


# For numbers that each response repeats: parsing them is half of the cost of learning.
_cached_number = functools.lru_cache(16)(_number)


def _local_time(reset: int, headers: Mapping[str, str], age: float) -> float | None:
    """
    Return the time (of `time.monotonic`) of *reset*, a Unix time of the server's clock, or None for 0.

    The response with *headers* arrived *age* seconds ago.
    """
    if not reset:
        return None
    from email.utils import parsedate_to_datetime

    now = time.time() - age
    try:
        there = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        there = now
    here = now if abs(now - there) < _MAX_CLOCK_SKEW else there
    return time.monotonic() - age + max(0.0, min(reset - here, 2 * _DAY))
