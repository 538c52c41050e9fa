"""What the processes of a benchmark share: CPU pinning, the event loop, the server process and its control."""

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

from benchmarks.clients.adapter import HOST, Address, client_ssl_context
from benchmarks.clients.raw_socket import RawConnection

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


def choose_cores() -> tuple[int | None, int | None]:
    """Return the cores for client and server: two different ones, or (None, None) if there is only one usable core."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process on *core* if the system supports that; None does nothing."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def has_uvloop() -> bool:
    """Return whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None


def run(main: Coroutine[Any, Any, T], *, uvloop: bool) -> T:
    """Run *main* on a new event loop, of uvloop or of asyncio, and return its result."""
    factory = importlib.import_module("uvloop").new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextlib.contextmanager
def server(core: int | None = None) -> Generator[int]:
    """Run the server in a process of its own inside the block; yield its port without TLS."""
    command = [sys.executable, "-m", "benchmarks.server"]
    if core is not None:
        command += ["--core", str(core)]
    # The server ends when its standard input closes: also when this process is killed.
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for type checkers
        port = process.stdout.readline()
        if not port:
            msg = "the server did not start"
            raise RuntimeError(msg)
        yield int(port)
        process.communicate()  # closes its standard input


class ServerControl:
    """The control requests to the server on *port*, without TLS. Each blocks until the response has arrived."""

    def __init__(self, port: int) -> None:
        self._connection = RawConnection(Address(port))

    def stats(self) -> dict[str, float]:
        """Return the counts *connections*, *served* and *held*, and the server's CPU time *cpu* in seconds."""
        stats: dict[str, float] = self._get("/stats")
        return stats

    def release(self) -> None:
        """Let the server respond to all held calls."""
        self._get("/release")

    def tls_address(self) -> Address:
        """Return the server's address over TLS, with a context that trusts the server's certificate."""
        tls = self._get("/tls")
        return Address(tls["port"], client_ssl_context(tls["certificate"]))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _get(self, path: str) -> Any:
        return json.loads(self._connection.exchange(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()))
