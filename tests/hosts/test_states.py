"""A process that ends or is interrupted in any state of a call does so soon, and NeuralBox stops generating."""

import itertools
import signal
import statistics
import textwrap

import pytest

from neuralbox_async.testing import NeuralBoxServer

pytestmark = [pytest.mark.slow, pytest.mark.timing]

EXIT_TIMEOUT = 2.5  # seconds
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

# The states of a script, and how the server keeps it there.
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
    "a wait before a retry": (
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


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


@pytest.fixture
def neuralbox_server():
    """A server that stops generating when its client disconnects."""
    options = {"event_interval": 0.01, "pending_models": ["pending"], "pending_seconds": 60, "stop_on_disconnect": True}
    with NeuralBoxServer(reply=reply, **options) as server:
        yield server


@pytest.fixture
def enter(neuralbox_server):
    """Return a function that resumes a script and waits until it is in a *state*."""

    def enter(host, state):
        neuralbox_server.reset()
        STATES[state][1](neuralbox_server)
        host.resume()
        neuralbox_server.wait_until(lambda: len(neuralbox_server.requests) >= (2 if state == "a batch" else 1))

    return enter


@pytest.fixture
def begin(start, enter):
    """Return a function that starts a script and waits until *run* has brought it into a *state*."""

    def begin(state, run, *options):
        host = start(SCRIPT.format(act=textwrap.indent(STATES[state][0], "    "), run=run), *options)
        host.wait_for("ready")
        enter(host, state)
        return host

    return begin


@pytest.fixture
def wait_for_disconnect(neuralbox_server):
    """Return a function that waits until the server sees the disconnect of a script in a *state*."""

    def wait(state):
        if state in CONNECTED:
            neuralbox_server.wait_for_disconnect()
        assert () == neuralbox_server.billed

    return wait


@pytest.mark.parametrize("state", STATES)
def test_interrupt(begin, enter, wait_for_disconnect, neuralbox_server, state):
    """Ctrl-C is raised within 0.2 s (median of three), the server sees the disconnect, and the client still works."""
    host = begin(
        state,
        """
def interrupt(*_):
    global interrupted
    interrupted = time.monotonic()
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
for _ in range(3):
    try:
        act()
    except KeyboardInterrupt:
        print(time.monotonic() - interrupted, flush=True)
    input()
print(client.generate("gpt-5", "Hi").content)
client.close()
""",
    )
    durations = []
    for number in range(3):
        if number:
            enter(host, state)
        host.send(signal.SIGINT)
        durations.append(float(host.line()))
        wait_for_disconnect(state)

    assert statistics.median(durations) < SOON, durations
    neuralbox_server.reset()
    host.resume()
    result = host.end()
    assert (0, ["You said: Hi"], "") == (result.status, result.lines, result.errors)


@pytest.mark.parametrize("state", STATES)
def test_exit(begin, wait_for_disconnect, in_time, state):
    """A program whose main thread ends during a call of a daemon thread exits soon and prints nothing."""

    def attempt():
        host = begin(state, 'threading.Thread(target=act, daemon=True).start(); input(); print("end", flush=True)')
        host.resume()
        host.wait_for("end")
        result = host.end()
        assert (0, [], "") == (result.status, result.lines, result.errors)
        wait_for_disconnect(state)
        return result.seconds

    assert in_time(EXIT_TIMEOUT, attempt)


@pytest.mark.parametrize("state", STATES)
def test_termination_by_a_handler(begin, wait_for_disconnect, in_time, state):
    """SIGTERM with a handler that calls `sys.exit`, as services have it, ends the program in any state."""

    def attempt():
        host = begin(state, "signal.signal(signal.SIGTERM, end); act()", "-W", "always::ResourceWarning")
        host.send(signal.SIGTERM)
        result = host.end()
        assert (0, [], "") == (result.status, result.lines, result.errors)
        wait_for_disconnect(state)
        return result.seconds

    assert in_time(EXIT_TIMEOUT, attempt)


@pytest.mark.parametrize(
    "state, run, status",
    [
        ("a call", "act()", -signal.SIGTERM),
        ("a wait before a retry", "act()", -signal.SIGTERM),
        ("a stream", "threading.Thread(target=act).start(); input(); os._exit(3)", 3),
    ],
)
def test_immediate_exit(begin, wait_for_disconnect, in_time, state, run, status):
    """SIGTERM without a handler, and `os._exit`, end the program at once."""

    def attempt():
        host = begin(state, run)
        if status < 0:
            host.send(-status)
        else:
            host.resume()
        result = host.end()
        assert (status, [], "") == (result.status, result.lines, result.errors)
        wait_for_disconnect(state)
        return result.seconds

    assert in_time(EXIT_TIMEOUT, attempt)


def test_unhandled_interrupt(begin, wait_for_disconnect):
    """An unhandled Ctrl-C ends a program as Python does, with a short traceback."""
    host = begin("a call", "act()")

    host.send(signal.SIGINT)
    result = host.end()

    assert -signal.SIGINT == result.status
    assert result.errors.splitlines()[-1] == "KeyboardInterrupt"
    assert result.errors.count("neuralbox_sync") <= 5, result.errors
    assert 1 == result.errors.count("Traceback")
    wait_for_disconnect("a call")


def test_thread_that_outlives_the_main_thread(begin):
    """A stream of a thread that is not a daemon is read to its end after the main thread has ended."""
    host = begin(
        "a wait before a retry",
        """
def read():
    threading.main_thread().join()
    with client.stream("gpt-5", "one two") as stream:
        print("".join(stream.text_stream), flush=True)

threading.Thread(target=act, daemon=True).start()
threading.Thread(target=read).start()
""",
    )
    result = host.end()

    assert (0, ["You said: one two"], "") == (result.status, result.lines, result.errors)


@pytest.mark.parametrize("used", [False, True])
def test_call_after_the_main_thread(start, used):
    """A call after the main thread has ended works if the loop runs or Python can start a thread (not 3.12)."""
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
    result = host.end()

    assert (0, "") == (result.status, result.errors)
    assert result.lines in (["You said: Hi"], ["True"])
