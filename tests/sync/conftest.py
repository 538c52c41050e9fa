"""Scripts in subprocesses, for signals, forks and interpreter exit; a check that no thread is left."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import attrs
import pytest

from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox
from neuralbox_sync._loop import EventLoop

# Test folders are not packages: the tests import the helper modules beside them by this path.
sys.path.append(str(Path(__file__).parent))

_SCRIPT_TIMEOUT = 40.0  # seconds; then a script that hangs is killed
_SERVER_TIMEOUT = 15.0  # seconds that a test waits for the server; other tests run at the same time


@attrs.frozen
class Result:
    """The result of a script, which ended *seconds* after the last line that the test waited for."""

    status: int
    lines: list[str]
    errors: str
    seconds: float


class Script:
    """A running Python script that reports its progress on standard output."""

    def __init__(self, path, *options, env):
        command = [sys.executable, "-X", "faulthandler", *options, str(path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)
        # SIGABRT ends the wait for its next line, and faulthandler prints where it hung.
        self._watchdog = threading.Timer(_SCRIPT_TIMEOUT, self._process.send_signal, [signal.SIGABRT])
        self._watchdog.start()
        self._since = time.monotonic()

    def wait_for(self, line):
        """Wait until the script prints *line*, and nothing before it."""
        printed = self._process.stdout.readline().rstrip("\n")
        self._since = time.monotonic()
        assert line == printed, self.end()

    def resume(self):
        """Let the script's `input()` return."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, number):
        """Send a signal."""
        self._process.send_signal(number)

    def interrupt(self):
        """Send the signal of Ctrl-C."""
        self._since = time.monotonic()
        self.send(signal.SIGINT)

    def end(self):
        """Wait until the script ends and return its result."""
        output, errors = self._process.communicate()
        seconds = time.monotonic() - self._since
        self._watchdog.cancel()
        self._watchdog.join()
        return Result(self._process.returncode, output.splitlines(), errors, seconds)


@pytest.fixture(autouse=True)
def _server_timeout(monkeypatch):
    """Wait longer for the server: other tests run at the same time."""
    monkeypatch.setattr(NeuralBoxServer.wait_until, "__defaults__", (_SERVER_TIMEOUT,))
    monkeypatch.setattr(NeuralBoxServer.wait_for_disconnect, "__defaults__", (_SERVER_TIMEOUT,))


@pytest.fixture
def start(tmp_path, neuralbox_server):
    """Return a function that starts a script with the local server in its environment; *measured*: by coverage."""
    scripts = []

    def run(code, *options, measured=True):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        inherited = {name: value for name, value in os.environ.items() if measured or not name.startswith("COVERAGE")}
        server = {"NEURALBOX_API_KEY": neuralbox_server.api_key, "NEURALBOX_BASE_URL": neuralbox_server.base_url}
        paths = os.pathsep.join(filter(None, sys.path))
        scripts.append(Script(path, *options, env={**inherited, **server, "PYTHONPATH": paths}))
        return scripts[-1]

    yield run
    for script in scripts:
        script._process.kill()
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
