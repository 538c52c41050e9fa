"""The workloads of blocking clients; see `async_workloads` for what they have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.clients.adapter import BlockingClient
from benchmarks.workload import (
    GROWTH_STEPS,
    WARM_UP_CALLS,
    WARM_UP_STREAM,
    Workload,
    check_received,
    cost,
    growth,
)


def measure_calls(client: BlockingClient, workload: Workload) -> None:
    """Measure calls one after the other."""
    for _ in workload.iterations:
        _call_repeatedly(client, workload.model(), WARM_UP_CALLS)
        with workload.meter() as meter:
            ids = _call_repeatedly(client, workload.model(), workload.operations)
        workload.record(cost(meter, workload.operations, len(set(ids))))


def measure_streams(client: BlockingClient, workload: Workload) -> None:
    """Measure streams one after the other."""
    for _ in workload.iterations:
        _warm_up_streams(client)
        texts: list[str] = []
        with workload.meter() as meter:
            for _ in range(workload.operations):
                client.stream(workload.model(), texts.append)
        workload.record(cost(meter, workload.operations * workload.events, len(texts)))


def measure_threads(client: BlockingClient, workload: Workload) -> None:
    """Measure calls from one thread, then from many threads that share the client."""
    calls_per_thread = workload.operations // workload.in_flight
    with ThreadPoolExecutor(workload.in_flight) as pool:
        for _ in workload.iterations:
            _call_repeatedly(client, workload.model(), WARM_UP_CALLS)
            with workload.meter() as one_thread:
                _call_repeatedly(client, workload.model(), calls_per_thread)
            _call_from_threads(pool, client, workload, WARM_UP_CALLS)
            with workload.meter() as meter:
                ids = _call_from_threads(pool, client, workload, calls_per_thread)
            measurements = cost(meter, workload.operations, len(set(ids)))
            speedup = measurements["rate"] / (calls_per_thread / one_thread.wall)
            workload.record({**measurements, "speedup": speedup})


def measure_big_events(client: BlockingClient, workload: Workload) -> None:
    """Measure how the cost of an event grows with its size."""
    _measure_growth(client, workload, len)


def measure_many_events(client: BlockingClient, workload: Workload) -> None:
    """Measure how the cost of a stream grows with the number of its events."""
    _measure_growth(client, workload, lambda _text: 1)


def _measure_growth(client: BlockingClient, workload: Workload, size_of: Callable[[str], int]) -> None:
    _warm_up_streams(client)
    for _ in workload.iterations:
        costs: list[float] = []
        for size, repeats in GROWTH_STEPS:
            texts: list[str] = []
            with workload.meter() as meter:
                for _ in range(repeats):
                    client.stream(workload.model(workload.events * size), texts.append)
            check_received(sum(map(size_of, texts)), workload.events * size * repeats)
            costs.append(meter.cpu / (size * repeats))
        workload.record(growth(costs, workload))


def _call_repeatedly(client: BlockingClient, model: str, count: int) -> list[str]:
    return [client.call(model) for _ in range(count)]


def _call_from_threads(
    pool: ThreadPoolExecutor, client: BlockingClient, workload: Workload, calls_per_thread: int
) -> list[str]:
    """Return the ids of *calls_per_thread* calls from each thread."""
    barrier = threading.Barrier(workload.in_flight)  # so that no thread of the pool does the work of two

    def work() -> list[str]:
        barrier.wait()
        return _call_repeatedly(client, workload.model(), calls_per_thread)

    futures = [pool.submit(work) for _ in range(workload.in_flight)]
    return [generation_id for future in futures for generation_id in future.result()]


def _warm_up_streams(client: BlockingClient) -> None:
    client.stream(WARM_UP_STREAM, lambda _text: None)


BLOCKING_WORKLOADS: dict[str, Any] = {
    "calls": measure_calls,
    "streams": measure_streams,
    "threads": measure_threads,
    "big_events": measure_big_events,
    "many_events": measure_many_events,
}
