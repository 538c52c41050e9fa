"""
How fast a batch goes: what answers tell of the plan's limits, and when the next request may start.

Nothing here waits or does I/O. `RateLimits` belongs to a client and learns from every answer, whoever asked; `Pace`
belongs to one batch and decides, from that and from how the batch itself fares. Moments are those of `time.monotonic`.

Source: the vendor's page "Rate limits" (``X-RateLimit-*``, fixed hour and day windows, the body of a 429).
"""

from __future__ import annotations

import functools
import math
import random
import time
import weakref
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async._errors import RateLimitError

_HOUR, _DAY = 3600.0, 86400.0
_REMAINING_HOUR, _REMAINING_DAY = "x-ratelimit-remaining-hour", "x-ratelimit-remaining-day"
_LEAST_TO_SHARE, _LONGEST_RESERVE = 20, 10
_CLOCKS_AGREE = 2.0  # seconds; the ``Date`` header has whole ones, so ours is the better clock unless it is off
_STILL_THE_OLD_ONE = 0.5  # seconds until the next look, when a window goes on beyond its announced end
_LONGEST_REFUSAL, _LONGEST_COOLING = 60.0, 8.0
_FIRST_IN_FLIGHT = 16
_OUTAGE = 3  # failures in a row; fewer are the network's everyday life
_CATCH_UP = 0.1  # seconds by which a given rate may be behind and make up for it


