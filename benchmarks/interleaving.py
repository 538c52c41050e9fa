"""
The rounds of a scenario and their results.

In each round every client has a process of its own, and the processes are interleaved: they run one iteration each, in
an order that rotates. So everything else that happens on the machine, for a second or for an hour, affects all clients
alike.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.clients.registry import CLIENTS, Client
from benchmarks.scenarios import Scenario
from benchmarks.subprocess_worker import MeasuringProcess, WorkerProcess
from benchmarks.workload import Measurements

T = TypeVar("T")
_STARTUP_TIMEOUT = 60  # seconds
_STARTUP = Path(__file__).with_name("startup.py")


def ratio(value: float, baseline: float) -> float:
    """Return *value* divided by *baseline*."""
    return value / baseline


def difference(value: float, baseline: float) -> float:
    """Return *value* minus *baseline*."""
    return value - baseline


@dataclass(frozen=True)
class Spread:
    """The *median*, *minimum* and *maximum* of one number over all iterations of all rounds."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of *values*, None if there are none."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Results:
    """
    The results of *scenario*.

    *measurements*: one item per iteration, by client; None for a failed one. *failures*: the last error message, by
    client. *versions*: by package.
    """

    scenario: Scenario
    measurements: dict[str, list[Measurements | None]] = field(default_factory=dict[str, "list[Measurements | None]"])
    failures: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def spread(self, client: str, metric: str) -> Spread | None:
        """Return the spread of *metric* of *client*, None if it was not measured."""
        iterations = self.measurements.get(client, ())
        return Spread.of(each[metric] for each in iterations if each is not None and metric in each)

    def compared(
        self, client: str, baseline: str, metric: str, relation: Callable[[float, float], float] = ratio
    ) -> Spread | None:
        """Return the spread of the *relation* of *client* to *baseline*, each taken within one iteration."""
        pairs = zip(self.measurements.get(client, ()), self.measurements.get(baseline, ()), strict=False)
        return Spread.of(relation(ours[metric], theirs[metric]) for ours, theirs in pairs if ours and theirs)

    def add(self, client: str, response: dict[str, Any]) -> None:
        """Add the *response* of a client's process: its *measurements* and *versions*, or its *failure*."""
        if "failure" in response:
            self.failures[client] = response["failure"]
        self.measurements.setdefault(client, []).append(response.get("measurements"))
        self.versions |= response.get("versions", {})


def select_clients(scenario: Scenario, *, other_sdks: bool, only: Iterable[str] = ()) -> list[Client]:
    """Return the clients of *scenario*, with *other_sdks* or without; if *only* has names, these clients only."""
    names = (*scenario.clients, *(scenario.other_sdks if other_sdks else ()))
    selected = set(only)
    return [CLIENTS[name] for name in names if not selected or name in selected]


def measure(
    scenario: Scenario,
    clients: list[Client],
    *,
    rounds: int,
    scale: float,
    port: int,
    core: int | None,
    log: Callable[[str], None],
) -> Results:
    """Measure *scenario* in a number of *rounds*, each with one process per client; *log* receives the progress."""
    results = Results(scenario)
    if scenario.workload == "startup":
        for client in clients:  # writes the byte code, and fills the system's file cache
            _start_up(client)
    for number in range(rounds):
        with contextlib.ExitStack() as stack:
            processes: list[tuple[str, Callable[[], dict[str, Any]]]] = []
            for client in _rotated(clients, number):
                log(f"{scenario.name}: round {number + 1} of {rounds}, {client.name}")
                if scenario.workload == "startup":
                    processes.append((client.name, functools.partial(_start_up, client)))
                else:
                    worker = WorkerProcess(scenario, client, scale=scale, port=port, core=core)
                    processes.append((client.name, stack.enter_context(worker).run_iteration))
            for iteration in range(scenario.iterations):
                for name, run_iteration in _rotated(processes, iteration):
                    results.add(name, run_iteration())
    return results


def _rotated(items: list[T], steps: int) -> list[T]:
    first = steps % len(items)
    return items[first:] + items[:first]


def _start_up(client: Client) -> dict[str, Any]:
    """Measure one import and one first client in a new interpreter."""
    code = _STARTUP.read_text(encoding="utf-8")
    with MeasuringProcess(client, "-c", code, client.module, client.constructor, *client.hidden) as process:
        return process.response(_STARTUP_TIMEOUT)
