"""Subprocesses that measure: the parent requests a measurement on standard input and reads a line of JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Self

from benchmarks.clients.registry import Client, interpreter_of
from benchmarks.processes import ROOT
from benchmarks.scenarios import Scenario

if TYPE_CHECKING:
    from types import TracebackType


class MeasuringProcess:
    """
    An interpreter with *arguments* in the virtual environment of *client*; it runs while the block runs.

    It inherits all environment variables. Each response is a JSON object. After a timeout or an early exit, every
    further response is an object with a *failure*.
    """

    def __init__(self, client: Client, *arguments: str) -> None:
        self._command = [str(interpreter_of(client, ROOT) or sys.executable), *arguments]
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[str] | None = None
        self._failure = self._timeout_message = ""

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=self._stderr, text=True
            )
        except FileNotFoundError:
            self._failure = f"no interpreter {self._command[0]}: run `make bench-other-sdks`"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            if kind is not None:
                self._process.kill()
            self._process.communicate()  # closes its standard input, which ends it
        self._stderr.close()

    def request(self) -> None:
        """Request the next measurement."""
        with contextlib.suppress(BrokenPipeError):  # the next response reports why the process ended
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write("\n")
                self._process.stdin.flush()

    def response(self, timeout: float) -> dict[str, Any]:
        """Return the next response; kill the process if there is none within *timeout* seconds."""
        line = ""
        if self._process is not None and self._process.stdout is not None and not self._failure:
            timer = threading.Timer(timeout, self._kill, [self._process, f"timed out after {timeout:g} s"])
            timer.start()
            line = self._process.stdout.readline()
            timer.cancel()
            if not line:
                self._failure = self._timeout_message or self._error_message(self._process.wait())
        response: dict[str, Any] = json.loads(line) if line else {"failure": self._failure}
        return response

    def _kill(self, process: subprocess.Popen[str], message: str) -> None:
        self._timeout_message = message
        process.kill()

    def _error_message(self, status: int) -> str:
        """Return the last line of standard error, or the exit status."""
        self._stderr.seek(0)
        return (self._stderr.read().strip() or f"exit status {status}").splitlines()[-1]


class WorkerProcess(MeasuringProcess):
    """A process of `benchmarks.worker`; when the block begins, the worker has warmed up."""

    def __init__(self, scenario: Scenario, client: Client, *, scale: float, port: int, core: int | None) -> None:
        pinning = () if core is None else ("--core", str(core))
        options = ("--interactive", "--scale", str(scale), *pinning)
        super().__init__(client, "-m", "benchmarks.worker", scenario.name, client.name, str(port), *options)
        self._timeout = scenario.timeout
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._ready = self.response(self._timeout)
        return self

    def run_iteration(self) -> dict[str, Any]:
        """Let the worker run its workload once; return its *measurements* and *versions*, or its *failure*."""
        self.request()
        return self._ready | self.response(self._timeout)