@attrs.define(eq=False)
class Window:
    """One fixed window, as far as known: *limit* requests in *seconds*, *remaining* of them until *resets_at*."""

    seconds: float
    limit: int | None = None
    remaining: int | None = None
    resets_at: float | None = None
    announced: int = 0  # its end, as the server wrote it

    def learn(self, limit: int | None, remaining: int, announced: int, resets_at: float | None) -> None:
        """Take what one answer says; answers do not come in the order in which they were counted."""
        self.limit = limit or self.limit
        if announced < self.announced:
            return
        if announced > self.announced:
            self.announced, self.resets_at, self.remaining = announced, resets_at, remaining
        elif self.remaining is None or remaining < self.remaining or remaining > self.remaining + (self.limit or 0) / 2:
            self.remaining = remaining

    def count(self, now: float) -> None:
        """Count a request whose answer says nothing of limits, for a window known from a refusal."""
        if self.remaining is not None:
            self.remaining -= 1
            self.resets_at = self.resets_at or now + self.seconds

    def exhaust(self, limit: int | None, resets_at: float) -> None:
        """Note that it is used up until *resets_at*."""
        self.limit, self.remaining, self.resets_at = limit or self.limit, 0, resets_at

    def opens_at(self, now: float, in_flight: int) -> float:
        """Return when another request may join those *in_flight*: 0 for now, infinity for when one is answered."""
        if self.remaining is None:
            return 0.0
        if self.resets_at is not None and now >= self.resets_at:
            self.remaining, self.resets_at = self.limit, None
            return 0.0
        # Where the end is unknown only a refusal tells it: nothing is kept back then.
        left = self.remaining - (0 if self.resets_at is None else self._reserve())
        if in_flight < left or (self.resets_at is None and in_flight == 0):
            return 0.0
        return math.inf if self.resets_at is None or left > 0 else self.resets_at

    def _reserve(self) -> int:
        """Return how many are left to calls that do not wait."""
        limit = self.limit or 0
        return 0 if limit < _LEAST_TO_SHARE else max(1, min(_LONGEST_RESERVE, limit // 50))


@attrs.define(eq=False)
class RateLimits:
    """What the answers to all calls of a client told of the limits that it is under."""

    _hour: Window = attrs.field(factory=lambda: Window(_HOUR))
    _day: Window = attrs.field(factory=lambda: Window(_DAY))
    closed_until: float = 0.0
    # Weak: a batch may be given up without an end. No WeakSet: that cannot be read while another thread changes it.
    _followers: set[weakref.ref[Pace]] = attrs.field(factory=set[weakref.ref["Pace"]])
    _refusals: int = 0
    _unread: tuple[Mapping[str, str], float] | None = None  # what the latest answer told, and when

    def follow(self, pace: Pace) -> None:
        """Learn from every answer from now on, on behalf of *pace*."""
        self._catch_up()
        self._followers.add(weakref.ref(pace, self._followers.discard))

    def leave(self, pace: Pace) -> None:
        """Do not learn on behalf of *pace* any more."""
        self._followers.discard(weakref.ref(pace))

    @property
    def paces(self) -> list[Pace]:
        """Those of the batches at work."""
        # A copy of a set is made without anything in between, unlike a loop over it.
        found = [follower() for follower in self._followers.copy()]
        return [pace for pace in found if pace is not None and not pace.is_over()]

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
        """Whether any answer told of a limit."""
        return self.hour.remaining is not None or self.day.remaining is not None

    def observe(self, headers: Mapping[str, str], *, counted: bool) -> None:
        """Learn from the *headers* (lower-case names) of an answer to a request that *counted* against the limits."""
        if self._followers:
            self._learn(headers, counted=counted)
        elif _REMAINING_HOUR in headers or _REMAINING_DAY in headers:
            # Until somebody asks, the latest answer is enough, and nothing of it is parsed: 4 % of a call.
            self._unread = headers, time.monotonic()
        elif counted and self.known:
            self._count()

    def _catch_up(self) -> None:
        if (unread := self._unread) is not None:
            self._unread, (headers, moment) = None, unread
            self._learn(headers, counted=True, ago=time.monotonic() - moment)

    def _learn(self, headers: Mapping[str, str], *, counted: bool, ago: float = 0.0) -> None:
        hour = _number(headers.get(_REMAINING_HOUR))
        day = _number(headers.get(_REMAINING_DAY))
        if hour is None and day is None:
            if counted and self.known:
                self._count()
            return
        limit_hour = _known_number(headers.get("x-ratelimit-limit-hour"))
        limit_day = _known_number(headers.get("x-ratelimit-limit-day"))
        # A plan without a limit is told as a limit of 0.
        if hour is not None and limit_hour != 0:
            reset = _known_number(headers.get("x-ratelimit-reset-hour")) or 0
            known = reset == self._hour.announced
            self._hour.learn(limit_hour, hour, reset, None if known else _moment(reset, headers, ago))
            if known and self._hour.resets_at is None and reset:
                self._hour.resets_at = time.monotonic() + _STILL_THE_OLD_ONE
        if day is not None and limit_day != 0:
            self._day.learn(limit_day, day, 0, None)

    def refused(self, error: RateLimitError) -> None:
        """Learn from a 429: nothing is to be sent before the time that it asks for, or a growing one of our own."""
        now = time.monotonic()
        pause = error.retry_after or 0.0
        if not pause:
            if now < self.closed_until:
                return  # one of many that were refused together
            pause = min(_LONGEST_REFUSAL, 2.0**self._refusals)
            self._refusals += 1
        elif error.limit_hour and pause <= _HOUR and not self.hour.announced:
            self.hour.exhaust(error.limit_hour, now + pause)
        elif error.limit_day and pause > _HOUR:
            self.day.exhaust(error.limit_day, now + pause)
        # A little later than asked, each client at its own moment, so that they do not all come back at once.
        jitter = random.uniform(0.0, min(1.0, 0.05 * pause))  # noqa: S311 - no secret
        self.closed_until = max(self.closed_until, now + pause + jitter)

    def answered(self) -> None:
        """Note that a request was admitted."""
        self._refusals = 0

    def opens_at(self, now: float, in_flight: int) -> float:
        """
        Return when one more request of a batch may start: 0 for now, infinity for when another is answered.

        *in_flight* are those of the batch itself.
        """
        if now < self.closed_until:
            return self.closed_until
        self._catch_up()
        if self._hour.remaining is None and self._day.remaining is None:
            return 0.0
        if len(self._followers) > 1:
            in_flight = sum(pace.in_flight for pace in self.paces)
        return max(self._hour.opens_at(now, in_flight), self._day.opens_at(now, in_flight))

    def _count(self) -> None:
        now = time.monotonic()
        self.hour.count(now)
        self.day.count(now)


class Pace:
    """
    When the next request of one batch may start.

    *rate* is a number of requests per second, or None to adapt: more at a time while the server takes them, half when
    it pushes back. Either way there are never more than *cap* in flight, nor more than a known limit leaves, and after
    a limit's end one goes ahead of the others. What is in flight when *is_over* says so will never be heard of.
    """

    def __init__(
        self, limits: RateLimits, *, cap: int, rate: float | None, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.in_flight = 0
        self.is_over = is_over
        self._limits, self._cap, self._rate = limits, cap, rate
        self._window = float(cap if rate else min(cap, _FIRST_IN_FLIGHT))
        self._threshold = math.inf
        self._cut_at = 0.0
        self._failures = self._coolings = 0  # since the last answer
        self._cool_until = 0.0
        self._next_start = 0.0
        self._alone: bool | None = None  # after a limit's end: True while one goes ahead, False before
        self.opens_at: float | None = None  # when a limit that holds up the next request ends
        limits.follow(self)

    def end(self) -> None:
        """Note that nothing more will start."""
        self._limits.leave(self)

    def delay(self, now: float) -> float:
        """Return the seconds until one more may start: 0 for now, infinity for when another is answered."""
        opens = max(self._limits.opens_at(now, self.in_flight), self._cool_until)
        self.opens_at = opens if now < opens < math.inf else None
        if opens > now:
            if self.opens_at:
                self._alone = False
            return opens - now
        if self._alone or self.in_flight >= int(self._window):
            return math.inf
        return max(0.0, self._next_start - now) if self._rate else 0.0

    def start(self, now: float) -> None:
        """Note that a request starts."""
        self.in_flight += 1
        if self._alone is False:
            self._alone = True
        if self._rate:
            self._next_start = max(self._next_start, now - _CATCH_UP) + 1 / self._rate

    def admitted(self) -> None:
        """Note that a request which was in flight was taken by the server, whatever came of it."""
        self.in_flight -= 1
        self._alone = None
        self._failures = self._coolings = 0
        self._limits.answered()
        if self._window < self._cap:
            if self._threshold == math.inf and self._limits.known:
                self._window = self._cap  # the limits say how many; there is nothing to find out
            else:
                self._window += 1.0 if self._window < self._threshold else 1.0 / self._window

    def pushed_back(self, now: float, started: float) -> None:
        """Note that a request *started* then was refused, or did not get through."""
        self.dropped()
        if started < self._cut_at:
            return  # it started before the others were told, and says nothing new
        self._cut_at, self._alone = now, False
        if self._rate is None:
            self._window = self._threshold = max(1.0, self._window / 2)

    def failed(self, now: float, started: float) -> None:
        """Note that a request *started* then got no answer; when several in a row do not, ever fewer are tried."""
        self._failures += 1
        if self._failures < _OUTAGE or started < self._cut_at:
            self.dropped()
            return
        self.pushed_back(now, started)
        self._cool_until = now + min(_LONGEST_COOLING, 0.25 * 2**self._coolings)
        self._coolings = min(10, self._coolings + 1)

    def dropped(self) -> None:
        """Note that a request in flight ended, and says nothing about the server."""
        self.in_flight -= 1
        if self._alone:
            self._alone = False


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 12 and text.isascii() and text.isdigit() else None


_known_number = functools.lru_cache(16)(_number)  # of what each answer says again: half of the cost of learning


def _moment(reset: int, headers: Mapping[str, str], ago: float) -> float | None:
    """
    Return the moment that the Unix time *reset* of the server's clock means, None when it means nothing.

    *headers* came that many seconds *ago*.
    """
    if not reset:
        return None
    from email.utils import parsedate_to_datetime

    now = time.time() - ago
    try:
        there = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        there = now
    here = now if abs(now - there) < _CLOCKS_AGREE else there
    return time.monotonic() - ago + max(0.0, min(reset - here, 2 * _DAY))
