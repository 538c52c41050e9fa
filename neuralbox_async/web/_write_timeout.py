"""A time limit for browsers that read nothing, for which a server waits while the stream of the API stays open."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable

from neuralbox_async.web._problems import logger

# Seconds after the timeout: the loop may have been blocked or stopped until then, and what was read meanwhile counts.
_GRACE = 0.25


class WriteTimeout:
    """
    Calls *expire*, a method, once when a server has an item for longer than *timeout* seconds.

    `start`: the server gets an item, or begins. `stop`: it asks for the next one. *expire* is held weakly, so that what
    it belongs to can be collected. A timer for each item would cost more than the rest of an event: one runs for many.
    """

    def __init__(self, timeout: float, expire: Callable[[], object]) -> None:
        self._timeout = timeout
        self._expire = weakref.WeakMethod(expire)
        self._loop = asyncio.get_running_loop()
        self._since = math.inf  # when the server got the item that it has; infinity: none
        self._timer: asyncio.TimerHandle | None = None
        self.start()

    def start(self) -> None:
        """Start the time of an item."""
        self._since = self._loop.time()
        if self._timer is None and self._timeout < math.inf:
            self._timer = self._loop.call_at(self._since + self._timeout, self._check)

    def stop(self) -> None:
        """End the time of an item."""
        self._since = math.inf

    def close(self) -> None:
        """End it, also for later items. Idempotent."""
        self._since = self._timeout = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._since == math.inf:  # the next item starts it again
            return
        when = self._since + self._timeout
        if when > self._loop.time():
            self._timer = self._loop.call_at(when, self._check)
        else:
            self._timer = self._loop.call_later(_GRACE, self._check_again, self._since)

    def _check_again(self, since: float) -> None:
        if self._since != since:
            self._check()
            return
        timeout, expire = self._timeout, self._expire()
        self.close()
        if expire is not None:
            logger.warning("a browser has read nothing for %g s: its stream is closed", timeout)
            expire()
