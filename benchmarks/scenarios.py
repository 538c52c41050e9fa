"""
The scenarios: each is one workload, the clients that run it, and the metrics that are reported.

The figures of a stream depend on its framing, so the title of a stream scenario names it: how events share the HTTP
chunks of the response, and whether each chunk is a TCP segment of its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that a workload measures: its *key*, its *title* with the unit, and the decimal *digits* to show."""

    key: str
    title: str
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    One workload and the clients that run it.

    * *workload*: a key of `ASYNC_WORKLOADS` or `BLOCKING_WORKLOADS`, or ``startup``. *model*: the model that requests
      name; it selects the server's behaviour (see `server`). *tls*: over TLS.
    * *operations*: calls or streams per iteration; *in_flight*: how many of them at a time; *events*: per stream.
      *iterations*: how often each process runs the workload. The processes of a round are interleaved after each
      iteration, so that compared iterations are a second or two apart.
    * *metrics*: what is reported; ratios are those of the first. *baseline*: the client that ratios refer to.
    * *timeout*: seconds per iteration. *opt_in*: takes so long that it runs only if it is named.
    """

    name: str
    title: str
    workload: str
    model: str = ""
    tls: bool = False
    operations: int = 1
    iterations: int = 1
    in_flight: int = 1
    events: int = 0
    metrics: tuple[Metric, ...]
    baseline: str = "aiohttp"
    timeout: int = 180
    opt_in: bool = False
    clients: tuple[str, ...]
    other_sdks: tuple[str, ...] = ()

    def baseline_of(self, client: str) -> str:
        """Return the client that the ratios of *client* refer to; clients on uvloop have a baseline on uvloop."""
        on_uvloop = f"{self.baseline}-uvloop"
        return on_uvloop if client.endswith("-uvloop") and on_uvloop in self.clients else self.baseline

    def over_tls(self, *clients: str) -> Scenario:
        """Return the same scenario over TLS, for *clients*."""
        return dataclasses.replace(
            self, name=f"{self.name}-tls", title=f"{self.title}, over TLS", tls=True, clients=clients, other_sdks=()
        )


# ------------------------------------------------------------------------------------------------- metrics and clients

_LOST, _SERVER_BUSY = Metric("lost", "lost", 0), Metric("server_busy", "server busy, %", 0)
_PER_CALL = (Metric("cpu", "CPU per call, µs"), _LOST, _SERVER_BUSY)
_PER_EVENT = (Metric("cpu", "CPU per event, µs", 2), _LOST, _SERVER_BUSY)
_LATENCY = (
    Metric("p50", "latency p50, ms", 2),
    Metric("p99", "p99, ms", 2),
    Metric("cpu", "CPU per event, µs"),
    _LOST,
    _SERVER_BUSY,
)
_BATCH_MEMORY = (
    Metric("memory", "memory above idle, MB"),
    Metric("memory_first_tenth", "of it in the first tenth, MB"),
    Metric("memory_second_half", "of it in the second half, MB"),
)
_GROWTH = (Metric("growth", "unit cost of large / small", 2), Metric("cpu", "CPU per unit of the large, µs", 2))

_ASYNC = ("aiohttp", "neuralbox", "neuralbox-plain")
_WITH_GENERAL = (*_ASYNC, "neuralbox-general")
_EVENTS = ("neuralbox-events", "neuralbox-events-plain")
_ON_UVLOOP = ("aiohttp-uvloop", "neuralbox-uvloop")
_GROWTH_CLIENTS = ("neuralbox", "neuralbox-plain", "neuralbox-sync")
_ASYNC_SDKS = ("httpx", "openai", "anthropic")
_BLOCKING_SDKS = ("requests", "httpx-sync", "openai-sync", "anthropic-sync")

# --------------------------------------------------------------------------------------------------------------- calls

_CALL = Scenario(
    name="call",
    title="Calls one after the other",
    workload="calls",
    model="call",
    operations=400,
    iterations=6,
    metrics=_PER_CALL,
    clients=(*_WITH_GENERAL, *_ON_UVLOOP),
    other_sdks=_ASYNC_SDKS,
)
_CALL_64 = Scenario(
    name="call-64",
    title="64 calls in flight",
    workload="calls",
    model="call.10",
    operations=960,
    iterations=6,
    in_flight=64,
    metrics=_PER_CALL,
    clients=(*_WITH_GENERAL, *_ON_UVLOOP),
    other_sdks=_ASYNC_SDKS,
)
_CALL_OBSERVED = dataclasses.replace(
    _CALL_64,
    name="call-64-observed",
    title="64 calls in flight, with an observer that does nothing, and with OpenTelemetry's spans and metrics",
    baseline="neuralbox",
    clients=("neuralbox", "neuralbox-observed", "neuralbox-otel"),
    other_sdks=(),
)
_CALLS = (
    _CALL,
    _CALL.over_tls(*_WITH_GENERAL, *_ON_UVLOOP),
    _CALL_64,
    _CALL_64.over_tls(*_WITH_GENERAL),
    _CALL_OBSERVED,
    _CALL_OBSERVED.over_tls(*_CALL_OBSERVED.clients),
    Scenario(
        name="call-1000",
        title="1,000 calls in flight",
        workload="calls",
        model="call.300",
        operations=4000,
        iterations=2,
        in_flight=1000,
        metrics=_PER_CALL,
        clients=_ASYNC,
        other_sdks=_ASYNC_SDKS,
    ),
    Scenario(
        name="parse",
        title="Typed answers, an attrs class of 8 fields: `parse` and `generate`, one after the other",
        workload="calls",
        model="typed",
        operations=400,
        iterations=6,
        metrics=_PER_CALL,
        baseline="neuralbox",
        clients=("neuralbox", "neuralbox-parse"),
    ),
    Scenario(
        name="memory",
        title="Memory of 1,000 calls in flight",
        workload="memory",
        model="hold",
        operations=1000,
        in_flight=1000,
        metrics=(Metric("memory", "memory per call, kB"), _LOST),
        clients=_ASYNC,
        other_sdks=_ASYNC_SDKS,
    ),
)

# ------------------------------------------------------------------------------------------------------------- streams

_STREAM = Scenario(
    name="stream",
    title="One bulk stream, chunks of 64 KiB",
    workload="streams",
    model="bulk.{events}",
    operations=3,
    iterations=4,
    events=10_000,
    metrics=_PER_EVENT,
    clients=(*_WITH_GENERAL, *_EVENTS, *_ON_UVLOOP),
    other_sdks=_ASYNC_SDKS,
)
_STREAM_CHUNK_PER_EVENT = Scenario(
    name="stream-chunk-per-event",
    title="One bulk stream, a chunk per event",
    workload="streams",
    model="chunks.{events}",
    operations=3,
    iterations=4,
    events=10_000,
    metrics=_PER_EVENT,
    clients=(*_WITH_GENERAL, "neuralbox-events"),
    other_sdks=_ASYNC_SDKS,
)
_LIVE = Scenario(
    name="live",
    title="One live stream of 500 events per second, a chunk and a TCP segment per event",
    workload="streams",
    model="live.{events}.500",
    iterations=5,
    events=200,
    metrics=_PER_EVENT,
    clients=(*_WITH_GENERAL, *_ON_UVLOOP),
    other_sdks=_ASYNC_SDKS,
)
_STREAMS = (
    _STREAM,
    _STREAM.over_tls(*_WITH_GENERAL),
    _STREAM_CHUNK_PER_EVENT,
    _STREAM_CHUNK_PER_EVENT.over_tls(*_WITH_GENERAL),
    Scenario(
        name="stream-50",
        title="50 bulk streams at once, chunks of 4 KiB",
        workload="streams",
        model="bulk.{events}.4096",
        operations=50,
        iterations=4,
        in_flight=50,
        events=800,
        metrics=_PER_EVENT,
        clients=(*_ASYNC, *_EVENTS),
        other_sdks=_ASYNC_SDKS,
    ),
    _LIVE,
    _LIVE.over_tls(*_WITH_GENERAL),
    Scenario(
        name="live-100",
        title="100 live streams of 200 events per second, not synchronised, a chunk and a TCP segment per event",
        workload="latencies",
        model="live.{events}.200",
        operations=100,
        iterations=3,
        in_flight=100,
        events=300,
        metrics=_LATENCY,
        clients=(*_ASYNC, "protocol"),
        other_sdks=_ASYNC_SDKS,
    ),
    Scenario(
        name="live-100-burst",
        title="100 live streams of 200 events per second, synchronised, a chunk and a TCP segment per event",
        workload="latencies",
        model="burst.{events}.200",
        operations=100,
        iterations=2,
        in_flight=100,
        events=300,
        metrics=_LATENCY,
        clients=(*_ASYNC, "protocol"),
    ),
    Scenario(
        name="big-event",
        title="One event of 10 MiB / one of 1 MiB, cost per MiB, chunks of 64 KiB or one event",
        workload="big_events",
        model="big.{events}",
        events=1024 * 1024,
        metrics=_GROWTH,
        baseline="neuralbox",
        clients=_GROWTH_CLIENTS,
        other_sdks=_ASYNC_SDKS,
    ),
    Scenario(
        name="tiny-events",
        title="A bulk stream of 200,000 events / one of 20,000, cost per event, chunks of 64 KiB",
        workload="many_events",
        model="bulk.{events}",
        events=20_000,
        metrics=_GROWTH,
        baseline="neuralbox",
        clients=_GROWTH_CLIENTS,
        other_sdks=_ASYNC_SDKS,
    ),
)

# ------------------------------------------------------------------------------------------------- batches and start-up

_BATCHES = (
    Scenario(
        name="batch",
        title="A batch of 5,000 requests, 64 in flight",
        workload="batch",
        model="call.10",
        operations=5000,
        iterations=2,
        in_flight=64,
        metrics=(*_PER_CALL, *_BATCH_MEMORY),
        baseline="neuralbox-semaphore",
        clients=("neuralbox-semaphore", "neuralbox-batch", "neuralbox-batch-journal", "neuralbox-sync-batch"),
    ),
    Scenario(
        name="batch-million",
        title="A batch of a million requests, 256 in flight",
        workload="batch",
        model="call",
        operations=1_000_192,
        in_flight=256,
        metrics=(*_PER_CALL, *_BATCH_MEMORY),
        timeout=3600,
        opt_in=True,
        baseline="neuralbox-batch",
        clients=("neuralbox-batch", "neuralbox-batch-journal"),
    ),
)
_STARTUP = (
    Scenario(
        name="import",
        title="Import, and the first client",
        workload="startup",
        metrics=(
            Metric("cpu", "CPU of the import, ms"),
            Metric("memory", "memory above the bare interpreter, MB"),
            Metric("modules", "modules", 0),
            Metric("construct", "CPU of the first client, ms", 3),
            Metric("interpreter", "memory of the bare interpreter, MB"),
        ),
        clients=("aiohttp", "neuralbox", "neuralbox-plain", "neuralbox-sync"),
        other_sdks=_ASYNC_SDKS,
    ),
)

# ------------------------------------------------------------------------------------------------- the blocking facade

_SYNC_CALL = Scenario(
    name="sync-call",
    title="Blocking: calls one after the other",
    workload="calls",
    model="call",
    operations=400,
    iterations=6,
    metrics=_PER_CALL,
    baseline="urllib3",
    clients=("socket", "http.client", "urllib3", "neuralbox-sync", "neuralbox-sync-plain", "neuralbox"),
    other_sdks=_BLOCKING_SDKS,
)
_BLOCKING = (
    _SYNC_CALL,
    _SYNC_CALL.over_tls(*_SYNC_CALL.clients),
    Scenario(
        name="sync-stream",
        title="Blocking: one bulk stream, chunks of 64 KiB",
        workload="streams",
        model="bulk.{events}",
        operations=3,
        iterations=4,
        events=10_000,
        metrics=_PER_EVENT,
        baseline="socket",
        clients=(
            "socket",
            "neuralbox-sync",
            "neuralbox-sync-plain",
            "neuralbox",
            "neuralbox-sync-events",
            "neuralbox-events",
        ),
        other_sdks=("urllib3", *_BLOCKING_SDKS),
    ),
    Scenario(
        name="sync-threads",
        title="Blocking: 16 threads that share one client",
        workload="threads",
        model="call",
        operations=1600,
        iterations=3,
        in_flight=16,
        metrics=(
            *_PER_CALL,
            Metric("speedup", "throughput / that of one thread", 2),
            Metric("rate", "calls per second", 0),
        ),
        baseline="urllib3",
        clients=("urllib3", "neuralbox-sync", "neuralbox-sync-plain"),
        other_sdks=_BLOCKING_SDKS,
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in (*_CALLS, *_STREAMS, *_BATCHES, *_STARTUP, *_BLOCKING)}
