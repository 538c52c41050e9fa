"""Servers that do not report that a browser has left: a check of the connection, a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

_INTERVAL = 0.05  # seconds; a timer of the loop, not a task: about 3 us of each interval

CLIENT_CLOSED = 499  # the status, for logs alone, as nginx has it


class DisconnectedError(Exception):
    """The browser has left."""


async def until_disconnected(function: Callable[[], Awaitable[T]], is_disconnected: Callable[[], bool]) -> T:
    """
    Return the result of *function*; cancel it when *is_disconnected* returns true, which is called every 50 ms.

    Raises `DisconnectedError` then.
    """
    loop = asyncio.get_running_loop()
    scope = anyio.CancelScope()
    timers: list[asyncio.TimerHandle] = []

    def check() -> None:
        if is_disconnected():
            scope.cancel()
        else:
            timers[:] = [loop.call_later(_INTERVAL, check)]

    timers.append(loop.call_later(_INTERVAL, check))
    try:
        with scope:
            return await function()
    finally:
        timers[0].cancel()
    raise DisconnectedError
