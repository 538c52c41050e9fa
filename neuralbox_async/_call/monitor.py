"""What a client records of its calls: their usage, and the events for its observers."""

from __future__ import annotations

import _thread
import itertools
import re
import threading
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._errors import APIStatusError
from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._logging import logger
from neuralbox_async._observers import installed
from neuralbox_async._usage import UsageCounter

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._observers import BatchInfo, Event, Observer

new_id = itertools.count(1).__next__
_is_code = re.compile(r"[\w.-]{1,64}", re.ASCII).fullmatch


@attrs.frozen(eq=False)
class Monitor:
    """The *usage* of a client, and its own observers. *batch*: the batch whose calls these are, or None."""

    usage: UsageCounter = attrs.field(factory=UsageCounter)
    own_observers: tuple[Observer, ...] = ()
    batch: BatchInfo | None = None

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Its own observers and those of the process."""
        return (*self.own_observers, *installed) if installed else self.own_observers

    def derive(self) -> Monitor:
        """Return the monitor of a derived client: the same observers, and a usage of its own within this one."""
        return Monitor(UsageCounter(self.usage), self.own_observers)


def notify(observers: tuple[Observer, ...], event: Event, with_content: Callable[[], Event] | None = None) -> None:
    """Pass *observers* the *event*, or what *with_content* makes to those that want it. Their exceptions are logged."""
    for observer in observers:
        try:
            if with_content is not None and wants_content(observer):
                observer.observe(with_content())
            else:
                observer.observe(event)
        except BaseException as error:  # noqa: BLE001 - of the user's own code, and the call may be paid for
            _raise_if_of_signal(error)
            logger.exception("the observer %s raised an exception", type(observer).__name__)


def wants_content(observer: Observer) -> bool:
    """Return whether *observer* gets prompts and texts."""
    try:
        return bool(getattr(observer, "wants_content", False))
    except BaseException as error:  # noqa: BLE001 - the same
        _raise_if_of_signal(error)
        return False


def _raise_if_of_signal(error: BaseException) -> None:
    """Raise *error* if a signal may have raised it, to end the process: Ctrl-C in whatever runs then."""
    if isinstance(error, KeyboardInterrupt | SystemExit) and threading.current_thread() is threading.main_thread():
        raise error


def run_elsewhere(function: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """
    Run *function* soon: in *loop*, by default the running one, or else in a thread of its own.

    For what the garbage collector ends: it may run while its thread holds a lock of an observer, or of `threading`.
    """
    try:
        loop = asyncio.get_running_loop() if loop is None else loop
        if loop.is_running():
            loop.call_soon_threadsafe(function)
            return
    except RuntimeError:  # there is none, or it is closed by now
        pass
    try:
        _thread.start_new_thread(function, ())
    except RuntimeError:  # no more threads
        function()


def error_type_of(error: BaseException) -> str:
    """Return the API's code of *error*, or else the name of its class."""
    code = error.code if isinstance(error, APIStatusError) else None
    # A code is a word; anything else could be a text of any content and length.
    return code if code is not None and _is_code(code) else type(error).__name__
