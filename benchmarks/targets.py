"""The figures to reach, and how far a measured one may be above before a check fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Medians of a few rounds on a shared machine differ by about this much from run to run; CPU times in seconds, which
# are compared to nothing measured in the same moment, by more.
RATIO_SLACK = 0.05
TIME_SLACK = 0.15
_BEHIND = 1.0  # ms


@dataclass(frozen=True)
class Limit:
    """
    The *most* that the *metric* of *client* in *scenario* may be, or with ``least`` as *bound* the least.

    Compared to that of the client *to*: as a ratio, or with ``-`` as *relation* as a difference; without it, as it is.
    With *where*, only turns count in which the client *to* had at least that much; there may be none.
    """

    scenario: str
    client: str
    metric: str
    most: float
    to: str | None = None
    relation: Literal["/", "-"] = "/"
    bound: Literal["most", "least"] = "most"
    slack: float = RATIO_SLACK
    where: float | None = None

    @property
    def name(self) -> str:
        """What is limited, in one line."""
        beside = f" {self.relation} {self.to}" if self.to else ""
        where = "" if self.where is None else f", where that is at least {self.where:g}"
        return f"{self.scenario}: {self.metric} of {self.client}{beside}{where}"

    def allows(self, value: float) -> bool:
        """Return whether *value* is within the limit, without any slack."""
        return value <= self.most if self.bound == "most" else value >= self.most

    def allows_with_slack(self, value: float) -> bool:
        """Return whether *value* is near enough to pass a check."""
        room = abs(self.most) * self.slack
        return value <= self.most + room if self.bound == "most" else value >= self.most - room


def _lost_nothing(scenario: str, client: str) -> Limit:
    return Limit(scenario, client, "lost", 0)


# "plain" is neuralbox with its four required packages only, "neuralbox" the same with the extra `speed`.
LIMITS = (
    Limit("call", "neuralbox-plain", "cpu", 0.95, "aiohttp"),
    Limit("call-64", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    Limit("call-64", "neuralbox", "cpu", 0.9, "aiohttp"),
    Limit("call-1000", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    _lost_nothing("call-64", "neuralbox"),
    _lost_nothing("call-1000", "neuralbox"),
    _lost_nothing("call-1000", "neuralbox-plain"),
    Limit("memory", "neuralbox-plain", "memory", 20.0),
    Limit("memory", "neuralbox", "memory", 20.0),
    Limit("stream", "neuralbox", "cpu", 0.35, "aiohttp"),
    Limit("stream", "neuralbox-events", "cpu", 0.35, "aiohttp"),
    Limit("stream", "neuralbox-plain", "cpu", 0.6, "aiohttp"),
    Limit("stream", "neuralbox-events-plain", "cpu", 0.6, "aiohttp"),
    Limit("stream-50", "neuralbox", "cpu", 0.35, "aiohttp"),
    Limit("stream-50", "neuralbox-events", "cpu", 0.35, "aiohttp"),
    Limit("stream-50", "neuralbox-plain", "cpu", 0.6, "aiohttp"),
    Limit("stream-50", "neuralbox-events-plain", "cpu", 0.6, "aiohttp"),
    _lost_nothing("stream-50", "neuralbox"),
    Limit("live", "neuralbox-plain", "cpu", 1.0, "aiohttp"),
    Limit("live-100", "neuralbox-plain", "p50", 0.25, "aiohttp"),
    Limit("live-100", "neuralbox", "p50", 0.25, "aiohttp"),
    # The same where the bare loop falls behind; README.md tells the two states apart.
    Limit("live-100", "neuralbox-plain", "p50", 0.25, "aiohttp", where=_BEHIND),
    Limit("live-100", "neuralbox", "p50", 0.25, "aiohttp", where=_BEHIND),
    _lost_nothing("live-100", "neuralbox"),
    Limit("batch", "neuralbox-batch", "cpu", 1.25, "neuralbox-semaphore"),
    _lost_nothing("batch", "neuralbox-batch"),
    # A million requests may take 64 MB in all, so each half of 5,000 next to nothing.
    Limit("batch", "neuralbox-batch", "memory", 64.0),
    Limit("batch", "neuralbox-batch", "late", 1.0),
    _lost_nothing("batch", "neuralbox-batch-journal"),
    Limit("batch-million", "neuralbox-batch", "memory", 64.0),
    Limit("batch-million", "neuralbox-batch", "late", 1.0),
    Limit("batch-million", "neuralbox-batch-journal", "memory", 64.0),
    _lost_nothing("batch-million", "neuralbox-batch"),
    _lost_nothing("batch-million", "neuralbox-batch-journal"),
    Limit("import", "neuralbox-plain", "cpu", 150.0, slack=TIME_SLACK),
    Limit("import", "neuralbox-plain", "memory", 12.0),
    Limit("import", "neuralbox-plain", "construct", 0.5, slack=TIME_SLACK),
    Limit("import", "neuralbox-sync", "construct", 0.5, slack=TIME_SLACK),
    Limit("import", "neuralbox-sync", "cpu", 20.0, "neuralbox", "-", slack=TIME_SLACK),
    Limit("sync-call", "neuralbox-sync-plain", "cpu", 1.0, "urllib3"),
    Limit("sync-call", "neuralbox-sync", "cpu", 1.6, "neuralbox"),
    Limit("sync-stream", "neuralbox-sync", "cpu", 2.0, "socket"),
    Limit("sync-stream", "neuralbox-sync", "cpu", 1.3, "neuralbox"),
    Limit("sync-stream", "neuralbox-sync-events", "cpu", 1.3, "neuralbox-events"),
    Limit("sync-threads", "neuralbox-sync-plain", "cpu", 0.5, "urllib3"),
    Limit("sync-threads", "neuralbox-sync", "throughput", 0.9, bound="least"),
    _lost_nothing("sync-threads", "neuralbox-sync"),
    # Something quadratic would cost ten times as much for each byte or event of ten times as many.
    Limit("big-event", "neuralbox", "growth", 1.5),
    Limit("big-event", "neuralbox-plain", "growth", 1.5),
    Limit("big-event", "neuralbox-sync", "growth", 1.5),
    Limit("tiny-events", "neuralbox", "growth", 1.5),
    Limit("tiny-events", "neuralbox-plain", "growth", 1.5),
    Limit("tiny-events", "neuralbox-sync", "growth", 1.5),
)
