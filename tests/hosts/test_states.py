"""Whatever a process is doing when it ends or is interrupted, it does so soon, and NeuralBox stops generating."""

import itertools
import signal
import statistics
import textwrap

import pytest

from neuralbox_async.testing import NeuralBoxServer

BOUND = 2.5  # seconds
SOON = 0.2  # seconds

SCRIPT = """
import os, signal, sys, threading, time
from neuralbox_sync import *

def act():
{act}

def end(*_):
    sys.exit(0)

client = NeuralBox()
client.generate("gpt-5", "warm up")
print("ready", flush=True)
input()
{run}
"""

# What a script may be doing, and what makes the server keep it there.
STATES = {
    "a call": ('client.generate("gpt-5", "?")', lambda server: server.delay(30)),
    "a stream": ('with client.stream("gpt-5", "endless") as stream: list(stream)', lambda server: None),
    "the rest of a stream": (
        'with client.stream("gpt-5", "endless") as stream: stream.get_final_generation()',
        lambda server: None,
    ),
    "a stream before its first event": (
        'with client.stream("gpt-5", "?") as stream: list(stream)',
        lambda server: server.stall(0),
    ),
    "a pause before a retry": (
        'client.generate("gpt-5", "?")',
        lambda server: server.fail(503, code="model_unavailable", headers={"Retry-After": "30"}),
    ),
    "waiting": ('client.generate("pending", "?", wait=True)', lambda server: None),
    "a batch": (
        'with client.generate_many([{"model": "gpt-5", "messages": "?"}] * 2) as batch: list(batch)',
        lambda server: server.delay(30, times=2),
    ),
}
CONNECTED = ["a call", "a stream", "the rest of a stream", "a stream before its first event", "a batch"]


