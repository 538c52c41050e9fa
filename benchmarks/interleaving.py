"""
The rounds of a scenario, and what came of them.

In each round every client has a process of its own, and all take turns: what a machine does besides, for a second or
for an hour, then meets them alike.
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
from benchmarks.told import ToldProcess, WorkerProcess

T = TypeVar("T")
_STARTING_TIME = 60  # seconds
_STARTUP = Path(__file__).with_name("startup.py")


def ratio(ours: float, theirs: float) -> float:
    """Return the ratio of two numbers."""
    return ours / theirs


def difference(ours: float, theirs: float) -> float:
    """Return the difference of two numbers."""
    return ours - theirs


@dataclass(frozen=True)
class Spread:
    """The *median*, *least* and *most* of one number over all turns."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of *values*, None if there are none."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found)) if found else None


@dataclass
class Results:
    """What a scenario gave: the numbers of each client by turn (None where it failed), failures and versions."""

    scenario: Scenario
    numbers: dict[str, list[dict[str, float] | None]] = field(
        default_factory=dict[str, "list[dict[str, float] | None]"]
    )
    failures: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def spread(self, client: str, metric: str) -> Spread | None:
        """Return how *metric* of *client* is spread; None when there is no such number."""
        return Spread.of(
            numbers[metric] for numbers in self.numbers.get(client, ()) if numbers is not None and metric in numbers
        )

    def compared(
        self,
        client: str,
        to: str,
        metric: str,
        relation: Callable[[float, float], float] = ratio,
        *,
        where: float | None = None,
    ) -> Spread | None:
        """
        Return how *metric* of *client* is spread compared to that of the client *to* in the same turn.

        With *where*, only of the turns in which that of *to* is at least so much.
        """
        turns = zip(self.numbers.get(client, ()), self.numbers.get(to, ()), strict=False)
        return Spread.of(
            relation(ours[metric], theirs[metric])
            for ours, theirs in turns
            if ours and theirs and (where is None or theirs[metric] >= where)
        )

    def take(self, client: str, found: dict[str, Any]) -> None:
        """Note what one client *found* in one turn: its *numbers* and *versions*, or its *failure*."""
        if "failure" in found:
            self.failures[client] = found["failure"]
        self.numbers.setdefault(client, []).append(found.get("numbers"))
        self.versions |= found.get("versions", {})


def clients_of(scenario: Scenario, *, peers: bool, only: Iterable[str] = ()) -> list[Client]:
    """Return the clients of *scenario*, with its *peers* if wanted; of them *only* those named, if any are."""
    names = (*scenario.clients, *(scenario.peers if peers else ()))
    wanted = set(only)
    return [CLIENTS[name] for name in names if not wanted or name in wanted]


def measure(
    scenario: Scenario,
    clients: list[Client],
    *,
    rounds: int,
    scale: float,
    port: int,
    core: int | None,
    say: Callable[[str], None],
) -> Results:
    """Measure *scenario*: in each round each of *clients* in a process of its own, each time another one first."""
    results = Results(scenario)
    if scenario.load == "startup":
        for client in clients:  # writes the byte code, and lets the system cache the files
            _start_up(client)
    for number in range(rounds):
        with contextlib.ExitStack() as processes:
            turns: list[tuple[str, Callable[[], dict[str, Any]]]] = []
            for client in _beginning_with(number, clients):
                say(f"{scenario.name}: round {number + 1} of {rounds}, {client.name}")
                if scenario.load == "startup":
                    turns.append((client.name, functools.partial(_start_up, client)))
                else:
                    worker = WorkerProcess(scenario, client, scale=scale, port=port, core=core)
                    turns.append((client.name, processes.enter_context(worker).turn))
            for turn in range(scenario.turns):
                for name, go in _beginning_with(turn, turns):
                    results.take(name, go())
    return results


def _beginning_with(number: int, items: list[T]) -> list[T]:
    first = number % len(items)
    return items[first:] + items[:first]


def _start_up(client: Client) -> dict[str, Any]:
    """Return the numbers of one import and one first client, in a fresh interpreter."""
    code = _STARTUP.read_text(encoding="utf-8")
    with ToldProcess(client, "-c", code, client.module, client.construct, *client.without) as process:
        return process.answer(_STARTING_TIME)
