"""Real hosts of blocking code, in subprocesses that end with the test."""

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
HOST_TIMEOUT = 30.0  # seconds; then a process that hangs is killed, with its children
SERVER_TIMEOUT = 15.0  # seconds that a test waits for the server; other tests run at the same time


@attrs.frozen
class Result:
    """The result of a process, which ended *seconds* after the last line that the test read, or its last signal."""

    status: int
    lines: list[str]
    errors: str
    seconds: float


class Host:
    """A running program in a session of its own that reports its progress on standard output."""

    def __init__(self, command, errors, **options):
        self._errors = errors  # a file: nobody reads a pipe in the meantime
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
        self._result = None

    def line(self):
        """Wait for a line of standard output and return it."""
        with self._timeout():
            line = self._process.stdout.readline().rstrip("\n")
        self._since = time.monotonic()
        return line

    def wait_for(self, line):
        """Wait until the program prints *line*, and nothing before it."""
        printed = self.line()
        assert line == printed, (printed, self.kill(), self.end())

    def resume(self):
        """Let the program's `input()` return."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, number):
        """Send a signal to the program."""
        self._since = time.monotonic()
        self._process.send_signal(number)

    def kill(self):
        """Kill the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self):
        """Wait until the program, and each child that can print, ends; return its result."""
        if self._result is None:
            with self._timeout():
                output, _ = self._process.communicate()
            seconds = time.monotonic() - self._since
            self._result = Result(self._process.returncode, output.splitlines(), self._errors.read_text(), seconds)
        return self._result

    @contextlib.contextmanager
    def _timeout(self):
        watchdog = threading.Timer(HOST_TIMEOUT, self.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()


@pytest.fixture(autouse=True)
def _server_timeout(monkeypatch):
    """Wait longer for the server: other tests run at the same time."""
    monkeypatch.setattr(NeuralBoxServer.wait_until, "__defaults__", (SERVER_TIMEOUT,))
    monkeypatch.setattr(NeuralBoxServer.wait_for_disconnect, "__defaults__", (SERVER_TIMEOUT,))


@pytest.fixture(scope="session")
def in_time():
    """Return a function that checks that one of three attempts takes less than *limit* seconds."""
    return lambda limit, attempt: any(attempt() < limit for _ in range(3))


def environment(server):
    """Return the environment of a program whose clients use *server*."""
    of_the_server = {"NEURALBOX_API_KEY": server.api_key, "NEURALBOX_BASE_URL": server.base_url}
    # Settings for the tests themselves do not reach the programs that they start.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEURALBOX_", "GUNICORN_"))}
    paths = os.pathsep.join(filter(None, sys.path))
    return {**inherited, **of_the_server, "PYTHONPATH": paths}


@pytest.fixture(scope="session", name="environment_for")
def _environment_for():
    return environment


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Return a function that starts a program, such as ``launch(server, "-m", "gunicorn", ...)``."""
    hosts = []

    def run(server, *command, env=(), **options):
        errors = tmp_path_factory.mktemp("host") / "errors"
        hosts.append(Host(command, errors, env={**environment(server), **dict(env)}, cwd=HERE, **options))
        return hosts[-1]

    yield run
    for host in hosts:
        host.kill()
        result = host.end()
        sys.stderr.write("\n".join([*result.lines, result.errors]))  # pytest shows it when a test fails


@pytest.fixture
def start(tmp_path, neuralbox_server, launch):
    """Return a function that starts a script, given as text, until the test ends."""

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
