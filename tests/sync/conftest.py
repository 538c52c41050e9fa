"""Scripts in processes of their own, for signals, forks and the end of the interpreter; and no thread left behind."""

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

# Test folders are no packages: the tests import the helper modules beside them by this path.
sys.path.append(str(Path(__file__).parent))

_LONGEST = 40.0  # seconds after which a script that hangs is killed
_PATIENCE = 15.0  # seconds until something that does not come fails a test; what is slow is the machine


@attrs.frozen
class Ended:
    """How a script ended: *seconds* after the last line that was waited for."""

    status: int
    lines: list[str]
    errors: str
    seconds: float


class Script:
    """A running Python script whose standard output tells how far it is."""

    def __init__(self, path, *options, env):
        command = [sys.executable, "-X", "faulthandler", *options, str(path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)
        # A script that hangs ends the wait for its next line, and its errors tell where it hung.
        self._guard = threading.Timer(_LONGEST, self._process.send_signal, [signal.SIGABRT])
        self._guard.start()
        self._since = time.monotonic()

    def wait_for(self, line):
        """Wait until the script prints *line* and nothing else."""
        found = self._process.stdout.readline().rstrip("\n")
        self._since = time.monotonic()
        assert line == found, self.end()

    def go_on(self):
        """End the script's `input()`."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, number):
        """Send a signal."""
        self._process.send_signal(number)

    def interrupt(self):
        """Do what Ctrl-C does."""
        self._since = time.monotonic()
        self.send(signal.SIGINT)

    def end(self):
        """Wait for the end and return how it came."""
        output, errors = self._process.communicate()
        seconds = time.monotonic() - self._since
        self._guard.cancel()
        self._guard.join()
        return Ended(self._process.returncode, output.splitlines(), errors, seconds)


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """What a server waits for may come late: other tests run beside these."""
    monkeypatch.setattr(NeuralBoxServer.wait_until, "__defaults__", (_PATIENCE,))
    monkeypatch.setattr(NeuralBoxServer.wait_for_disconnect, "__defaults__", (_PATIENCE,))


@pytest.fixture
def start(tmp_path, neuralbox_server):
    """Start a script whose clients find the local server in the environment; what it runs may go *measured*."""
    scripts = []

    def run(code, *options, measured=True):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        inherited = {name: value for name, value in os.environ.items() if measured or not name.startswith("COVERAGE")}
        known = {"NEURALBOX_API_KEY": neuralbox_server.api_key, "NEURALBOX_BASE_URL": neuralbox_server.base_url}
        paths = os.pathsep.join(filter(None, sys.path))
        scripts.append(Script(path, *options, env={**inherited, **known, "PYTHONPATH": paths}))
        return scripts[-1]

    yield run
    for script in scripts:
        script._process.kill()
        script.end()


@pytest.fixture
def client(neuralbox_server):
    """Make a client of the local server."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def loop():
    """Make a private event loop."""
    loop = make_loop()
    yield loop
    loop.close()


def make_loop():
    """Make a private event loop for no client."""

    async def aclose():
        """Nothing is open."""

    return EventLoop(aclose)


@pytest.fixture(name="make_loop")
def _make_loop():
    return make_loop


def loop_threads():
    """Return the threads of private event loops."""
    return [thread for thread in threading.enumerate() if thread.name == "neuralbox"]


@pytest.fixture(name="loop_threads")
def _loop_threads():
    return loop_threads


@pytest.fixture(autouse=True)
def _no_thread_left():
    """Each test ends the loops that it starts."""
    before = set(loop_threads())
    yield
    until = time.monotonic() + 2
    while set(loop_threads()) - before and time.monotonic() < until:
        time.sleep(0.005)
    assert set() == set(loop_threads()) - before
