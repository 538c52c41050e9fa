"""Rate limits, as headers and 429 responses report them."""

from __future__ import annotations

import email.utils
import math
import time
from datetime import UTC, datetime

import pytest

from neuralbox_async import AsyncNeuralBox, RateLimitError, RetryPolicy
from neuralbox_async._call.rate_limits import RateLimits, Window
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}


def refusal(**facts):
    return RateLimitError("429", status_code=429, **facts)


def rate_limit_headers(limit, remaining, reset=None, *, window="hour", **others):
    headers = {f"x-ratelimit-limit-{window}": str(limit), f"x-ratelimit-remaining-{window}": str(remaining), **others}
    return headers if reset is None else {**headers, f"x-ratelimit-reset-{window}": str(reset)}


# ------------------------------------------------------------------------------------------------------------ windows


def test_requests_in_flight_are_bounded_by_what_remains():
    """At most as many requests are in flight as remain, less a reserve for calls that do not wait."""
    window = Window(3600.0)
    window.update(1000, 50, 1700, 100.0)

    assert [0.0, 0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 39, 40)]
    window.update(1000, 10, 1700, 100.0)
    assert 100.0 == window.opens_at(10.0, 0)


@pytest.mark.parametrize("limit, reserve", [(5, 0), (19, 0), (20, 1), (100, 2), (1000, 10), (100_000, 10)])
def test_the_reserve_is_small(limit, reserve):
    """The reserve is a fiftieth of the limit, at most ten, and zero for a small limit."""
    window = Window(3600.0)
    window.update(limit, reserve + 1, 1700, 100.0)

    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]


def test_responses_arrive_in_any_order():
    """Within a window the lowest number holds; a later end means a new window, and older responses are ignored."""
    window = Window(3600.0)
    for remaining, announced in [(50, 1700), (48, 1700), (49, 1700)]:
        window.update(100, remaining, announced, 100.0)
    assert (48, 100.0) == (window.remaining, window.resets_at)
    window.update(100, 99, 5300, 3700.0)
    window.update(100, 40, 1700, 100.0)
    assert (99, 3700.0) == (window.remaining, window.resets_at)


def test_a_window_without_an_end():
    """Only a refusal reports the end of a day, so one request is sent ahead of the others to get it."""
    window = Window(86400.0)
    window.update(100, 0, 0, None)
    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]
    window.exhaust(100, 5000.0)
    assert 5000.0 == window.opens_at(10.0, 0)
    assert 0.0 == window.opens_at(5000.0, 0)
    window.update(100, 97, 0, None)
    assert 97 == window.remaining


def test_a_new_day_is_detected_by_what_remains():
    """In a window without an end, a much higher number means a new window."""
    window = Window(86400.0)
    window.update(100, 3, 0, None)
    window.update(100, 5, 0, None)
    assert 3 == window.remaining
    window.update(100, 99, 0, None)
    assert 99 == window.remaining


def test_limits_are_read_from_headers():
    """The documented headers have the limit, the remaining requests and the reset of the hour."""
    limits = RateLimits()
    assert not limits.known
    limits.observe(rate_limit_headers(100, 87, int(time.time()) + 60), counted=True)

    assert (100, 87) == (limits.hour.limit, limits.hour.remaining)
    assert 58 < limits.hour.resets_at - time.monotonic() <= 60
    assert limits.known


def test_clock_of_the_server():
    """The reset is a time of the server's clock, which may be wrong; the `Date` header has its time."""
    limits = RateLimits()
    date = email.utils.format_datetime(datetime.fromtimestamp(5000, UTC), usegmt=True)
    limits.observe(rate_limit_headers(100, 87, 5060, date=date), counted=True)

    assert 58 < limits.hour.resets_at - time.monotonic() <= 60


def test_a_window_that_lasts_longer_than_announced():
    """A window that lasts longer than announced stays in force, and is checked again soon."""
    limits = RateLimits()
    reset = int(time.time()) + 1
    limits.observe(rate_limit_headers(100, 2, reset), counted=True)
    assert 0.0 == limits.opens_at(time.monotonic() + 5, 0)
    assert 100 == limits.hour.remaining
    limits.observe(rate_limit_headers(100, 1, reset), counted=True)
    assert 0 < limits.opens_at(time.monotonic(), 0) - time.monotonic() < 1


class Batch:
    """A running batch, for `RateLimits.subscribe`."""

    in_flight = 0
    is_over = staticmethod(lambda: False)


