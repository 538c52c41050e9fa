"""What a piece of work costs this process, and how busy the server was with it."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Self

from benchmarks.processes import Control

if TYPE_CHECKING:
    from types import TracebackType


class Meter:
    """Measures its block: seconds of *cpu*, of all threads, and *wall*; percent that the server was *busy* in them."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.cpu = self.wall = self.busy = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        self._server = self._control.stats()["cpu"]
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cpu = time.process_time() - self._cpu
        self.wall = time.perf_counter() - self._wall
        self.busy = 100 * (self._control.stats()["cpu"] - self._server) / self.wall


def resident() -> int:
    """Return the bytes of memory that this process has now; where the system does not say, the most it ever had."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib is memory too
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
