"""The private event loop: threads, errors, contexts."""

import _thread
import asyncio
import contextvars
import gc
import signal
import threading
import time
import traceback
import weakref
from functools import partial

import anyio
import anyio.to_thread
import pytest
from coroutines import do_nothing, echo, in_threads

from neuralbox_async import ClientClosedError, ResponseError
from neuralbox_sync._loop import CallState, _Call

THREADS = 64


class InterruptionError(Exception):
    """What a signal handler raises: no `OSError`, which asyncio ignores while it wakes its loop."""


async def interrupt_and_wait(signum):
    _thread.interrupt_main(signum)
    await asyncio.sleep(60)


def test_result(loop):
    """A call returns the result of the coroutine."""
    assert 5 == loop.call(partial(echo, 5))


def test_no_thread_before_the_first_call(make_loop, loop_threads):
    """No thread is started before the first call."""
    make_loop()

    assert [] == loop_threads()


def test_states_of_a_call(loop):
    """A call is pending until its task starts, then running, then done."""
    states = []

    async def work():
        states.append(call.state)

    loop.call(do_nothing)
    call = _Call(work)
    states.append(call.state)
    loop._submit_and_wait(call, loop._loop)

    assert [CallState.PENDING, CallState.RUNNING, CallState.DONE] == [*states, call.state]


def test_first_calls_at_once(loop, loop_threads):
    """There is one loop, however many threads make the first call at the same time."""
    assert list(range(THREADS)) == in_threads(THREADS, lambda number: loop.call(partial(echo, number)))
    assert 1 == len(loop_threads())


def test_many_calls_of_many_threads(loop):
    """Each of ten thousand calls from 64 threads gets its own result."""
    each = 160

    def call(number):
        return [loop.call(partial(echo, (number, turn))) for turn in range(each)]

    assert [[(number, turn) for turn in range(each)] for number in range(THREADS)] == in_threads(THREADS, call)


def test_exception(loop):
    """An exception of the coroutine is raised, with its own traceback and at most two frames of the loop."""

    async def fail():
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as caught:
        loop.call(fail)

    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files[-1] == __file__
    assert sum(file.endswith("_loop.py") and "neuralbox_sync" in file for file in files) <= 2


def test_exceptions_keep_nothing_alive(loop):
    """A handled exception is not part of a reference cycle."""

    class Thing:
        pass

    async def fail(thing):
        raise LookupError(thing)

    thing = Thing()
    alive = weakref.ref(thing)
    gc.disable()
    try:
        with pytest.raises(LookupError):
            loop.call(partial(fail, thing))
        del thing
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.signals
def test_the_error_of_an_interrupted_call(loop):
    """A call that fails by itself while Ctrl-C cancels it: the interrupt has its error, with the text, as its cause."""

    async def fail():
        _thread.interrupt_main()
        try:
            await asyncio.sleep(60)
        finally:
            raise ResponseError("malformed", text="paid") from LookupError()

    with pytest.raises(KeyboardInterrupt) as caught:
        loop.call(fail)

    assert "paid" == caught.value.__cause__.text


@pytest.mark.signals
@pytest.mark.parametrize("explicit", [True, False])
def test_the_cause_of_an_interrupt(loop, explicit):
    """What a signal handler raises keeps its own cause, or its context, if the call that it interrupts has no error."""
    reason = OSError("the reason")

    def handler(*_):
        if explicit:
            raise InterruptionError from reason
        try:
            raise reason
        except OSError:
            raise InterruptionError  # noqa: B904 - on purpose

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(InterruptionError) as caught:
            loop.call(partial(interrupt_and_wait, signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)

    error = caught.value
    assert (reason, explicit) == (error.__cause__ if explicit else error.__context__, error.__suppress_context__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_exceptions_that_end_loops(loop, kind):
    """An exception that would end the loop reaches its own caller only."""

    async def fail():
        await asyncio.sleep(0.01)
        raise kind

    def call(number):
        if number:
            return loop.call(partial(echo, number)), loop.call(partial(asyncio.sleep, 0.02, number))
        expected = ClientClosedError if kind is asyncio.CancelledError else kind
        with pytest.raises(expected):
            loop.call(fail)
        return None

    assert [None, *((number, number) for number in range(1, 8))] == in_threads(8, call)


def test_context(loop):
    """A coroutine sees its caller's context variables, and its caller does not see changes of them."""
    name = contextvars.ContextVar("name", default="nobody")

    async def rename():
        seen = name.get()
        name.set("coroutine")
        return seen

    def call(number):
        name.set(number)
        return loop.call(rename), name.get()

    assert [(number, number) for number in range(4)] == in_threads(4, call)


def test_call_on_own_thread(loop):
    """A call from the loop's own thread raises: it would wait for itself."""

    async def call():
        return loop.call(do_nothing)

    with pytest.raises(RuntimeError, match=r"await there, or use asyncio\.to_thread"):
        loop.call(call)
    assert 1 == loop.call(partial(echo, 1))


def test_call_from_worker_thread_of_the_loop(loop):
    """A call works from a worker thread that the loop waits for."""

    async def call():
        return await anyio.to_thread.run_sync(loop.call, partial(echo, 7))

    assert 7 == loop.call(call)


async def test_call_inside_a_running_loop(loop):
    """A call inside another running loop works, and blocks that loop."""
    assert 3 == loop.call(partial(echo, 3))


async def test_cancelled_worker_thread(loop):
    """A cancelled scope around `anyio.to_thread` cancels the call in that thread."""
    ended = threading.Event()

    async def sleep():
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    with anyio.move_on_after(0.05) as scope:
        await anyio.to_thread.run_sync(loop.call, sleep)

    assert scope.cancelled_caught
    assert ended.is_set()


@pytest.mark.timing
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_loop(loop):
    """A call whose loop dies raises, and the next call starts another loop."""

    def die():
        raise SystemExit

    async def kill():
        asyncio.get_running_loop().call_soon(die)
        await asyncio.sleep(30)

    started = time.monotonic()
    with pytest.raises(ClientClosedError, match="during"):
        loop.call(kill)
    assert time.monotonic() - started < 10
    assert 1 == loop.call(partial(echo, 1))
