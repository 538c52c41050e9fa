"""Scripts in subprocesses, for signals, forks and interpreter exit; a check that no thread is left."""

import textwrap
import threading
import time

import pytest
from scripts import Script, environment

from neuralbox_sync import NeuralBox
from neuralbox_sync._loop import EventLoop


@pytest.fixture
def start(tmp_path, neuralbox_server, starts_processes):
    """Return a function that starts a script with the local server in its environment; *measured*: by coverage."""
    scripts = []

    def run(code, *options, measured=True):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        variables = environment(neuralbox_server)
        variables = {name: value for name, value in variables.items() if measured or not name.startswith("COVERAGE")}
        scripts.append(Script([*options, str(path)], tmp_path / "errors", env=variables))
        return scripts[-1]

    yield run
    for script in scripts:
        script.kill()
        script.end()


@pytest.fixture
def client(neuralbox_server):
    """Return a client of the local server."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def transport():
    """Return the real transport, with a record of what it sends."""
    from interrupts import RecordingTransport

    return RecordingTransport()


@pytest.fixture
def warm_client(neuralbox_server, transport):
    """Return a client that has a connection, the generation *first*, and *transport*."""
    with NeuralBox(**neuralbox_server.client_options, transport=transport) as client:
        client.first = client.generate("gpt-5", "Hi")
        transport.sent.clear()
        yield client


@pytest.fixture
def loop():
    """Return a private event loop."""
    loop = make_loop()
    yield loop
    loop.close()


def make_loop():
    """Return a private event loop without a client."""

    async def aclose():
        """Do nothing: nothing is open."""

    return EventLoop(aclose)


@pytest.fixture(name="make_loop")
def _make_loop():
    return make_loop


def loop_threads():
    """Return the running threads of private event loops."""
    return [thread for thread in threading.enumerate() if thread.name == "neuralbox"]


@pytest.fixture(name="loop_threads")
def _loop_threads():
    return loop_threads


@pytest.fixture(autouse=True)
def _no_thread_left():
    """Check that the test ends the loops that it starts."""
    before = set(loop_threads())
    yield
    deadline = time.monotonic() + 2
    while set(loop_threads()) - before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert set() == set(loop_threads()) - before
