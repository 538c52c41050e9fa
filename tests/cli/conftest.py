"""What runs the command: in this process, in one of its own, and at a terminal."""

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

# Test folders are no packages: the tests import the helper modules beside them by this path.
sys.path.append(str(Path(__file__).parent))

COMMAND = (sys.executable, "-m", "neuralbox_async")
# Makes the terminal on stdin the controlling one, so that Ctrl-C typed there is a signal.
AT_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
PATIENCE = 20.0  # seconds until something that does not come fails a test


@attrs.frozen
class Done:
    """How one run ended."""

    status: int
    out: str
    err: str

    @property
    def line(self):
        """The only line on stderr."""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        return line


class Process:
    """A run in a process of its own, with pipes."""

    def __init__(self, command, **options):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.popen = subprocess.Popen(command, **pipes)

    def read_until(self, wanted):
        """Read stdout until *wanted* has come, and return everything read."""
        read = b""
        while wanted not in read:
            chunk = os.read(self.popen.stdout.fileno(), 65536)
            assert chunk, f"stdout ended with {read!r}, stderr with {self.popen.stderr.read()!r}"
            read += chunk
        return read

    def end(self):
        """Wait for the end and return how it was."""
        out, err = self.popen.communicate(timeout=PATIENCE)
        return Done(self.popen.returncode, (out or b"").decode(), (err or b"").decode())


class Terminal:
    """A run at a terminal, which shows stdout and stderr alike."""

    def __init__(self, *arguments):
        import fcntl
        import struct
        import termios

        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
        command = (sys.executable, "-S", "-E", "-c", AT_TERMINAL, *COMMAND[1:], *arguments)
        self.popen = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.shown = ""

    def type(self, keys):
        """Type *keys*."""
        os.write(self._master, keys)

    def show_until(self, wanted):
        """Wait until *wanted* is shown."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            assert self._read(), self.shown

    def end(self):
        """Wait for the end and return the exit status."""
        while self._read():
            pass
        return self.popen.wait(PATIENCE)

    @property
    def text(self):
        """What is shown, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown).replace("\r\n", "\n")

    def close(self):
        """Let go of the terminal, and of what still runs there."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        os.close(self._master)

    def _read(self):
        if not select.select([self._master], [], [], PATIENCE)[0]:
            raise TimeoutError(self.shown)
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # how a terminal ends whose last process has gone
            return False
        self.shown += chunk.decode()
        return bool(chunk)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No test depends on what the environment says of keys, colours or terminals."""
    for name in list(os.environ):
        if name.startswith("NEURALBOX_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "CI"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def serve(monkeypatch):
    """Start a server with options, and let the environment point to it."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(NeuralBoxServer(**options))
            monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
            monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
            return server

        yield start


@pytest.fixture
def server(serve):
    """A server without options, to which the environment points."""
    return serve()


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command in this process."""
    from neuralbox_async._cli import run

    def run_here(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        status = run(arguments)
        return Done(status, *capsys.readouterr())

    return run_here


@pytest.fixture
def impatient(monkeypatch):
    """Pending generations are asked for again after a moment, not after 5 s."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.02)


@pytest.fixture
def start():
    """Start the command in a process of its own."""
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
    """Start the command at a terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            terminal = Terminal(*arguments)
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Every test has an empty folder to itself."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(run, folder):
    """Run the command for a file made of *rows*."""

    def batch(rows, *arguments, name="in.txt", **options):
        data = rows if isinstance(rows, bytes) else rows.encode()
        (folder / name).write_bytes(data)
        return run("batch", name, *arguments, **options)

    return batch
