"""The time limit for browsers that read nothing, on a clock of the test."""

from __future__ import annotations

import gc
import math

import pytest

from neuralbox_async.web._write_timeout import WriteTimeout


class Loop:
    """A loop with timers only."""

    def __init__(self):
        self.now, self._timers = 0.0, {}

    def time(self):
        return self.now

    def call_at(self, when, callback, *words):
        timer = Timer(self._timers)
        self._timers[timer] = when, callback, words
        return timer

    def call_later(self, delay, callback, *words):
        return self.call_at(self.now + delay, callback, *words)

    def sleep(self, seconds):
        """Let *seconds* pass, with each timer at its time."""
        end = self.now + seconds
        while due := [timer for timer, (when, *_) in self._timers.items() if when <= end]:
            timer = min(due, key=lambda timer: self._timers[timer][0])
            when, callback, words = self._timers.pop(timer)
            self.now = max(self.now, when)
            callback(*words)
        self.now = end

    @property
    def timers(self):
        return len(self._timers)


class Timer:
    def __init__(self, timers):
        self._timers = timers

    def cancel(self):
        self._timers.pop(self, None)


class Owner:
    def __init__(self):
        self.expired = 0

    def expire(self):
        self.expired += 1


@pytest.fixture
def loop(monkeypatch):
    loop = Loop()
    monkeypatch.setattr("neuralbox_async.web._write_timeout.asyncio.get_running_loop", lambda: loop)
    return loop


def test_expires_once(loop):
    """A server that has an item for longer than the timeout is too late, once; later items change nothing."""
    owner = Owner()
    timeout = WriteTimeout(60.0, owner.expire)
    loop.sleep(59)
    assert 0 == owner.expired
    loop.sleep(2)
    assert 1 == owner.expired
    timeout.start()
    loop.sleep(1000)
    assert (1, 0) == (owner.expired, loop.timers)


def test_a_slow_browser(loop):
    """Each item has the whole time; there is one timer for all of them."""
    owner = Owner()
    timeout = WriteTimeout(60.0, owner.expire)
    for _ in range(50):
        loop.sleep(59)
        timeout.stop()
        assert loop.timers <= 1
        timeout.start()
    assert 0 == owner.expired
    loop.sleep(61)
    assert 1 == owner.expired


def test_a_slow_api(loop):
    """While the server waits for the next item, no time passes, and no timer runs in the end."""
    owner = Owner()
    timeout = WriteTimeout(60.0, owner.expire)
    timeout.stop()
    loop.sleep(1000)
    assert (0, 0) == (owner.expired, loop.timers)
    timeout.start()
    loop.sleep(61)
    assert 1 == owner.expired


def test_a_machine_that_slept(loop):
    """After a pause of the whole process, what the browser had read meanwhile counts."""
    owner = Owner()
    timeout = WriteTimeout(60.0, owner.expire)
    loop.now = 10_000.0
    loop.sleep(0)  # the timer fires before the server learns that the browser has read
    timeout.stop()
    timeout.start()
    loop.sleep(59)
    assert 0 == owner.expired
    loop.sleep(2)
    assert 1 == owner.expired


def test_end(loop):
    """Nothing is left after the end, nor without a limit; what has been collected is not called."""
    owner = Owner()
    WriteTimeout(math.inf, owner.expire)
    assert 0 == loop.timers
    timeout = WriteTimeout(60.0, owner.expire)
    timeout.close()
    timeout.close()
    assert 0 == loop.timers
    timeout = WriteTimeout(60.0, owner.expire)
    del owner
    gc.collect()
    loop.sleep(100)
    assert 0 == loop.timers
