"""Interrupted calls on the private event loop, and loops that do not start."""

import asyncio
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import anyio.to_thread
import pytest
from coroutines import do_nothing, echo

from neuralbox_async import ClientClosedError
from neuralbox_sync._blocking import View
from neuralbox_sync._loop import EventLoop

pytestmark = pytest.mark.signals


@pytest.mark.parametrize("pause", [0.0, 0.5])
@pytest.mark.parametrize("name", ["neuralbox-import", "neuralbox"])
def test_interrupted_start(loop, monkeypatch, name, pause):
    """An interrupt while a thread starts ends that call only; the next call has a loop, at once and later."""
    start, interrupted = threading.Thread.start, []

    def start_and_interrupt(thread):
        start(thread)
        if not interrupted and thread.name == name:
            interrupted.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.call(do_nothing)
    time.sleep(pause)

    assert [5, 6] == [loop.call(partial(echo, 5)), loop.call(partial(echo, 6))]


def interrupt_at(step, function):
    """Call *function* and raise KeyboardInterrupt at its *step*-th line or instruction; return whether it did."""
    steps = itertools.count()

    def trace(frame, event, _argument):
        if frame.f_code is not EventLoop._submit_and_wait.__code__:
            return trace
        frame.f_trace_opcodes = True
        if event in {"line", "opcode"} and next(steps) == step:  # CPython 3.12 reports lines only
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_interrupts_at_each_step(loop):
    """An interrupt at any step cancels the call of its own thread and no other."""
    started, ended = [], []

    async def work():
        started.append(1)
        try:
            await asyncio.sleep(0.01)
        finally:
            ended.append(1)

    loop.call(do_nothing)
    with ThreadPoolExecutor(4) as pool:
        for step in itertools.count():
            others = [pool.submit(loop.call, partial(echo, number)) for number in range(8)]
            interrupted = interrupt_at(step, partial(loop.call, work))
            assert [*range(8)] == [other.result(10) for other in others]
            loop.call(do_nothing)
            assert started == ended
            if not interrupted:
                break
    assert step > 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_does_not_start(loop, monkeypatch):
    """A call raises when the loop's thread ends before the loop runs, and the next call starts another loop."""
    monkeypatch.setattr(anyio, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ClientClosedError, match="before"):
        loop.call(do_nothing)
    monkeypatch.undo()

    assert 5 == loop.call(partial(echo, 5))


def test_interrupted_close():
    """A view is closed when its block is left, even if an interrupt arrives before anything is closed."""
    closed = []

    class Interrupted(View):
        def close(self):
            closed.append(1)
            if len(closed) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Interrupted(None, None):
        pass

    assert [1, 1] == closed
