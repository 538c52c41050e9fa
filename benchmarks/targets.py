"""The targets: bounds for the measured figures, and the tolerance of `--check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Medians of a few rounds on a shared machine differ by about this much between runs. Absolute times, which have no
# baseline in the same run, differ by more.
RATIO_TOLERANCE = 0.05
TIME_TOLERANCE = 0.15


@dataclass(frozen=True)
class Target:
    """
    An upper *bound* for the *metric* of *client* in *scenario*, or a lower one if *direction* is ``min``.

    It applies to the ratio to the client *baseline*, or to the difference if *relation* is ``-``; without a baseline,
    to the number itself. `--check` accepts a deviation by *tolerance*, a fraction of the bound.
    """

    scenario: str
    client: str
    metric: str
    bound: float
    baseline: str | None = None
    relation: Literal["/", "-"] = "/"
    direction: Literal["max", "min"] = "max"
    tolerance: float = RATIO_TOLERANCE

    @property
    def name(self) -> str:
        """What the target is about, in one line."""
        relation = f" {self.relation} {self.baseline}" if self.baseline else ""
        return f"{self.scenario}: {self.metric} of {self.client}{relation}"

    def is_met(self, value: float) -> bool:
        """Return whether *value* is within the bound."""
        return value <= self.bound if self.direction == "max" else value >= self.bound

    def is_met_with_tolerance(self, value: float) -> bool:
        """Return whether *value* is within the bound or deviates by no more than the tolerance."""
        margin = abs(self.bound) * self.tolerance
        return value <= self.bound + margin if self.direction == "max" else value >= self.bound - margin


def _nothing_lost(scenario: str, client: str) -> Target:
    return Target(scenario, client, "lost", 0)


# "neuralbox" has everything on, that is also orjson of the extra `speed`; "-plain" has the required packages only.
_CALLS = (
    Target("call", "neuralbox", "cpu", 0.95, "aiohttp"),
    Target("call", "neuralbox-plain", "cpu", 0.95, "aiohttp"),
    Target("call-tls", "neuralbox", "cpu", 1.0, "aiohttp"),
    Target("call-64", "neuralbox", "cpu", 0.9, "aiohttp"),
    Target("call-64", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    Target("call-1000", "neuralbox", "cpu", 0.9, "aiohttp"),
    Target("call-1000", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    _nothing_lost("call-tls", "neuralbox"),
    _nothing_lost("call-64", "neuralbox"),
    _nothing_lost("call-64-tls", "neuralbox"),
    _nothing_lost("call-1000", "neuralbox"),
    _nothing_lost("call-1000", "neuralbox-plain"),
    Target("call-64-observed-tls", "neuralbox-otel", "cpu", 1.25, "neuralbox"),
    _nothing_lost("call-64-observed-tls", "neuralbox-otel"),
    Target("parse", "neuralbox-parse", "cpu", 1.15, "neuralbox"),
    _nothing_lost("parse", "neuralbox-parse"),
    Target("memory", "neuralbox", "memory", 20.0),
    Target("memory", "neuralbox-plain", "memory", 20.0),
)
_STREAMS = (
    Target("stream", "neuralbox", "cpu", 0.25, "aiohttp"),
    Target("stream", "neuralbox-events", "cpu", 0.25, "aiohttp"),
    Target("stream", "neuralbox-plain", "cpu", 0.6, "aiohttp"),
    Target("stream", "neuralbox-events-plain", "cpu", 0.6, "aiohttp"),
    Target("stream-chunk-per-event", "neuralbox", "cpu", 0.45, "aiohttp"),
    Target("stream-chunk-per-event", "neuralbox-events", "cpu", 0.45, "aiohttp"),
    Target("stream-50", "neuralbox", "cpu", 0.35, "aiohttp"),
    Target("stream-50", "neuralbox-events", "cpu", 0.35, "aiohttp"),
    Target("stream-50", "neuralbox-plain", "cpu", 0.6, "aiohttp"),
    Target("stream-50", "neuralbox-events-plain", "cpu", 0.6, "aiohttp"),
    _nothing_lost("stream-tls", "neuralbox"),
    _nothing_lost("stream-chunk-per-event", "neuralbox"),
    _nothing_lost("stream-50", "neuralbox"),
    Target("live", "neuralbox", "cpu", 0.95, "aiohttp"),
    Target("live", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    _nothing_lost("live-tls", "neuralbox"),
    _nothing_lost("live-100", "neuralbox"),
    # A quadratic cost would make each byte or event ten times as expensive.
    Target("big-event", "neuralbox", "growth", 1.5),
    Target("big-event", "neuralbox-plain", "growth", 1.5),
    Target("big-event", "neuralbox-sync", "growth", 1.5),
    Target("tiny-events", "neuralbox", "growth", 1.5),
    Target("tiny-events", "neuralbox-plain", "growth", 1.5),
    Target("tiny-events", "neuralbox-sync", "growth", 1.5),
)
_BATCHES = (
    Target("batch", "neuralbox-batch", "cpu", 1.15, "neuralbox-semaphore"),
    Target("batch", "neuralbox-batch-journal", "cpu", 1.3, "neuralbox-semaphore"),
    _nothing_lost("batch", "neuralbox-batch"),
    # A million requests may take 64 MB in total, so each half of 5,000 requests takes next to nothing.
    Target("batch", "neuralbox-batch", "memory", 64.0),
    Target("batch", "neuralbox-batch", "memory_second_half", 1.0),
    _nothing_lost("batch", "neuralbox-batch-journal"),
    Target("batch-million", "neuralbox-batch", "memory", 64.0),
    Target("batch-million", "neuralbox-batch", "memory_second_half", 1.0),
    Target("batch-million", "neuralbox-batch-journal", "memory", 64.0),
    _nothing_lost("batch-million", "neuralbox-batch"),
    _nothing_lost("batch-million", "neuralbox-batch-journal"),
)
_STARTUP = (
    Target("import", "neuralbox", "cpu", 0.5, "aiohttp"),
    Target("import", "neuralbox-plain", "cpu", 150.0, tolerance=TIME_TOLERANCE),
    Target("import", "neuralbox-plain", "memory", 12.0),
    Target("import", "neuralbox-plain", "construct", 0.5, tolerance=TIME_TOLERANCE),
    Target("import", "neuralbox-sync", "construct", 0.5, tolerance=TIME_TOLERANCE),
    Target("import", "neuralbox-sync", "cpu", 20.0, "neuralbox", "-", tolerance=TIME_TOLERANCE),
)
_BLOCKING = (
    Target("sync-call", "neuralbox-sync", "cpu", 0.9, "urllib3"),
    Target("sync-call", "neuralbox-sync-plain", "cpu", 1.0, "urllib3"),
    Target("sync-call", "neuralbox-sync", "cpu", 1.6, "neuralbox"),
    _nothing_lost("sync-call-tls", "neuralbox-sync"),
    Target("sync-stream", "neuralbox-sync", "cpu", 2.0, "socket"),
    Target("sync-stream", "neuralbox-sync", "cpu", 1.3, "neuralbox"),
    Target("sync-stream", "neuralbox-sync-events", "cpu", 1.3, "neuralbox-events"),
    Target("sync-threads", "neuralbox-sync", "cpu", 0.6, "urllib3"),
    Target("sync-threads", "neuralbox-sync-plain", "cpu", 0.6, "urllib3"),
    Target("sync-threads", "neuralbox-sync", "speedup", 0.9, direction="min"),
    _nothing_lost("sync-threads", "neuralbox-sync"),
)
TARGETS = (*_CALLS, *_STREAMS, *_BATCHES, *_STARTUP, *_BLOCKING)
