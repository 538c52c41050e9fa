"""Interrupts at the points where CPython handles signals, and loops that are blocked while one arrives."""

import asyncio
import contextlib
import dis
import functools
import itertools
import signal
import sys
import threading
from pathlib import Path

import pytest

import neuralbox_sync
from neuralbox_async._batch import caller_items, caller_thread
from neuralbox_async._http.aiohttp_transport import AiohttpTransport
from neuralbox_async._options import ConnectionOptions
from neuralbox_sync._loop import EventLoop

# The code that runs in the caller's thread.
FACADE = (str(Path(neuralbox_sync.__file__).parent), caller_items.__file__, caller_thread.__file__)


REPORTS_INSTRUCTIONS = sys.version_info[:2] != (3, 12)
_REASON = "CPython 3.12 reports no instructions to a trace function"
needs_instructions = pytest.mark.skipif(not REPORTS_INSTRUCTIONS, reason=_REASON)


@functools.cache
def _operations(code):
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


def _handles_signals(operation):
    """Return whether CPython handles signals after *operation*: at the start of functions, after calls, in loops."""
    return operation.startswith(("RESUME", "CALL", "JUMP_BACKWARD")) and not operation.startswith("CALL_INTRINSIC")


def interrupt_at(step, function, *others):
    """
    Call *function*; raise KeyboardInterrupt at the *step*-th point of the facade's code. Return whether it did.

    *others*: functions whose code counts as well.
    """
    steps = itertools.count()

    def is_due():
        return next(steps) == step

    try:
        trace_steps(is_due, function, others)
    except KeyboardInterrupt:
        return True
    return False


def count_steps(function, *others):
    """Call *function* and return the number of the points at which `interrupt_at` can interrupt it."""
    steps = itertools.count()
    trace_steps(lambda: next(steps) < 0, function, others)
    return next(steps)


def trace_steps(is_due, function, others):
    """Call *function*; raise KeyboardInterrupt at the point of the facade's code, or of *others*, that *is_due*."""
    if not REPORTS_INSTRUCTIONS:
        pytest.skip(_REASON)
    codes = {other.__code__ for other in others}

    def trace(frame, _event, _argument):
        if not frame.f_code.co_filename.startswith(FACADE) and frame.f_code not in codes:
            return None
        operations, previous = _operations(frame.f_code), "RESUME"
        frame.f_trace_opcodes = True

        def trace_frame(frame, event, _argument):
            nonlocal previous
            frame.f_trace_opcodes = True  # Python 3.13 and newer need it again
            is_point = False
            if event == "opcode":
                is_point, previous = _handles_signals(previous), operations[frame.f_lasti]
            elif event == "exception":
                previous = ""
            if is_point and is_due():
                sys.stdout.write(f"interrupt in {frame.f_code.co_name}, line {frame.f_lineno}\n")  # for a report
                raise KeyboardInterrupt
            return trace_frame

        return trace_frame

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)


class RecordingTransport(AiohttpTransport):
    """The real transport, with a list of the methods of the requests that it was passed."""

    def __init__(self):
        super().__init__(ConnectionOptions())
        self.sent, self.total = [], 0

    async def send(self, request):
        """Record the request and send it."""
        self.sent.append(request.method)
        self.total += 1
        return await super().send(request)


@contextlib.contextmanager
def interrupted_between_task_and_first_step(monkeypatch):
    """Interrupt the call in the block when its task was made and has not begun; the loop goes on after the block."""
    drain, blocked, resume = EventLoop._drain_inbox, threading.Event(), threading.Event()

    def drain_and_block(self, loop):
        drain(self, loop)
        if not blocked.is_set():
            blocked.set()
            resume.wait(10)

    def interrupt(*_):
        if not blocked.is_set():  # another signal does it
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    monkeypatch.setattr(EventLoop, "_drain_inbox", drain_and_block)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        monkeypatch.setattr(EventLoop, "_drain_inbox", drain)
        resume.set()
    assert blocked.is_set()


def settle(client):
    """Let the event loop of *client* do what is due."""
    client._loop.call(functools.partial(asyncio.sleep, 0.005))
