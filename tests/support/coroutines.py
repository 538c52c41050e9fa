"""Coroutines for the private event loop, and calls from many threads at once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor


async def echo(value):
    """Return *value* after one iteration of the loop."""
    await asyncio.sleep(0)
    return value


async def do_nothing():
    """Do nothing."""


def in_threads(count, function):
    """Call *function* with 0 to *count* - 1, each in a thread, all at the same time; return the results and errors."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait()
        try:
            return function(number)
        except Exception as error:  # noqa: BLE001 - it is a result here
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
