"""Ctrl-C and other signals: real ones, in subprocesses."""

import itertools
import signal
import textwrap

import pytest

pytestmark = pytest.mark.signals

SOON = 5.0  # seconds; shorter than any delay of the server (tests/hosts/test_states.py has the exact bound)

SCRIPT = """
from neuralbox_sync import NeuralBox

def call():
{call}

client = NeuralBox()
client.generate("gpt-5", "Warm up")
print("ready", flush=True)
input()
try:
    call()
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(client.generate("gpt-5", "Hi").content, flush=True)
client.close()
"""


def endless(body):
    """Return the reply to the request *body*: endless for a stream."""
    return itertools.repeat("x ") if body.get("stream") else "You said: Hi"


@pytest.fixture
def begin(start, neuralbox_server):
    """Start a script that makes *call*, and another one when the first is interrupted; return it during *call*."""

    def begin(call, *, prepare=lambda: None, sent=lambda: neuralbox_server.in_flight == 1):
        script = start(SCRIPT.format(call=textwrap.indent(textwrap.dedent(call), "    ")))
        script.wait_for("ready")
        neuralbox_server.wait_until(lambda: not neuralbox_server.in_flight)
        prepare()
        script.resume()
        neuralbox_server.wait_until(lambda: len(neuralbox_server.requests) == 2 and sent())
        return script

    return begin


def assert_interruptible(script):
    """Interrupt *script*; its call ends soon, its client still works, and standard error is empty."""
    script.interrupt()
    result = script.end()
    assert (0, ["interrupted", "You said: Hi"], "") == (result.status, result.lines, result.errors)
    assert result.seconds < SOON


@pytest.mark.neuralbox_server(stop_on_disconnect=True)
@pytest.mark.parametrize("call", ['client.generate("gpt-5", "?")', 'client.stream("gpt-5", "?").__enter__()'])
def test_during_a_call(begin, neuralbox_server, call):
    """Ctrl-C during a call cancels it at once, on the server as well, and it is not billed."""
    script = begin(call, prepare=lambda: neuralbox_server.delay(30))

    assert_interruptible(script)

    assert 1 == len(neuralbox_server.wait_for_disconnect())
    assert 2 == len(neuralbox_server.billed)


@pytest.mark.neuralbox_server(event_interval=0.01, reply=endless)
def test_during_a_stream(begin, neuralbox_server):
    """Ctrl-C while a stream is read closes it, and the server stops generating."""
    script = begin("""
        with client.stream("gpt-5", "?") as stream:
            for _ in stream:
                pass
    """)

    assert_interruptible(script)

    assert 1 == len(neuralbox_server.wait_for_disconnect())


def test_between_attempts(begin, neuralbox_server):
    """Ctrl-C between two attempts ends the call, and nothing more is sent."""
    script = begin(
        'client.generate("gpt-5", "?")',
        prepare=lambda: neuralbox_server.fail(503, code="model_unavailable", headers={"Retry-After": "30"}),
        sent=lambda: not neuralbox_server.in_flight,
    )

    assert_interruptible(script)

    assert 3 == len(neuralbox_server.requests)


@pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=60)
def test_during_wait(begin, neuralbox_server):
    """Ctrl-C while a generation is polled ends the polling."""
    script = begin('client.generate("slow", "?", wait=True)', sent=lambda: not neuralbox_server.in_flight)

    assert_interruptible(script)


@pytest.mark.neuralbox_server(event_interval=0.02)
def test_interrupted_stream_continues(start, neuralbox_server):
    """An interrupt loses no event: the same iterator continues after the last one delivered."""
    script = start("""
        from neuralbox_sync import NeuralBox

        pieces = []
        with NeuralBox() as client, client.stream("gpt-5", "Say one two three four five six seven") as stream:
            text = stream.text_stream
            interrupts = 0
            while not stream.generation.completed:
                try:
                    for piece in text:
                        pieces.append(piece)
                        if len(pieces) == 1:
                            print("ready", flush=True)
                except KeyboardInterrupt:
                    interrupts += 1
        print(interrupts, "".join(pieces), flush=True)
    """)
    script.wait_for("ready")

    script.interrupt()

    assert ["1 You said: Say one two three four five six seven"] == script.end().lines


