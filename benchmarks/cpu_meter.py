"""The CPU time of a piece of work in this process, and how busy the server was meanwhile."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Self

from benchmarks.processes import ServerControl

if TYPE_CHECKING:
    from types import TracebackType


class CpuMeter:
    """
    Measures a `with` block.

    *cpu*: seconds of CPU of this process, all threads, kernel included. *wall*: seconds. *server_busy*: the server's
    CPU time in percent of *wall*. *connections*: how many connections the server accepted in the block.
    """

    def __init__(self, control: ServerControl) -> None:
        self._control = control
        self.cpu = self.wall = self.server_busy = self.connections = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        self._server_start = self._control.stats()
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cpu = time.process_time() - self._cpu_start
        self.wall = time.perf_counter() - self._wall_start
        server = self._control.stats()
        self.server_busy = 100 * (server["cpu"] - self._server_start["cpu"]) / self.wall
        self.connections = server["connections"] - self._server_start["connections"]


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; its peak where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib takes memory too
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
