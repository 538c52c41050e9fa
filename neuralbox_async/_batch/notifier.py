"""A condition without a lock: tasks wait for the next notification and check for themselves what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from anyio import Event
    from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")


class Notifier:
    """Wakes all tasks that wait. For one event loop; `anyio.Condition` has a lock, which costs 20 us a notification."""

    def __init__(self) -> None:
        self._event: Event | None = None  # of the tasks that wait now

    def notify_all(self) -> None:
        """Wake the tasks that wait now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next `notify_all`, at most *timeout* seconds (None: no limit)."""
        event = self._event = self._event or anyio.Event()
        if timeout is None:
            await event.wait()
        else:
            with anyio.move_on_after(timeout):
                await event.wait()


async def receive_soon(stream: MemoryObjectReceiveStream[T]) -> T | None:
    """Return the next item of *stream*, which a task that was notified just now is about to send; None at the end."""
    # `receive` yields once as well, at three times the cost (benchmark scenario `batch`).
    await asyncio.sleep(0)
    try:
        return stream.receive_nowait()
    except anyio.WouldBlock:
        pass
    except anyio.EndOfStream:
        return None
    return await anext(stream, None)
