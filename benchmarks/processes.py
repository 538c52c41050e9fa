"""The processes of a benchmark: which core each stays on, its event loop, and the server's life."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.clients.raw_socket import RawConnection

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


def cores() -> tuple[int | None, int | None]:
    """Return the cores for client and server: two different ones if there are, otherwise None, which pins nothing."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process on *core*, where the system can."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def has_uvloop() -> bool:
    """Return whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None


def run(main: Coroutine[Any, Any, T], *, uvloop: bool) -> T:
    """Run *main* to its end, on uvloop if that is wanted, and return its result."""
    factory = importlib.import_module("uvloop").new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextlib.contextmanager
def server(core: int | None = None) -> Generator[int]:
    """Run the server in a process of its own while the block runs; gives its port."""
    command = [sys.executable, "-m", "benchmarks.server"]
    if core is not None:
        command += ["--core", str(core)]
    # The server ends when its standard input does: also when this process is killed.
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for type checkers
        port = process.stdout.readline()
        if not port:
            msg = "the server did not start"
            raise RuntimeError(msg)
        yield int(port)
        process.communicate()  # closes its standard input


class Control:
    """Asks the server on *port* how it is doing; blocks for a moment."""

    def __init__(self, port: int) -> None:
        self._connection = RawConnection(port)

    def stats(self) -> dict[str, float]:
        """Return the counts *served* and *held*, and the server's *cpu* in seconds."""
        return self._get("/stats")

    def release(self) -> None:
        """Let the server answer all calls that it holds."""
        self._get("/release")

    def _get(self, path: str) -> dict[str, float]:
        stats: dict[str, float] = json.loads(
            self._connection.exchange(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        )
        return stats

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
