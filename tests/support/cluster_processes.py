"""
A batch on several processes without an engine: a coordinator, workers, and a driver that repeats lost tasks.

``python -m cluster_processes host ...`` and ``... work ...`` are the processes; `Cluster` starts and kills them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from multiprocessing.managers import BaseManager
from pathlib import Path

import attrs

from neuralbox_async._batch.inputs import RequestDefaults
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions
from neuralbox_async._cluster.settings import RowFormat, WorkerSettings

KEY = b"the manager's own"
TIMEOUT = 120.0


def manager(address, service=None):
    """Return a manager of *service*; without one, a client of it."""

    class Manager(BaseManager):
        pass

    exposed = ("exchange", "report", "stop", "finish")
    Manager.register("service", None if service is None else lambda: service, exposed=exposed)
    return Manager(address=address, authkey=KEY)


class Connect:
    """Connects to the service at *address*."""

    def __init__(self, address):
        self.address = address

    def __call__(self):
        """Return a link to the service."""
        client = manager(self.address)
        client.connect()
        service = client.service()
        # multiprocessing keeps a connection for each thread and address, also to a process that was killed.
        if (stale := getattr(service._tls, "connection", None)) is not None:
            stale.close()
            del service._tls.connection
        return service


def settings_of(run, **changes):
    """Return settings for rows with the members ``n`` (the key) and ``prompt``."""
    values = {
        "run": run,
        "defaults": RequestDefaults(model="gpt-5"),
        "row_format": RowFormat(key="n"),
        "width": 8,
        "needs_prices": True,
        "timeout": 30.0,
        "max_retries": 2,
        "reconnect_timeout": 60.0,
    }
    return WorkerSettings(**{**values, **changes})


def host(address, options):
    """Run a coordinator until the process is killed."""
    service = CoordinatorService(ServiceOptions(**json.loads(options)))
    Path(address).unlink(missing_ok=True)
    server = manager(address, service).get_server()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


def shift_clock(seconds):
    """Set the wall clock of this process wrong, as far as Python code can see."""
    read, read_ns, offset = time.time, time.time_ns, int(seconds)
    time.time, time.time_ns = lambda: read() + offset, lambda: read_ns() + offset * 10**9


def work(address, run, width, clock):
    """Run the partitions that arrive on standard input, one a line; the wall clock is *clock* seconds ahead."""
    shift_clock(clock)
    settings = settings_of(run, width=int(width))
    for line in sys.stdin:
        rows = json.loads(line)
        results = run_rows(settings, Connect(address), rows)
        sys.stdout.write(json.dumps([attrs.asdict(result) for result in results]) + "\n")
        sys.stdout.flush()


def start(environment, *arguments):
    """Start a process of this module."""
    return subprocess.Popen(
        [sys.executable, "-m", "cluster_processes", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


class Cluster:
    """
    A coordinator in a process of its own, and *count* workers, each in a process.

    *clocks*: seconds by which the wall clocks of the workers are ahead; negative: behind.
    """

    def __init__(self, folder, environment, options, *, count=3, width=8, run="run", clocks=(0, 0, 0)):
        self.address = str(folder / f"{run}.socket")
        self._environment, self._options, self._count, self._width, self._run = environment, options, count, width, run
        self._clocks = clocks
        self.host = None
        self.workers = []
        self.results = {}
        self._lock = threading.Lock()
        self._tasks = []
        self._ended = False
        self._threads = []

    def __enter__(self):
        self.start_host(restarted=False)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self._ended = True
        for process in [self.host, *self.workers]:
            process.kill()
            process.communicate()

    def start_host(self, *, restarted):
        """Start the coordinator, and wait until it is ready."""
        options = json.dumps({**self._options, "restarted": restarted})
        self.host = start(self._environment, "host", self.address, options)
        line = self.host.stdout.readline()
        if line != "ready\n":
            raise RuntimeError("the coordinator did not start")

    def _beat(self):
        """Show the coordinator that the driver lives."""
        while not self._ended:
            with contextlib.suppress(Exception):
                self.service().report()
            time.sleep(0.3)

    def kill_host(self):
        """Kill the coordinator, and start another."""
        self.host.kill()
        self.host.communicate()
        self.start_host(restarted=True)

    def submit(self, partitions):
        """Start the workers, and have *partitions* run: again if their worker dies."""
        self._tasks = list(enumerate(partitions))
        self._total = len(self._tasks)
        for index in range(self._count):
            self.workers.append(self._start_worker(index))
            self._threads.append(threading.Thread(target=self._drive, args=(index,), daemon=True))
            self._threads[-1].start()

    def _start_worker(self, index):
        return start(self._environment, "work", self.address, self._run, self._width, self._clocks[index])

    def _drive(self, index):
        while not self._ended:
            with self._lock:
                if not self._tasks:
                    if len(self.results) == self._total:
                        return
                    task = None
                else:
                    task = self._tasks.pop(0)
            if task is None:
                time.sleep(0.05)
                continue
            number, rows = task
            worker = self.workers[index]
            try:
                worker.stdin.write(json.dumps(rows) + "\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
            except OSError:
                line = ""
            with self._lock:
                if line.endswith("\n"):
                    self.results[number] = json.loads(line)
                else:
                    self._tasks.append(task)
            if not line.endswith("\n") and not self._ended:
                worker.communicate()
                self.workers[index] = self._start_worker(index)

    @property
    def done(self):
        """Whether all partitions have results."""
        return not any(thread.is_alive() for thread in self._threads)

    def service(self):
        """Return a proxy of the service."""
        return Connect(self.address)()

    def wait(self, between=lambda: None):
        """Call *between* until all partitions have results, and return the rows' results."""
        deadline = time.monotonic() + TIMEOUT
        while not self.done:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.results)} of {self._total} partitions have results")
            between()
            time.sleep(0.02)
        return [result for number in range(self._total) for result in self.results[number]]


if __name__ == "__main__":
    {"host": host, "work": work}[sys.argv[1]](*sys.argv[2:])