def reply(asked):
    """Return the answer to what was *asked*: to "endless", one without end."""
    prompt = asked["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


@pytest.fixture
def neuralbox_server():
    """A server that stops when its client goes."""
    options = {"event_interval": 0.01, "pending_models": ["pending"], "pending_seconds": 60, "stop_on_disconnect": True}
    with NeuralBoxServer(reply=reply, **options) as server:
        yield server


@pytest.fixture
def enter(neuralbox_server):
    """Let a script that waits for it get into a *state*, and return when it is there."""

    def enter(host, state):
        neuralbox_server.reset()
        STATES[state][1](neuralbox_server)
        host.go_on()
        neuralbox_server.wait_until(lambda: len(neuralbox_server.requests) >= (2 if state == "a batch" else 1))

    return enter


@pytest.fixture
def begin(start, enter):
    """Start a script that gets into a *state* by *run*, and return it when it is there."""

    def begin(state, run, *options):
        host = start(SCRIPT.format(act=textwrap.indent(STATES[state][0], "    "), run=run), *options)
        host.wait_for("ready")
        enter(host, state)
        return host

    return begin


@pytest.fixture
def stops(neuralbox_server):
    """Wait until the server has seen that nobody waits for its answers to what was asked in a *state*."""

    def stops(state):
        if state in CONNECTED:
            neuralbox_server.wait_for_disconnect()
        assert () == neuralbox_server.billed

    return stops


@pytest.mark.parametrize("state", STATES)
def test_interrupt(begin, enter, stops, neuralbox_server, state):
    """Ctrl-C is raised within 0.2 s (most often: of three times), the server sees it, and the client works on."""
    host = begin(
        state,
        """
def interrupt(*_):
    global since
    since = time.monotonic()
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
for _ in range(3):
    try:
        act()
    except KeyboardInterrupt:
        print(time.monotonic() - since, flush=True)
    input()
print(client.generate("gpt-5", "Hi").content)
client.close()
""",
    )
    took = []
    for turn in range(3):
        if turn:
            enter(host, state)
        host.send(signal.SIGINT)
        took.append(float(host.line()))
        stops(state)

    assert statistics.median(took) < SOON, took
    neuralbox_server.reset()
    host.go_on()
    ended = host.end()
    assert (0, ["You said: Hi"], "") == (ended.status, ended.lines, ended.errors)


@pytest.mark.parametrize("state", STATES)
def test_end_of_the_program(begin, stops, in_time, state):
    """A program whose main thread ends while a daemon thread is busy ends too, and says nothing."""

    def attempt():
        host = begin(state, 'threading.Thread(target=act, daemon=True).start(); input(); print("end", flush=True)')
        host.go_on()
        host.wait_for("end")
        ended = host.end()
        assert (0, [], "") == (ended.status, ended.lines, ended.errors)
        stops(state)
        return ended.seconds

    assert in_time(BOUND, attempt)


@pytest.mark.parametrize("state", STATES)
def test_polite_termination(begin, stops, in_time, state):
    """SIGTERM whose handler calls `sys.exit`, as services have it, ends the program from whatever it is doing."""

    def attempt():
        host = begin(state, "signal.signal(signal.SIGTERM, end); act()", "-W", "always::ResourceWarning")
        host.send(signal.SIGTERM)
        ended = host.end()
        assert (0, [], "") == (ended.status, ended.lines, ended.errors)
        stops(state)
        return ended.seconds

    assert in_time(BOUND, attempt)


@pytest.mark.parametrize(
    "state, run, status",
    [
        ("a call", "act()", -signal.SIGTERM),
        ("a pause before a retry", "act()", -signal.SIGTERM),
        ("a stream", "threading.Thread(target=act).start(); input(); os._exit(3)", 3),
    ],
)
def test_hard_end(begin, stops, in_time, state, run, status):
    """SIGTERM without a handler, and `os._exit`, end the program at once."""

    def attempt():
        host = begin(state, run)
        if status < 0:
            host.send(-status)
        else:
            host.go_on()
        ended = host.end()
        assert (status, [], "") == (ended.status, ended.lines, ended.errors)
        stops(state)
        return ended.seconds

    assert in_time(BOUND, attempt)


def test_unhandled_interrupt(begin, stops):
    """Ctrl-C that nobody handles ends a program as Python does, with a short traceback."""
    host = begin("a call", "act()")

    host.send(signal.SIGINT)
    ended = host.end()

    assert -signal.SIGINT == ended.status
    assert ended.errors.splitlines()[-1] == "KeyboardInterrupt"
    assert ended.errors.count("neuralbox_sync") <= 5, ended.errors
    assert 1 == ended.errors.count("Traceback")
    stops("a call")


def test_a_thread_that_outlives_the_main_one(begin):
    """A stream on a thread that is no daemon comes to its end after the main thread's."""
    host = begin(
        "a pause before a retry",
        """
def read():
    threading.main_thread().join()
    with client.stream("gpt-5", "one two") as stream:
        print("".join(stream.text_stream), flush=True)

threading.Thread(target=act, daemon=True).start()
threading.Thread(target=read).start()
""",
    )
    ended = host.end()

    assert (0, ["You said: one two"], "") == (ended.status, ended.lines, ended.errors)


@pytest.mark.parametrize("used", [False, True])
def test_the_first_call_after_the_main_thread(start, used):
    """It works where Python can still start a thread, or the loop has one; Python 3.12 says that it cannot."""
    host = start(f"""
        import sys, threading
        from neuralbox_sync import NeuralBox

        client = NeuralBox()

        def call():
            threading.main_thread().join()
            try:
                print(client.generate("gpt-5", "Hi").content)
            except RuntimeError as error:
                print(sys.version_info[:2] == (3, 12) and not {used} and "thread" in str(error))
            client.close()

        if {used}:
            client.generate("gpt-5", "first")
        threading.Thread(target=call).start()
    """)
    ended = host.end()

    assert (0, "") == (ended.status, ended.errors)
    assert ended.lines in (["You said: Hi"], ["True"])
