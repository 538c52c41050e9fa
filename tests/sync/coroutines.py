"""Coroutines for the private event loop, and calls from many threads."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor


async def echo(value):
    """Return *value* after a turn of the loop."""
    await asyncio.sleep(0)
    return value


async def nothing():
    """Do nothing."""


def in_threads(count, function):
    """Call *function* with 0 to *count* - 1, each in a thread, all at the same time; return the results or errors."""
    together = threading.Barrier(count)

    def run(number):
        together.wait()
        try:
            return function(number)
        except Exception as error:  # noqa: BLE001 - it is a result here
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