def test_call_that_ignores_its_cancellation(start):
    """A coroutine that ignores its cancellation delays an interrupt, and the end of the program, for a moment only."""
    script = start("""
        import asyncio
        from neuralbox_sync._loop import EventLoop

        async def ignore_cancellation():
            print("ready", flush=True)
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def aclose():
            pass

        try:
            EventLoop(aclose).call(ignore_cancellation)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
    script.wait_for("ready")

    script.interrupt()
    script.wait_for("interrupted")
    result = script.end()

    assert (0, "") == (result.status, result.errors)
    assert result.seconds < SOON


def test_call_in_a_signal_handler(start, neuralbox_server):
    """A handler can make calls of its own, and the call that it interrupts continues."""
    neuralbox_server.delay(0.3)
    script = start("""
        import signal
        from neuralbox_sync import NeuralBox

        client = NeuralBox()
        signal.signal(signal.SIGUSR1, lambda *_: print(client.generate("gpt-5", "inner").content))
        print(client.generate("gpt-5", "outer").content)
        client.close()
    """)
    neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 1)

    script.send(signal.SIGUSR1)

    assert ["You said: inner", "You said: outer"] == script.end().lines


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1])
def test_first_call_within_the_first_call(start, seconds):
    """A handler's call that interrupts the first call while it starts the loop uses the same loop."""
    script = start(f"""
        import asyncio, signal, threading
        from neuralbox_sync._loop import EventLoop

        async def do_nothing():
            pass

        async def loop_id():
            return id(asyncio.get_running_loop())

        loops, loop = [], EventLoop(do_nothing)
        signal.signal(signal.SIGALRM, lambda *_: loops.append(loop.call(loop_id)))
        signal.setitimer(signal.ITIMER_REAL, {seconds})
        loops.append(loop.call(loop_id))
        signal.setitimer(signal.ITIMER_REAL, 0)
        loop.close()
        print(len(set(loops)), threading.active_count(), loop._inboxes)
    """)

    assert ["1 1 {}"] == script.end().lines


@pytest.mark.neuralbox_server(stop_on_disconnect=True)
def test_termination(begin, neuralbox_server):
    """SIGTERM ends the process and the call."""
    script = begin('client.generate("gpt-5", "?")', prepare=lambda: neuralbox_server.delay(30))

    script.send(signal.SIGTERM)

    assert -signal.SIGTERM == script.end().status
    neuralbox_server.wait_for_disconnect()


def test_interrupts_at_any_time(start):
    """Each coroutine whose caller is interrupted at any time ends or is cancelled, and the loop still works."""
    # Not measured: an interrupt in the tracer of coverage leaves its lock held, and everything hangs.
    script = start(
        """
        import asyncio, random, signal, time
        from neuralbox_sync._loop import EventLoop

        started = cancelled = ended = returned = interrupted = 0
        slowest = 0.0

        async def work():
            global started, cancelled, ended
            started += 1
            try:
                await asyncio.sleep(0.0002)
                ended += 1
            except asyncio.CancelledError:
                cancelled += 1
                raise

        async def do_nothing():
            pass

        def interrupt(*_):
            raise KeyboardInterrupt

        loop = EventLoop(do_nothing)
        loop.call(do_nothing)
        signal.signal(signal.SIGALRM, interrupt)
        for _ in range(600):
            call_started = time.monotonic()
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 3e-3))
                loop.call(work)
                signal.setitimer(signal.ITIMER_REAL, 0)
                returned += 1
            except KeyboardInterrupt:
                interrupted += 1
            slowest = max(slowest, time.monotonic() - call_started)
        loop.call(do_nothing)
        assert returned + interrupted == 600 and returned and interrupted, (returned, interrupted)
        assert started == cancelled + ended and ended >= returned, (started, cancelled, ended, returned)
        assert slowest < 1, slowest
        loop.close()
        """,
        measured=False,
    )
    result = script.end()

    assert (0, "") == (result.status, result.errors)


def test_interrupted_reads(start):
    """No interrupt between two steps of a read loses an item, and none is read twice."""
    script = start(
        """
        import random, signal, time
        from neuralbox_sync._stream import BulkIterator

        def interrupt(*_):
            raise KeyboardInterrupt

        view = BulkIterator(None, None, None)
        signal.signal(signal.SIGALRM, interrupt)
        interrupts = last = 0
        end = time.monotonic() + 2
        while time.monotonic() < end and interrupts < 20_000:
            view._items.extend(range(last + 1 + len(view._items), last + 1001))
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-6)
                for number in view:
                    assert last + 1 == number, (last, number, interrupts)
                    last = number
            except KeyboardInterrupt:
                interrupts += 1
            except AttributeError:
                pass  # the end of the items
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert interrupts > 100, interrupts
        """,
        measured=False,
    )
    result = script.end()

    assert (0, "") == (result.status, result.errors)
