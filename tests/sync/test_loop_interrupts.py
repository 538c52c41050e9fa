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
from coroutines import echo, nothing

from neuralbox_async import ClientClosedError
from neuralbox_sync._blocking import View
from neuralbox_sync._loop import EventLoop, _Call


@pytest.mark.parametrize("pause", [0.0, 0.5])
@pytest.mark.parametrize("name", ["neuralbox-import", "neuralbox"])
def test_an_interrupted_start(loop, monkeypatch, name, pause):
    """An interrupt as one of the threads starts ends that call only: the next one has a loop, at once and later."""
    start, interrupted = threading.Thread.start, []

    def start_and_interrupt(thread):
        start(thread)
        if not interrupted and thread.name == name:
            interrupted.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.call(nothing)
    time.sleep(pause)

    assert [5, 6] == [loop.call(partial(echo, 5)), loop.call(partial(echo, 6))]


def interrupted_at(step, function):
    """Call *function* with a KeyboardInterrupt at its *step*-th line or instruction; return whether."""
    steps = itertools.count()

    def trace(frame, event, _argument):
        if frame.f_code is not EventLoop._carry_out.__code__:
            return trace
        frame.f_trace_opcodes = True
        if event in {"line", "opcode"} and next(steps) == step:  # CPython 3.12 tells of lines only
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
    """Wherever one caller is interrupted, the calls of the others are carried out, and its own is not left running."""
    began, ended = [], []

    async def work():
        began.append(1)
        try:
            await asyncio.sleep(0.01)
        finally:
            ended.append(1)

    loop.call(nothing)
    with ThreadPoolExecutor(4) as pool:
        for step in itertools.count():
            others = [pool.submit(loop.call, partial(echo, number)) for number in range(8)]
            interrupted = interrupted_at(step, partial(loop.call, work))
            assert [*range(8)] == [other.result(10) for other in others]
            loop.call(nothing)
            assert began == ended
            if not interrupted:
                break
    assert step > 5


def test_a_call_that_was_given_up(loop):
    """A call whose caller was interrupted before the loop knew of it, and again at once, is not carried out later."""
    began = []

    async def work():
        began.append(1)

    loop.call(nothing)
    given_up = _Call(work)
    given_up.given_up = True
    for inbox in loop._inboxes.values():
        inbox.append(given_up)

    assert [5, 6] == [loop.call(partial(echo, 5)), loop.call(partial(echo, 6))]
    assert [] == began


def test_an_interrupt_gives_up(loop, monkeypatch):
    """An interrupt gives a call up, even one that comes while the first is dealt with."""
    calls = []

    def interrupted(call, _loop=None):
        calls.append(call)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Call, "abandon", interrupted)
    monkeypatch.setattr(EventLoop, "_carry_out", lambda _self, call, _loop: interrupted(call))
    with pytest.raises(KeyboardInterrupt):
        loop.call(nothing)

    assert all(call.given_up for call in calls)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_does_not_start(loop, monkeypatch):
    """When the loop's thread dies before it runs the call is told, and the next one tries again."""
    monkeypatch.setattr(anyio, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ClientClosedError, match="during"):
        loop.call(nothing)
    monkeypatch.undo()

    assert 5 == loop.call(partial(echo, 5))


def test_an_interrupt_before_anything_is_closed():
    """A block that is left when an interrupt comes is left closed."""
    closed = []

    class Interrupted(View):
        def close(self):
            closed.append(1)
            if len(closed) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Interrupted(None, None):
        pass

    assert [1, 1] == closed
