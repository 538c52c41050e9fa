"""Python programs in processes of their own, which report their progress on standard output."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import attrs

TIMEOUT = 60.0  # seconds without a line or an end; then the program has hung, on any machine


@attrs.frozen
class Result:
    """The result of a program, which ended *seconds* after the last line that the test read, or its last signal."""

    status: int
    lines: list[str]
    errors: str
    seconds: float


class Script:
    """A running program in a session of its own; *errors* is the path of a file for its standard error."""

    def __init__(self, command, errors, **options):
        self._errors = errors  # a file: nobody reads a pipe in the meantime
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", *command],
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

    def interrupt(self):
        """Send the signal of Ctrl-C."""
        self.send(signal.SIGINT)

    def kill(self):
        """Kill the program and its children."""
        self._send_to_all(signal.SIGKILL)

    def end(self):
        """Wait until the program, and each child that can print, ends; return its result."""
        if self._result is None:
            with self._timeout():
                output, _ = self._process.communicate()
            seconds = time.monotonic() - self._since
            self._result = Result(self._process.returncode, output.splitlines(), self._errors.read_text(), seconds)
        return self._result

    def _send_to_all(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    @contextlib.contextmanager
    def _timeout(self):
        # At SIGABRT, faulthandler prints where each thread hangs.
        abort = threading.Timer(TIMEOUT, self._send_to_all, [signal.SIGABRT])
        kill = threading.Timer(TIMEOUT + 2, self.kill)
        with contextlib.ExitStack() as stack:
            for timer in (abort, kill):
                timer.start()
                stack.callback(timer.join)
                stack.callback(timer.cancel)
            yield


def environment(server):
    """Return the environment of a program whose clients use *server*."""
    of_the_server = {"NEURALBOX_API_KEY": server.api_key, "NEURALBOX_BASE_URL": server.base_url}
    # Other settings for the tests themselves do not reach the programs that they start.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == "NEURALBOX_FAST_PATHS" or not name.startswith(("NEURALBOX_", "GUNICORN_"))
    }
    return {**inherited, **of_the_server, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
