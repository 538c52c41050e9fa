"""`CallerThread`: what a thread of the caller has run is used by the loop's thread while the former runs it again."""

from __future__ import annotations

from collections import deque

from neuralbox_async._batch.caller_thread import CallerThread


class Replaced(dict):
    """A dict whose items another thread removes as soon as it was asked whether it has them."""

    def __contains__(self, key):
        found = super().__contains__(key)
        self.clear()
        return found


async def test_a_result_that_is_being_replaced():
    """The last result is looked up in one step."""
    thread = object.__new__(CallerThread)
    thread._last, thread._reads, thread._running = Replaced({len: "key"}), deque(), {}

    assert "key" == await thread.run_in_caller(len)
