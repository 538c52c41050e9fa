"""Closing the private event loop: unused, during calls, and when its client is garbage-collected."""

import asyncio
import threading
import time

import pytest
from coroutines import do_nothing, in_threads

from neuralbox_async import ClientClosedError


def test_closed(loop, loop_threads):
    """A closed loop raises for each call, its thread has ended, and closing is idempotent."""
    loop.call(do_nothing)

    loop.close()
    loop.close()

    assert [] == loop_threads()
    with pytest.raises(ClientClosedError, match="before"):
        loop.call(do_nothing)


def test_closed_unused(loop):
    """A loop can be closed before its first call."""
    loop.close()

    with pytest.raises(ClientClosedError, match="before"):
        loop.call(do_nothing)


def test_close_during_calls(loop):
    """Closing cancels the running calls, which raise."""
    running = threading.Semaphore(0)

    async def sleep():
        running.release()
        await asyncio.sleep(30)

    def call(number):
        if number:
            return loop.call(sleep)
        for _ in range(4):
            running.acquire()
        return loop.close()

    message = "the client was closed during the call"

    assert [None, *[message] * 4] == [None if e is None else str(e) for e in in_threads(5, call)]


def test_close_on_own_thread(loop):
    """A coroutine may close the loop that it runs on."""

    async def close():
        loop.close()
        await asyncio.sleep(30)

    with pytest.raises(ClientClosedError, match="during"):
        loop.call(close)


@pytest.mark.timing
def test_close_is_bounded(loop):
    """Closing does not wait for a coroutine that ignores its cancellation."""
    released = threading.Event()

    async def stay():
        while not released.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    caller = threading.Thread(target=lambda: in_threads(1, lambda _: loop.call(stay)))
    caller.start()
    loop.call(do_nothing)
    started = time.monotonic()

    loop.close()

    assert time.monotonic() - started < 10
    released.set()
    caller.join()


@pytest.mark.parametrize("round_", range(40))
def test_close_race(make_loop, round_):
    """Eight threads that make calls while the loop is closed all raise `ClientClosedError`."""
    loop = make_loop()
    loop.call(do_nothing)

    def call(number):
        if number == 0:
            time.sleep(round_ * 0.00005)
            return loop.close()
        while True:
            loop.call(do_nothing)

    assert [None, *[ClientClosedError] * 8] == [e and type(e) for e in in_threads(9, call)]


def test_finalized(make_loop, loop_threads):
    """A loop ends, with one warning, when its client is garbage-collected."""
    loop = make_loop()
    loop.call(do_nothing)

    with pytest.warns(ResourceWarning, match="never closed"):
        loop.finalize()

    loop.finalize()
    while loop_threads():
        time.sleep(0.001)
