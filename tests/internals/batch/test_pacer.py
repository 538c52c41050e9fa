"""When the next request may start."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._call.rate_limits import RateLimits

pytestmark = pytest.mark.usefixtures("no_task_left")


def limit_headers(limit, remaining, reset=None, *, kind="hour", **others):
    """Return the headers that report a limit."""
    headers = {f"x-ratelimit-limit-{kind}": str(limit), f"x-ratelimit-remaining-{kind}": str(remaining), **others}
    return headers if reset is None else {**headers, f"x-ratelimit-reset-{kind}": str(reset)}


# ------------------------------------------------------------------------------------------------------------ the pacer


def started(pacer, now, most=1000):
    """Start as many requests as may start at once, and return their number."""
    for count in range(most):
        if pacer.delay(now) > 0:
            return count
        pacer.record_start(now)
    return most


def test_slow_start():
    """The window starts small and doubles with the responses, up to the maximum."""
    pacer = Pacer(RateLimits(), max_in_flight=100, rate=None)
    rounds = []
    for now in range(1, 5):
        rounds.append(started(pacer, float(now)))
        for _ in range(rounds[-1]):
            pacer.record_admitted()

    assert [16, 32, 64, 100] == rounds


def test_known_limits_need_no_probing():
    """When headers report the remaining requests, the maximum is used at once."""
    limits = RateLimits()
    limits.observe(limit_headers(10_000, 9_000, int(time.time()) + 60), counted=True)
    pacer = Pacer(limits, max_in_flight=200, rate=None)
    now = time.monotonic()
    started(pacer, now)
    pacer.record_admitted()

    assert 200 == pacer.in_flight + started(pacer, now)


def test_a_refusal_halves_the_window():
    """Refusals halve the window once for all requests in flight; then it grows slowly."""
    limits = RateLimits()
    pacer = Pacer(limits, max_in_flight=64, rate=None)
    for now in (1.0, 2.0, 3.0):
        for _ in range(started(pacer, now)):
            pacer.record_admitted()
    assert 64 == started(pacer, 4.0)
    for _ in range(60):
        pacer.record_pushed_back(5.0, started=4.0)
    for _ in range(4):
        pacer.record_admitted()
    assert 32 == started(pacer, 6.0)
    for _ in range(32):
        pacer.record_admitted()
    assert 32 <= started(pacer, 7.0) <= 34


def test_one_request_probes_after_a_limit():
    """After a limit's end one request starts, and the others when it was admitted."""
    limits = RateLimits()
    pacer = Pacer(limits, max_in_flight=10, rate=None)
    limits.closed_until = 100.0
    assert (90.0, 100.0) == (pacer.delay(10.0), pacer.opens_at)
    assert 1 == started(pacer, 101.0)
    assert pacer.opens_at is None
    pacer.record_pushed_back(102.0, started=101.0)
    assert 1 == started(pacer, 102.0)
    pacer.record_admitted()
    assert 1 < started(pacer, 103.0)


def test_cooldowns_of_an_outage_grow():
    """When several requests in a row get no response, the pauses grow; a single failure has no effect."""
    pacer = Pacer(RateLimits(), max_in_flight=64, rate=None)
    started(pacer, 1.0, most=1)
    pacer.record_failed(1.0, started=1.0)
    assert 16 == started(pacer, 1.0)
    for _ in range(16):
        pacer.record_failed(2.0, started=1.0)
    pauses = []
    now = 3.0
    for _ in range(7):
        assert 1 == started(pacer, now)
        pacer.record_failed(now, started=now)
        pauses.append(pacer.delay(now))
        now += pauses[-1]
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0] == pauses
    started(pacer, now)
    pacer.record_admitted()
    assert 0.0 == pacer.delay(now)


def test_a_fixed_rate():
    """A fixed rate spaces the starts; a short delay is made up for, a long one is not."""
    pacer = Pacer(RateLimits(), max_in_flight=1000, rate=100)
    starts = []
    now = 1.0
    while now < 2.0:
        starts += [now] * started(pacer, now)
        now += 0.003
    assert 98 <= len(starts) <= 112
    assert started(pacer, 50.0) <= 11


def test_two_batches_share_a_limit():
    """Two batches of one client count the requests in flight of both."""
    limits = RateLimits()
    limits.observe(limit_headers(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pacer(limits, max_in_flight=64, rate=None), Pacer(limits, max_in_flight=64, rate=None)
    now = time.monotonic()

    assert 20 == started(one, now) + started(other, now)


def test_a_closed_pacer_holds_no_requests():
    """The requests of a batch that has ended do not count any more."""
    limits = RateLimits()
    limits.observe(limit_headers(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pacer(limits, max_in_flight=64, rate=None), Pacer(limits, max_in_flight=64, rate=None)
    now = time.monotonic()
    started(one, now)
    one.close()

    assert 16 == started(other, now)


def test_batches_of_other_threads_start_and_end():
    """Batches may start and end in other threads while a pacer reads the limits."""
    limits = RateLimits()
    limits.observe(limit_headers(1000, 900, int(time.time()) + 60), counted=True)
    paces = [Pacer(limits, max_in_flight=4, rate=None) for _ in range(50)]
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            Pacer(limits, max_in_flight=4, rate=None)
            Pacer(limits, max_in_flight=4, rate=None).close()

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