@pytest.mark.parametrize("remaining, most", [(10_000, 100), (200, 10), (60, 3), (30, 1)])
def test_other_users_of_the_account(remaining, most):
    """While the limits are far away, a batch reads them after at most *most* requests: a twentieth of what remains."""
    limits, batch = RateLimits(), Batch()
    limits.subscribe(batch)
    now, reset = time.monotonic(), int(time.time()) + 600
    limits.observe(rate_limit_headers(20_000, remaining, reset), counted=True)
    assert 0.0 == limits.opens_at(now, 0)
    starts = 1
    while starts <= 200 and limits.opens_at(now, 0) == 0.0:
        limits.observe(rate_limit_headers(20_000, 3, reset), counted=True)  # all others have used the rest
        starts += 1

    assert starts <= most + 1
    assert 3 == limits.hour.remaining


def test_limits_of_other_users_are_read_each_second():
    """A slow batch reads the limits before each request."""
    limits, batch = RateLimits(), Batch()
    limits.subscribe(batch)
    now, reset = time.monotonic(), int(time.time()) + 600
    limits.observe(rate_limit_headers(20_000, 10_000, reset), counted=True)
    assert 0.0 == limits.opens_at(now, 0)
    limits.observe(rate_limit_headers(20_000, 3, reset), counted=True)

    assert limits.opens_at(now + 1.5, 0) > now + 100


def test_a_refusal_counts_at_once():
    """After a 429 nothing starts, however much remained before."""
    limits, batch = RateLimits(), Batch()
    limits.subscribe(batch)
    now = time.monotonic()
    limits.observe(rate_limit_headers(20_000, 10_000, int(time.time()) + 600), counted=True)
    assert 0.0 == limits.opens_at(now, 0)
    limits.record_refused(refusal(retry_after=30))

    assert limits.opens_at(now, 0) >= now + 30
    assert limits.opens_at(now + 40, 0) == 0.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-hour": "-1"},
        {"x-ratelimit-remaining-hour": "many"},
        {"x-ratelimit-remaining-hour": "9" * 40},
        rate_limit_headers(0, 0, 1_700_000_000),
        rate_limit_headers(0, 0, window="day"),
    ],
)
def test_headers_without_a_limit(headers):
    """Malformed headers, and a limit of 0 (which the vendor calls unlimited), delay nothing."""
    limits = RateLimits()
    limits.observe(headers, counted=True)

    assert 0.0 == limits.opens_at(time.monotonic(), 0)


def test_limits_are_learned_from_refusals():
    """A 429 reports the limits of a server without the headers; from then on its responses are counted."""
    limits = RateLimits()
    limits.record_refused(refusal(retry_after=800, limit_hour=3))
    now = time.monotonic()
    assert 800 <= limits.opens_at(now, 0) - now + 1 <= 802
    assert 0.0 == limits.opens_at(now + 900, 0)
    for _ in range(3):
        limits.observe({}, counted=True)
    limits.observe({}, counted=False)
    assert 0 == limits.hour.remaining
    assert 3500 < limits.opens_at(now + 900, 0) - now < 3700


def test_a_refused_day():
    """A *retry_after* of more than an hour means that the day's limit is reached."""
    limits = RateLimits()
    limits.record_refused(refusal(retry_after=30_000, limit_hour=100, limit_day=1000))

    assert (None, 0) == (limits.hour.remaining, limits.day.remaining)


def test_refusals_without_retry_after():
    """Without *retry_after* the pauses grow, once for requests that were refused together."""
    limits = RateLimits()
    pauses = []
    for _ in range(4):
        limits.record_refused(refusal())
        limits.record_refused(refusal(retry_after=0.0))
        pauses.append(limits.closed_until - time.monotonic())
        limits.closed_until = 0.0
    assert [1, 2, 4, 8] == [round(pause * 0.97) for pause in pauses]
    limits.record_admitted()
    limits.record_refused(refusal())
    assert limits.closed_until - time.monotonic() < 1.2


@pytest.mark.parametrize("retry_after, longest", [(None, 60), (0.001, 1)])
def test_any_number_of_refusals(retry_after, longest):
    """The pauses grow up to a limit, however many refusals follow each other."""
    limits = RateLimits()
    for _ in range(2000):
        limits.closed_until, before = 0.0, time.monotonic()
        limits.record_refused(refusal(retry_after=retry_after))

    assert longest <= limits.closed_until - before < longest + 10


async def test_a_success_ends_the_refusals_in_a_row():
    """The pause after a refusal grows with the refusals in a row: not with those before a successful call."""
    transport = FakeTransport(*[answer for _ in range(6) for answer in (FakeResponse(b"{}", status_code=429), REPLY)])
    client = AsyncNeuralBox("key", transport=transport, retry_policy=RetryPolicy(max_retries=0))
    limits = client._executor.account_state.rate_limits
    for _ in range(6):
        with pytest.raises(RateLimitError):
            await client.generate("gpt-5", "Hi")
        await client.generate("gpt-5", "Hi")
        limits.closed_until = 0.0  # the pause has passed
    now = time.monotonic()
    limits.record_refused(refusal())

    assert limits.closed_until - now < 10  # the first pause of a second
