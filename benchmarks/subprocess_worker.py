"""Processes of clients, which answer with a line of JSON each time that they are told to go on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Self

from benchmarks.clients.registry import Client, python_of
from benchmarks.processes import ROOT
from benchmarks.scenarios import Scenario

if TYPE_CHECKING:
    from types import TracebackType


class ToldProcess:
    """
    An interpreter with *arguments* in the environment of *client*; it is there while the block runs.

    An answer is what one line of JSON holds; a *failure*, from then on, when there was none in time or the process
    ended before.
    """

    def __init__(self, client: Client, *arguments: str) -> None:
        self._command = [str(python_of(client, ROOT) or sys.executable), *arguments]
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed at the end
        self._process: subprocess.Popen[str] | None = None
        self._failure = self._lateness = ""

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=self._complaints, text=True
            )
        except FileNotFoundError:
            self._failure = f"no environment {self._command[0]}: `make bench-peers` makes it"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            if kind is not None:
                self._process.kill()
            self._process.communicate()  # closes its standard input, which ends it
        self._complaints.close()

    def go_on(self) -> None:
        """Tell the process to go on."""
        with contextlib.suppress(BrokenPipeError):  # why it has ended is the next answer
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write("\n")
                self._process.stdin.flush()

    def answer(self, longest: float) -> dict[str, Any]:
        """Return the next answer, after *longest* seconds at most."""
        line = ""
        if self._process is not None and self._process.stdout is not None and not self._failure:
            late = threading.Timer(longest, self._end, [self._process, f"not done after {longest:g} s"])
            late.start()
            line = self._process.stdout.readline()
            late.cancel()
            if not line:
                self._failure = self._lateness or self._complaint(self._process.wait())
        found: dict[str, Any] = json.loads(line) if line else {"failure": self._failure}
        return found

    def _end(self, process: subprocess.Popen[str], failure: str) -> None:
        self._lateness = failure
        process.kill()

    def _complaint(self, status: int) -> str:
        """Return the last line of what the process complained of."""
        self._complaints.seek(0)
        return (self._complaints.read().strip() or f"exit status {status}").splitlines()[-1]


class WorkerProcess(ToldProcess):
    """A worker's process, see `worker`: has warmed up as the block begins."""

    def __init__(self, scenario: Scenario, client: Client, *, scale: float, port: int, core: int | None) -> None:
        where = () if core is None else ("--core", str(core))
        work = (scenario.name, client.name, str(port), "--told", "--scale", str(scale), *where)
        super().__init__(client, "-m", "benchmarks.worker", *work)
        self._longest = scenario.longest
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._ready = self.answer(self._longest)
        return self

    def turn(self) -> dict[str, Any]:
        """Let the client do its work once, and return its *numbers* and *versions*, or its *failure*."""
        self.go_on()
        return self._ready | self.answer(self._longest)
