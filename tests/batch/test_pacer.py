"""When the next request may start."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from neuralbox_async._pacing import Pace, RateLimits

pytestmark = pytest.mark.usefixtures("no_task_left")


def told(limit, remaining, reset=None, *, kind="hour", **others):
    """Return the headers of an answer."""
    headers = {f"x-ratelimit-limit-{kind}": str(limit), f"x-ratelimit-remaining-{kind}": str(remaining), **others}
    return headers if reset is None else {**headers, f"x-ratelimit-reset-{kind}": str(reset)}


# ------------------------------------------------------------------------------------------------------------ the pace


def started(pace, now, most=1000):
    """Start as many requests as may start at once, and return how many."""
    for count in range(most):
        if pace.delay(now) > 0:
            return count
        pace.start(now)
    return most


def test_more_and_more_in_flight():
    """It begins with a few, and doubles while all are answered, up to the cap."""
    pace = Pace(RateLimits(), cap=100, rate=None)
    rounds = []
    for now in range(1, 5):
        rounds.append(started(pace, float(now)))
        for _ in range(rounds[-1]):
            pace.admitted()

    assert [16, 32, 64, 100] == rounds


def test_known_limits_need_no_search():
    """When the headers say what remains, the cap is used at once."""
    limits = RateLimits()
    limits.observe(told(10_000, 9_000, int(time.time()) + 60), counted=True)
    pace = Pace(limits, cap=200, rate=None)
    now = time.monotonic()
    started(pace, now)
    pace.admitted()

    assert 200 == pace.in_flight + started(pace, now)


def test_fewer_in_flight_after_a_refusal():
    """A refusal halves what may be in flight, once for all that were refused together; then it grows slowly."""
    limits = RateLimits()
    pace = Pace(limits, cap=64, rate=None)
    for now in (1.0, 2.0, 3.0):
        for _ in range(started(pace, now)):
            pace.admitted()
    assert 64 == started(pace, 4.0)
    for _ in range(60):
        pace.pushed_back(5.0, started=4.0)
    for _ in range(4):
        pace.admitted()
    assert 32 == started(pace, 6.0)
    for _ in range(32):
        pace.admitted()
    assert 32 <= started(pace, 7.0) <= 34


def test_one_goes_ahead_after_a_pause():
    """After a limit's end one request is sent, and the others when it was admitted."""
    limits = RateLimits()
    pace = Pace(limits, cap=10, rate=None)
    limits.closed_until = 100.0
    assert (90.0, 100.0) == (pace.delay(10.0), pace.opens_at)
    assert 1 == started(pace, 101.0)
    assert pace.opens_at is None
    pace.pushed_back(102.0, started=101.0)
    assert 1 == started(pace, 102.0)
    pace.admitted()
    assert 1 < started(pace, 103.0)


def test_an_outage_is_not_hurried_through():
    """When several in a row get no answer, the pauses grow; a single one is nothing."""
    pace = Pace(RateLimits(), cap=64, rate=None)
    started(pace, 1.0, most=1)
    pace.failed(1.0, started=1.0)
    assert 16 == started(pace, 1.0)
    for _ in range(16):
        pace.failed(2.0, started=1.0)
    pauses = []
    now = 3.0
    for _ in range(7):
        assert 1 == started(pace, now)
        pace.failed(now, started=now)
        pauses.append(pace.delay(now))
        now += pauses[-1]
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0] == pauses
    started(pace, now)
    pace.admitted()
    assert 0.0 == pace.delay(now)


def test_a_given_rate():
    """A rate spaces the starts; a moment's delay is made up for, a long one is not."""
    pace = Pace(RateLimits(), cap=1000, rate=100)
    starts = []
    now = 1.0
    while now < 2.0:
        starts += [now] * started(pace, now)
        now += 0.003
    assert 98 <= len(starts) <= 112
    assert started(pace, 50.0) <= 11


def test_two_batches_share_a_limit():
    """Two batches of one client see what both have in flight."""
    limits = RateLimits()
    limits.observe(told(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pace(limits, cap=64, rate=None), Pace(limits, cap=64, rate=None)
    now = time.monotonic()

    assert 20 == started(one, now) + started(other, now)


def test_a_batch_that_is_over_takes_nothing_from_others():
    """What a batch had in flight when it ended, and never heard of, counts no more."""
    limits = RateLimits()
    limits.observe(told(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pace(limits, cap=64, rate=None), Pace(limits, cap=64, rate=None)
    now = time.monotonic()
    started(one, now)
    one.end()

    assert 16 == started(other, now)


def test_batches_of_other_threads_come_and_go():
    """A client may run batches in several loops, each in its thread; one may begin or end while another looks."""
    limits = RateLimits()
    limits.observe(told(1000, 900, int(time.time()) + 60), counted=True)
    paces = [Pace(limits, cap=4, rate=None) for _ in range(50)]
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            Pace(limits, cap=4, rate=None)
            Pace(limits, cap=4, rate=None).end()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(3000):
            assert 0.0 == paces[0].delay(time.monotonic())
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
