"""The rounds of a scenario: each client once in each round, in a process of its own, and what came of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clients.registry import CLIENTS, Client, python_of
from benchmarks.processes import ROOT
from benchmarks.scenarios import Scenario

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
    """The *median*, *least* and *most* of one number over the rounds."""

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
    """What a scenario gave: the numbers of each client by round (None where it failed), failures and versions."""

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
        self, client: str, to: str, metric: str, relation: Callable[[float, float], float] = ratio
    ) -> Spread | None:
        """Return how *metric* of *client* is spread compared to that of the client *to* in the same round."""
        rounds = zip(self.numbers.get(client, ()), self.numbers.get(to, ()), strict=False)
        return Spread.of(relation(ours[metric], theirs[metric]) for ours, theirs in rounds if ours and theirs)

    def take(self, client: str, found: dict[str, Any] | str) -> None:
        """Note what one client *found* in one round: its numbers and versions, or why it failed."""
        if isinstance(found, str):
            self.failures[client] = found
            self.numbers.setdefault(client, []).append(None)
        else:
            self.numbers.setdefault(client, []).append(found["numbers"])
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
    """Measure *scenario*: in each round each of *clients* once, each time another one first."""
    results = Results(scenario)
    if scenario.load == "startup":
        for client in clients:  # writes the byte code, and lets the system cache the files
            _start_up(client)
    for turn in range(rounds):
        first = turn % len(clients)
        for client in clients[first:] + clients[:first]:
            say(f"{scenario.name}: round {turn + 1} of {rounds}, {client.name}")
            found = _start_up(client) if scenario.load == "startup" else _work(scenario, client, scale, port, core)
            results.take(client.name, found)
    return results


def _start_up(client: Client) -> dict[str, Any] | str:
    code = _STARTUP.read_text(encoding="utf-8")
    return _run(client, _STARTING_TIME, "-c", code, client.module, client.construct, *client.without)


def _work(scenario: Scenario, client: Client, scale: float, port: int, core: int | None) -> dict[str, Any] | str:
    where = () if core is None else ("--core", str(core))
    work = ("benchmarks.worker", scenario.name, client.name, str(port), "--scale", str(scale), *where)
    return _run(client, scenario.longest, "-m", *work)


def _run(client: Client, longest: int, *arguments: str) -> dict[str, Any] | str:
    """Return what an interpreter with *arguments* prints, or the last line of what it complains of."""
    python = python_of(client, ROOT) or sys.executable
    try:
        done = subprocess.run(
            [python, *arguments],
            check=False,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=longest,
        )
    except FileNotFoundError:
        return f"no environment {python}: `make bench-peers` makes it"
    except subprocess.TimeoutExpired:
        return f"not done after {longest} s"
    if done.returncode:
        return (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
