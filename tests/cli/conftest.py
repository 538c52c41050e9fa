"""Fixtures that run the command: in this process, in a subprocess, and at a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from neuralbox_async.testing import NeuralBoxServer

# Test folders are not packages: tests import the helper modules of their folder through this path.
sys.path.append(str(Path(__file__).parent))

COMMAND = (sys.executable, "-m", "neuralbox_async")
# Makes the terminal on stdin the controlling terminal, so that Ctrl-C sends a signal.
AT_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
TIMEOUT = 20.0  # seconds


@attrs.frozen
class Result:
    """The exit status and the output of one run."""

    status: int
    out: str
    err: str

    @property
    def error_line(self):
        """The only line on stderr."""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        return line


class Process:
    """A run in a subprocess, with pipes."""

    def __init__(self, command, **options):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.popen = subprocess.Popen(command, **pipes)

    def read_until(self, expected):
        """Read stdout until *expected* arrives, and return all bytes read."""
        return self._read_until(self.popen.stdout, expected)

    def read_stderr_until(self, expected):
        """Read stderr until *expected* arrives, and return all bytes read."""
        return self._read_until(self.popen.stderr, expected)

    def wait(self):
        """Wait for the exit and return the result."""
        out, err = self.popen.communicate(timeout=TIMEOUT)
        return Result(self.popen.returncode, (out or b"").decode(), (err or b"").decode())

    def _read_until(self, pipe, expected):
        read = b""
        while expected not in read:
            chunk = os.read(pipe.fileno(), 65536)
            assert chunk, f"the pipe ended with {read!r}, stderr with {self.popen.stderr.read()!r}"
            read += chunk
        return read


class Terminal:
    """A run at a pseudo-terminal, which shows stdout and stderr."""

    def __init__(self, *arguments):
        import fcntl
        import struct
        import termios

        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
        command = (sys.executable, "-S", "-E", "-c", AT_TERMINAL, *COMMAND[1:], *arguments)
        self.popen = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.screen = ""

    def type(self, keys):
        """Type *keys*."""
        os.write(self._master, keys)

    def wait_for(self, expected):
        """Wait until *expected* is shown."""
        deadline = time.monotonic() + TIMEOUT
        while expected not in self.screen:
            assert time.monotonic() < deadline, self.screen
            assert self._read(), self.screen

    def wait(self):
        """Wait for the exit and return the exit status."""
        while self._read():
            pass
        return self.popen.wait(TIMEOUT)

    @property
    def text(self):
        """The output without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.screen).replace("\r\n", "\n")

    def hang_up(self):
        """Close the terminal while the process runs."""
        os.close(self._master)
        self._master = None

    def close(self):
        """Kill the process if it still runs, and close the terminal."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        if self._master is not None:
            os.close(self._master)

    def _read(self):
        if not select.select([self._master], [], [], TIMEOUT)[0]:
            raise TimeoutError(self.screen)
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # the last process at the terminal has exited
            return False
        self.screen += chunk.decode()
        return bool(chunk)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Remove variables about keys, colours and terminals, so that no test depends on them."""
    for name in list(os.environ):
        if name.startswith("NEURALBOX_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "CI"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server with options and sets the environment for it."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(NeuralBoxServer(**options))
            monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
            monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
            return server

        yield start


@pytest.fixture
def server(serve):
    """A server without options; the environment is set for it."""
    return serve()


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs the command in this process."""
    from messages import check_messages

    from neuralbox_async._cli import run

    def run_here(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        status = run(arguments)
        result = Result(status, *capsys.readouterr())
        check_messages(result.err)
        return result

    return run_here


@pytest.fixture
def short_poll_interval(monkeypatch):
    """Poll pending generations every 0.02 s instead of every 5 s."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.02)


@pytest.fixture
def start():
    """Return a function that starts the command in a subprocess."""
    processes = []

    def start(*arguments, command=COMMAND, **options):
        process = Process([*command, *arguments], **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process.popen as popen:
            popen.kill()


@pytest.fixture
def at_terminal():
    """Return a function that starts the command at a pseudo-terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            terminal = Terminal(*arguments)
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(run, folder):
    """Return a function that writes *rows* to a file and runs `neuralbox batch` with it."""

    def batch(rows, *arguments, name="in.txt", **options):
        data = rows if isinstance(rows, bytes) else rows.encode()
        (folder / name).write_bytes(data)
        return run("batch", name, *arguments, **options)

    return batch
