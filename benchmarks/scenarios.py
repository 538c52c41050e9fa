"""What is measured: a work load each, the clients that do it, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass

_ASYNC = ("aiohttp", "neuralbox", "neuralbox-plain")
_ON_UVLOOP = ("aiohttp-uvloop", "neuralbox-uvloop")
_EVENTS = ("neuralbox-events", "neuralbox-events-plain")
_ASYNC_PEERS = ("httpx", "openai", "anthropic")
_BLOCKING_PEERS = ("requests", "httpx-sync", "openai-sync", "anthropic-sync")


@dataclass(frozen=True)
class Metric:
    """A number that a work load gives: its *key*, what it is and in which unit, and how many digits are shown."""

    key: str
    title: str
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    One work load and who does it.

    * *load*: the function in `loads` (or `startup`); *program*: what the server is asked for, see `server`.
    * *operations*: calls, or streams, of a turn; *in_flight*: at the same time; *events*: of each stream. *turns*: how
      often each process does that: what is compared is then measured within a second or two.
    * *metrics*: what is told; ratios are of the first. *to*: the client that they are to; those on uvloop have one of
      their own, *to_uvloop*.
    * *longest*: seconds that a turn may take. *by_name*: it takes so long that it is measured only when asked for.
    """

    name: str
    title: str
    load: str
    program: str = ""
    operations: int = 1
    turns: int = 1
    in_flight: int = 1
    events: int = 0
    metrics: tuple[Metric, ...]
    to: str = "aiohttp"
    longest: int = 180
    by_name: bool = False
    clients: tuple[str, ...] = _ASYNC
    peers: tuple[str, ...] = ()

    def reference(self, client: str) -> str:
        """Return the client that the ratios of *client* are to."""
        on_its_loop = f"{self.to}-uvloop"
        return on_its_loop if client.endswith("-uvloop") and on_its_loop in self.clients else self.to


_CALL = (Metric("cpu", "µs of CPU a call"), Metric("lost", "lost", 0), Metric("busy", "server busy, %", 0))
_GROWN = (
    Metric("memory", "MB over the idle client"),
    Metric("early", "of it after a tenth"),
    Metric("late", "in the second half"),
)
_EVENT = (Metric("cpu", "µs of CPU an event", 2), Metric("lost", "lost", 0), Metric("busy", "server busy, %", 0))
_LAG = (
    Metric("p50", "ms from send to user code, p50", 2),
    Metric("p99", "p99", 2),
    Metric("cpu", "µs of CPU an event"),
    Metric("lost", "lost", 0),
    Metric("busy", "server busy, %", 0),
)
_GROWTH = (Metric("growth", "cost of the large to the small", 2), Metric("cpu", "µs of CPU in the large", 2))

