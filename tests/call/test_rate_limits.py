"""Rate limits, as headers and 429 responses state them."""

from __future__ import annotations

import email.utils
import math
import time
from datetime import UTC, datetime

import pytest

from neuralbox_async import RateLimitError
from neuralbox_async._call.rate_limits import RateLimits, Window

pytestmark = pytest.mark.usefixtures("no_task_left")


def too_many(**facts):
    """Return a 429."""
    error = RateLimitError("429", status_code=429, retry_after=facts.pop("retry_after", None))
    vars(error).update(facts)
    return error


def told(limit, remaining, reset=None, *, kind="hour", **others):
    """Return the headers of an answer."""
    headers = {f"x-ratelimit-limit-{kind}": str(limit), f"x-ratelimit-remaining-{kind}": str(remaining), **others}
    return headers if reset is None else {**headers, f"x-ratelimit-reset-{kind}": str(reset)}


# -------------------------------------------------------------------------------------------------------- what is known


def test_headroom_is_what_remains_less_what_is_in_flight():
    """No more are in flight than remain, less a reserve for calls that do not wait."""
    window = Window(3600.0)
    window.update(1000, 50, 1700, 100.0)

    assert [0.0, 0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 39, 40)]
    window.update(1000, 10, 1700, 100.0)
    assert 100.0 == window.opens_at(10.0, 0)


@pytest.mark.parametrize("limit, reserve", [(5, 0), (19, 0), (20, 1), (100, 2), (1000, 10), (100_000, 10)])
def test_the_reserve_is_small(limit, reserve):
    """The reserve is a fiftieth of the limit, ten at most, and nothing of a small one."""
    window = Window(3600.0)
    window.update(limit, reserve + 1, 1700, 100.0)

    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]


def test_answers_come_in_any_order():
    """Within a window the least counts; a new window is known by its end, and the old one's answers are then late."""
    window = Window(3600.0)
    for remaining, announced in [(50, 1700), (48, 1700), (49, 1700)]:
        window.update(100, remaining, announced, 100.0)
    assert (48, 100.0) == (window.remaining, window.resets_at)
    window.update(100, 99, 5300, 3700.0)
    window.update(100, 40, 1700, 100.0)
    assert (99, 3700.0) == (window.remaining, window.resets_at)


def test_a_window_without_an_end():
    """Where no end is told, only a refusal tells it: one request goes ahead of the others to get it."""
    window = Window(86400.0)
    window.update(100, 0, 0, None)
    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]
    window.exhaust(100, 5000.0)
    assert 5000.0 == window.opens_at(10.0, 0)
    assert 0.0 == window.opens_at(5000.0, 0)
    window.update(100, 97, 0, None)
    assert 97 == window.remaining


def test_a_new_day_is_seen_by_what_remains():
    """Without an end, much more remaining than before means a new window."""
    window = Window(86400.0)
    window.update(100, 3, 0, None)
    window.update(100, 5, 0, None)
    assert 3 == window.remaining
    window.update(100, 99, 0, None)
    assert 99 == window.remaining


def test_limits_are_read_from_headers():
    """Limit, remaining and reset of the hour are taken from the documented headers."""
    limits = RateLimits()
    assert not limits.known
    limits.observe(told(100, 87, int(time.time()) + 60), counted=True)

    assert (100, 87) == (limits.hour.limit, limits.hour.remaining)
    assert 58 < limits.hour.resets_at - time.monotonic() <= 60
    assert limits.known


def test_the_servers_clock_counts():
    """A reset is a time of the server's clock, which may be wrong: the `Date` header tells what it shows."""
    limits = RateLimits()
    date = email.utils.format_datetime(datetime.fromtimestamp(5000, UTC), usegmt=True)
    limits.observe(told(100, 87, 5060, date=date), counted=True)

    assert 58 < limits.hour.resets_at - time.monotonic() <= 60


def test_a_window_that_goes_on():
    """When the server says that the old window goes on, it is believed, and asked again soon."""
    limits = RateLimits()
    reset = int(time.time()) + 1
    limits.observe(told(100, 2, reset), counted=True)
    assert 0.0 == limits.opens_at(time.monotonic() + 5, 0)
    assert 100 == limits.hour.remaining
    limits.observe(told(100, 1, reset), counted=True)
    assert 0 < limits.opens_at(time.monotonic(), 0) - time.monotonic() < 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-hour": "-1"},
        {"x-ratelimit-remaining-hour": "many"},
        {"x-ratelimit-remaining-hour": "9" * 40},
        told(0, 0, 1_700_000_000),
        told(0, 0, kind="day"),
    ],
)
def test_headers_that_say_nothing(headers):
    """What makes no sense, and a limit of 0 (which the vendor calls unlimited), holds up nothing."""
    limits = RateLimits()
    limits.observe(headers, counted=True)

    assert 0.0 == limits.opens_at(time.monotonic(), 0)


def test_limits_are_learned_from_refusals():
    """A server without the headers tells limits in its 429; from then on its answers are counted."""
    limits = RateLimits()
    limits.refused(too_many(retry_after=800, limit_hour=3))
    now = time.monotonic()
    assert 800 <= limits.opens_at(now, 0) - now + 1 <= 802
    assert 0.0 == limits.opens_at(now + 900, 0)
    for _ in range(3):
        limits.observe({}, counted=True)
    limits.observe({}, counted=False)
    assert 0 == limits.hour.remaining
    assert 3500 < limits.opens_at(now + 900, 0) - now < 3700


def test_a_refused_day():
    """A wait of more than an hour is the day's."""
    limits = RateLimits()
    limits.refused(too_many(retry_after=30_000, limit_hour=100, limit_day=1000))

    assert (None, 0) == (limits.hour.remaining, limits.day.remaining)


def test_refusals_that_tell_no_time():
    """Without a time to wait the pauses grow, once for those that were refused together."""
    limits = RateLimits()
    pauses = []
    for _ in range(4):
        limits.refused(too_many())
        limits.refused(too_many(retry_after=0.0))
        pauses.append(limits.closed_until - time.monotonic())
        limits.closed_until = 0.0
    assert [1, 2, 4, 8] == [round(pause * 0.97) for pause in pauses]
    limits.admitted()
    limits.refused(too_many())
    assert limits.closed_until - time.monotonic() < 1.2
