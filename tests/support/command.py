"""Runs of the command: in subprocesses, with pipes and at a pseudo-terminal."""

import os
import re
import select
import subprocess
import sys
import time

import attrs

COMMAND = (sys.executable, "-m", "neuralbox_async")
# Makes the terminal on stdin the controlling terminal, so that Ctrl-C sends a signal.
AT_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
TIMEOUT = 60.0  # seconds; then the command has hung, on any machine


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
