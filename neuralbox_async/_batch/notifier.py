"""A condition without a lock: tasks wait for the next notification and check for themselves what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._lazy_imports import anyio

if TYPE_CHECKING:
    from anyio import Event


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