_ALL = (
    Scenario(
        name="call",
        title="Calls one after the other",
        load="calls",
        program="call",
        operations=400,
        turns=6,
        metrics=_CALL,
        clients=(*_ASYNC, *_ON_UVLOOP),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="call-64",
        title="64 calls in flight",
        load="calls",
        program="call.10",
        operations=960,
        turns=6,
        in_flight=64,
        metrics=_CALL,
        clients=(*_ASYNC, *_ON_UVLOOP),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="call-1000",
        title="1,000 calls in flight",
        load="calls",
        program="call.300",
        operations=4000,
        turns=2,
        in_flight=1000,
        metrics=_CALL,
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="memory",
        title="Memory of 1,000 calls in flight",
        load="memory",
        program="hold",
        operations=1000,
        in_flight=1000,
        metrics=(Metric("memory", "KB a call"), Metric("lost", "lost", 0)),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="stream",
        title="One stream in bulk",
        load="streams",
        program="bulk.{events}",
        operations=3,
        turns=4,
        events=10_000,
        metrics=_EVENT,
        clients=(*_ASYNC, *_EVENTS, *_ON_UVLOOP),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="stream-50",
        title="50 streams in bulk at once",
        load="streams",
        program="bulk.{events}.4096",
        operations=50,
        turns=4,
        in_flight=50,
        events=800,
        metrics=_EVENT,
        clients=(*_ASYNC, *_EVENTS),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="live",
        title="One live stream, an event a segment, 500 events a second",
        load="streams",
        program="live.{events}.500",
        operations=1,
        turns=5,
        events=200,
        metrics=_EVENT,
        clients=(*_ASYNC, *_ON_UVLOOP),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="live-100",
        title="100 live streams of 200 events a second, each at its own moments",
        load="lags",
        program="live.{events}.200",
        operations=100,
        turns=3,
        in_flight=100,
        events=300,
        metrics=_LAG,
        clients=(*_ASYNC, "protocol"),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="live-100-step",
        title="The same, all in step",
        load="lags",
        program="step.{events}.200",
        operations=100,
        turns=2,
        in_flight=100,
        events=300,
        metrics=_LAG,
        clients=(*_ASYNC, "protocol"),
    ),
    Scenario(
        name="batch",
        title="A batch of 5,000 requests, 64 in flight",
        load="batch",
        program="call.10",
        operations=5000,
        turns=2,
        in_flight=64,
        metrics=(*_CALL, *_GROWN),
        to="neuralbox-semaphore",
        clients=("neuralbox-semaphore", "neuralbox-batch", "neuralbox-batch-journal"),
    ),
    Scenario(
        name="batch-million",
        title="A batch of a million requests, 256 in flight",
        load="batch",
        program="call",
        operations=1_000_192,
        in_flight=256,
        metrics=(*_CALL, *_GROWN),
        longest=3600,
        by_name=True,
        to="neuralbox-batch",
        clients=("neuralbox-batch", "neuralbox-batch-journal"),
    ),
    Scenario(
        name="import",
        title="Import, and the first client",
        load="startup",
        metrics=(
            Metric("cpu", "ms of CPU to import"),
            Metric("memory", "MB of RSS over the bare interpreter"),
            Metric("modules", "modules", 0),
            Metric("construct", "ms of CPU for the first client", 3),
            Metric("interpreter", "MB of RSS of the bare interpreter"),
        ),
        clients=("aiohttp", "neuralbox", "neuralbox-plain", "neuralbox-sync"),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="sync-call",
        title="Blocking: calls one after the other",
        load="calls",
        program="call",
        operations=400,
        turns=6,
        metrics=_CALL,
        to="socket",
        clients=("socket", "http.client", "urllib3", "neuralbox-sync", "neuralbox-sync-plain", "neuralbox"),
        peers=_BLOCKING_PEERS,
    ),
    Scenario(
        name="sync-stream",
        title="Blocking: one stream in bulk",
        load="streams",
        program="bulk.{events}",
        operations=3,
        turns=4,
        events=10_000,
        metrics=_EVENT,
        to="socket",
        clients=(
            *("socket", "neuralbox-sync", "neuralbox-sync-plain", "neuralbox"),
            *("neuralbox-sync-events", "neuralbox-events"),
        ),
        peers=("urllib3", *_BLOCKING_PEERS),
    ),
    Scenario(
        name="sync-threads",
        title="Blocking: 16 threads on one client",
        load="threads",
        program="call",
        operations=1600,
        turns=3,
        in_flight=16,
        metrics=(
            *_CALL,
            Metric("throughput", "throughput to one thread's", 2),
            Metric("rate", "calls a second", 0),
        ),
        to="urllib3",
        clients=("urllib3", "neuralbox-sync", "neuralbox-sync-plain"),
        peers=_BLOCKING_PEERS,
    ),
    Scenario(
        name="big-event",
        title="One event of 10 MiB to one of 1 MiB, for each MiB",
        load="big_events",
        program="big.{events}",
        events=1024 * 1024,
        metrics=_GROWTH,
        to="neuralbox",
        clients=("neuralbox", "neuralbox-plain", "neuralbox-sync"),
        peers=_ASYNC_PEERS,
    ),
    Scenario(
        name="tiny-events",
        title="A stream of 200,000 tiny events to one of 20,000, for each event",
        load="many_events",
        program="bulk.{events}",
        events=20_000,
        metrics=_GROWTH,
        to="neuralbox",
        clients=("neuralbox", "neuralbox-plain", "neuralbox-sync"),
        peers=_ASYNC_PEERS,
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
