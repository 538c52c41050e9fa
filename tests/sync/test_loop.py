"""The private event loop, with coroutines of its own: threads, interrupts, contexts, ends."""

import asyncio
import contextvars
import gc
import itertools
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import anyio.to_thread
import pytest

from neuralbox_async import ClientClosedError
from neuralbox_sync._blocking import View
from neuralbox_sync._loop import EventLoop, _Call

THREADS = 64


async def echo(value):
    """Return *value* after a turn of the loop."""
    await asyncio.sleep(0)
    return value


async def nothing():
    """Do nothing."""


def in_threads(count, function):
    """Call *function* with 0 to *count* - 1, each in a thread, all at the same time; return the results or errors."""
    together = threading.Barrier(count)

    def run(number):
        together.wait()
        try:
            return function(number)
        except Exception as error:  # noqa: BLE001 - it is a result here
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_result(loop):
    """A call returns what the coroutine returns."""
    assert 5 == loop.call(partial(echo, 5))


def test_nothing_is_started_early(make_loop, loop_threads):
    """No thread is started before the first call."""
    make_loop()

    assert [] == loop_threads()


def test_first_calls_at_once(loop, loop_threads):
    """However many threads make the first call at the same time, there is one loop."""
    assert list(range(THREADS)) == in_threads(THREADS, lambda number: loop.call(partial(echo, number)))
    assert 1 == len(loop_threads())


def test_many_calls_of_many_threads(loop):
    """Ten thousand calls of 64 threads each get their own answer."""
    each = 160

    def call(number):
        return [loop.call(partial(echo, (number, turn))) for turn in range(each)]

    assert [[(number, turn) for turn in range(each)] for number in range(THREADS)] == in_threads(THREADS, call)


def test_exception(loop):
    """What the coroutine raises is raised, with its own traceback and at most two frames of the loop's."""

    async def fail():
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as caught:
        loop.call(fail)

    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files[-1] == __file__
    assert sum(file.endswith("_loop.py") and "neuralbox_sync" in file for file in files) <= 2


def test_exceptions_keep_nothing_alive(loop):
    """An error that is handled leaves nothing for the garbage collector."""

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


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_exceptions_that_end_loops(loop, kind):
    """SystemExit and its like in one coroutine are no matter of other callers."""

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
    """A coroutine sees its caller's context variables; what it sets stays with it."""
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
    """A call from the loop's own thread is refused: it would wait for itself."""

    async def call():
        return loop.call(nothing)

    with pytest.raises(RuntimeError, match=r"await there, or use asyncio\.to_thread"):
        loop.call(call)
    assert 1 == loop.call(partial(echo, 1))


def test_call_from_worker_thread_of_the_loop(loop):
    """A call from another thread that the loop waits for is served."""

    async def call():
        return await anyio.to_thread.run_sync(loop.call, partial(echo, 7))

    assert 7 == loop.call(call)


async def test_call_inside_a_running_loop(loop):
    """A call inside another running loop works, and holds that loop up."""
    assert 3 == loop.call(partial(echo, 3))


async def test_cancelled_worker_thread(loop):
    """A cancelled scope around `anyio.to_thread` ends the call in that thread."""
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_loop(loop):
    """When the loop dies under a call, the call fails, and the next one gets a new loop."""

    def die():
        raise SystemExit

    async def kill():
        asyncio.get_running_loop().call_soon(die)
        await asyncio.sleep(30)

    began = time.monotonic()
    with pytest.raises(ClientClosedError, match="during"):
        loop.call(kill)
    assert time.monotonic() - began < 10
    assert 1 == loop.call(partial(echo, 1))


def test_closed(loop, loop_threads):
    """A closed loop refuses calls, its thread is gone, and closing again does nothing."""
    loop.call(nothing)

    loop.close()
    loop.close()

    assert [] == loop_threads()
    with pytest.raises(ClientClosedError, match="before"):
        loop.call(nothing)


def test_closed_unused(loop):
    """A loop can be closed before it was used, and is then closed."""
    loop.close()

    with pytest.raises(ClientClosedError, match="before"):
        loop.call(nothing)


def test_close_ends_calls(loop):
    """Closing ends the calls under way."""
    running = threading.Semaphore(0)

    async def sleep():
        running.release()
        await asyncio.sleep(30)

    def call(number):
        if number:
            return loop.call(sleep)
        for _ in range(4):
            running.acquire()
        return loop.close()

    told = "the client was closed during the call"

    assert [None, *[told] * 4] == [None if e is None else str(e) for e in in_threads(5, call)]


def test_close_on_own_thread(loop):
    """A coroutine may close the loop that it runs on."""

    async def close():
        loop.close()
        await asyncio.sleep(30)

    with pytest.raises(ClientClosedError, match="during"):
        loop.call(close)


def test_close_is_bounded(loop):
    """Closing does not wait for a coroutine that ignores its cancellation."""
    released = threading.Event()

    async def stay():
        while not released.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    caller = threading.Thread(target=lambda: in_threads(1, lambda _: loop.call(stay)))
    caller.start()
    loop.call(nothing)
    began = time.monotonic()

    loop.close()

    assert time.monotonic() - began < 10
    released.set()
    caller.join()


@pytest.mark.parametrize("round_", range(40))
def test_close_race(make_loop, round_):
    """Closing while eight threads call leaves nobody waiting, and gives all the same kind of error."""
    loop = make_loop()
    loop.call(nothing)

    def call(number):
        if number == 0:
            time.sleep(round_ * 0.00005)
            return loop.close()
        while True:
            loop.call(nothing)

    assert [None, *[ClientClosedError] * 8] == [e and type(e) for e in in_threads(9, call)]


def test_dropped(make_loop, loop_threads):
    """A loop that is dropped because its client is gone ends, with one warning."""
    loop = make_loop()
    loop.call(nothing)

    with pytest.warns(ResourceWarning, match="never closed"):
        loop.drop()

    loop.drop()
    while loop_threads():
        time.sleep(0.001)


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
