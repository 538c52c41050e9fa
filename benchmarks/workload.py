"""What all workloads share: the scenario at a scale, the meter, and how costs become measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.cpu_meter import CpuMeter
from benchmarks.processes import ServerControl
from benchmarks.scenarios import Scenario

Measurements: TypeAlias = dict[str, float]
"""Numbers by the keys of the scenario's metrics."""

WARM_UP_CALLS = 50
WARM_UP_STREAM = "bulk.500"
MICRO, MILLI = 1e6, 1e3  # per second
KILOBYTE, MEGABYTE = 1e3, 1e6
GROWTH_STEPS = ((1, 3), (10, 1))  # (size, repeats): three times the small size, then once ten times that size
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Workload:
    """
    The work of *scenario* at a *scale*: of its operations and events only that fraction.

    Runs once per item of *iterations*, which may block until it is this client's turn, and passes its measurements to
    *record*. *control* reaches the server.
    """

    scenario: Scenario
    control: ServerControl
    iterations: Iterable[object]
    record: Callable[[Measurements], object]
    scale: float = 1.0

    @property
    def in_flight(self) -> int:
        """How many calls or streams are in flight."""
        return min(self.scenario.in_flight, self._scaled(self.scenario.in_flight))

    @property
    def operations(self) -> int:
        """How many calls or streams an iteration has: a multiple of *in_flight*."""
        return max(1, self._scaled(self.scenario.operations) // self.in_flight) * self.in_flight

    @property
    def events(self) -> int:
        """How many events each stream has."""
        return self._scaled(self.scenario.events)

    def model(self, events: int | None = None) -> str:
        """Return the model that requests name; it selects the server's behaviour."""
        return self.scenario.model.format(events=self.events if events is None else events)

    def meter(self) -> CpuMeter:
        """Return a meter for the measured part of an iteration."""
        return CpuMeter(self.control)

    def _scaled(self, number: int) -> int:
        return max(1, round(number * self.scale))


def cost(meter: CpuMeter, count: int, received: int) -> Measurements:
    """Return the measurements of *count* calls or events, of which *received* arrived."""
    return {
        "cpu": MICRO * meter.cpu / count,
        "lost": count - received,
        "server_busy": meter.server_busy,
        "rate": count / meter.wall,
        "connections": meter.connections,
    }


def growth(costs: list[float], workload: Workload) -> Measurements:
    """Return the measurements of *costs*: seconds per event of the small size and of the large one."""
    small, large = costs
    units = workload.events / (_MEBIBYTE if workload.scenario.workload == "big_events" else 1)
    return {"growth": large / small, "cpu": MICRO * large / units}


def check_received(received: int, sent: int) -> None:
    """Raise `AssertionError` unless everything that was *sent* was *received*."""
    if received != sent:
        msg = f"{sent:,} sent, {received:,} received"
        raise AssertionError(msg)
