"""Real hosts of blocking code, in processes of their own that end with the test, and the server that they talk to."""

import contextlib
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

HERE = Path(__file__).parent
LONGEST = 30.0  # seconds after which a process that hangs is killed, with all that it has started
PATIENCE = 15.0  # seconds until something that does not come fails a test; what is slow is the machine


@attrs.frozen
class Ended:
    """How a process ended: *seconds* after the last line that was waited for, or signal that was sent."""

    status: int
    lines: list[str]
    errors: str
    seconds: float


class Host:
    """A running program in a session of its own; its standard output tells how far it is."""

    def __init__(self, command, errors, **options):
        self._errors = errors  # a file: nobody reads it meanwhile
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
                **options,
            )
        self.pid = self._process.pid
        self._since = time.monotonic()
        self._ended = None

    def line(self):
        """Wait for a line of standard output and return it."""
        with self._killed_if_it_hangs():
            line = self._process.stdout.readline().rstrip("\n")
        self._since = time.monotonic()
        return line

    def wait_for(self, line):
        """Wait until the program prints *line* and nothing else."""
        found = self.line()
        assert line == found, (found, self.kill(), self.end())

    def go_on(self):
        """End the program's `input()`."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, number):
        """Send a signal to the program."""
        self._since = time.monotonic()
        self._process.send_signal(number)

    def kill(self):
        """Kill the program and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self):
        """Wait for the end, also of what was started, as long as it can print; return how it came."""
        if self._ended is None:
            with self._killed_if_it_hangs():
                output, _ = self._process.communicate()
            seconds = time.monotonic() - self._since
            self._ended = Ended(self._process.returncode, output.splitlines(), self._errors.read_text(), seconds)
        return self._ended

    @contextlib.contextmanager
    def _killed_if_it_hangs(self):
        guard = threading.Timer(LONGEST, self.kill)
        guard.start()
        try:
            yield
        finally:
            guard.cancel()
            guard.join()


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """What a server waits for may come late: other tests run beside these."""
    monkeypatch.setattr(NeuralBoxServer.wait_until, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(NeuralBoxServer.wait_for_disconnect, "__defaults__", (PATIENCE,))


@pytest.fixture(scope="session")
def in_time():
    """Tell whether what is tried takes less than its *bound*, in one of three tries: other tests run beside it."""
    return lambda bound, attempt: any(attempt() < bound for _ in range(3))


def environment(server):
    """Return the environment of programs whose clients shall find *server*."""
    known = {"NEURALBOX_API_KEY": server.api_key, "NEURALBOX_BASE_URL": server.base_url}
    # What the machine sets for the tests themselves is no matter of what they start.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEURALBOX_", "GUNICORN_"))}
    paths = os.pathsep.join(filter(None, sys.path))
    return {**inherited, **known, "PYTHONPATH": paths}


@pytest.fixture(scope="session", name="environment_for")
def _environment_for():
    return environment


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Start programs that end with the module's tests: ``launch(server, "-m", "gunicorn", ...)``."""
    hosts = []

    def run(server, *command, env=(), **options):
        errors = tmp_path_factory.mktemp("host") / "errors"
        hosts.append(Host(command, errors, env={**environment(server), **dict(env)}, cwd=HERE, **options))
        return hosts[-1]

    yield run
    for host in hosts:
        host.kill()
        ended = host.end()
        sys.stderr.write("\n".join([*ended.lines, ended.errors]))  # shown where a test fails


@pytest.fixture
def start(tmp_path, neuralbox_server, launch):
    """Start a script, given as text, that ends with the test."""

    def run(code, *options):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        host = launch(neuralbox_server, *options, str(path))
        hosts.append(host)
        return host

    hosts = []
    yield run
    for host in hosts:
        host.kill()
        host.end()
