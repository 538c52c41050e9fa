"""
The workloads of asynchronous clients.

Each warms up, then measures its work once per iteration. An iteration begins with a little work that is not measured:
other processes have used the CPU's caches, and idle connections may be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.clients.adapter import AsyncClient, BatchClient, OnText
from benchmarks.cpu_meter import resident_memory
from benchmarks.workload import (
    GROWTH_STEPS,
    KILOBYTE,
    MEGABYTE,
    MILLI,
    WARM_UP_CALLS,
    WARM_UP_STREAM,
    Measurements,
    Workload,
    check_received,
    cost,
    growth,
)

_POLL_INTERVAL = 0.02  # seconds
_UNSETTLED = 0.2  # the fraction of a latency run that is ignored, in which connections are opened


async def measure_calls(client: AsyncClient, workload: Workload) -> None:
    """Measure calls, with some in flight."""
    await _call_repeatedly(client, "call", WARM_UP_CALLS)
    for _ in workload.iterations:
        await _call(client, workload.model(), max(workload.in_flight, WARM_UP_CALLS), workload.in_flight)
        with workload.meter() as meter:
            ids = await _call(client, workload.model(), workload.operations, workload.in_flight)
        workload.record(cost(meter, workload.operations, len(set(ids))))


async def measure_memory(client: AsyncClient, workload: Workload) -> None:
    """Measure the memory of calls while the server holds all responses."""
    await client.call("call")
    for _ in workload.iterations:
        before = resident_memory()
        calls = asyncio.create_task(_call(client, workload.model(), workload.operations, workload.operations))
        while workload.control.stats()["held"] < workload.operations:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(_POLL_INTERVAL)
        grown = resident_memory() - before
        workload.control.release()
        ids = await calls
        workload.record({"memory": grown / workload.operations / KILOBYTE, "lost": workload.operations - len(set(ids))})


async def measure_batch(client: BatchClient, workload: Workload) -> None:
    """Measure one batch, and its memory after each tenth."""
    await _call_repeatedly(client, "call", WARM_UP_CALLS)
    idle = resident_memory()
    for _ in workload.iterations:
        await _call(client, workload.model(), workload.in_flight, workload.in_flight)
        workload.record(await _run_batch(client, workload, idle))


async def _run_batch(client: BatchClient, workload: Workload, idle: int) -> Measurements:
    sizes = [resident_memory()]
    tenth = max(1, workload.operations // 10)
    # Their sum shows that each id arrived once, in any order; a set of a million ids would count as memory.
    total, count, first = 0, 0, int(workload.control.stats()["served"]) + 1
    with workload.meter() as meter:
        async with contextlib.aclosing(
            client.run_batch(workload.model(), workload.operations, workload.in_flight)
        ) as ids:
            async for generation_id in ids:
                total += int(generation_id.rpartition("_")[2] or 0)
                count += 1
                if count % tenth == 0:
                    sizes.append(resident_memory())
    expected = sum(range(first, first + workload.operations))
    lost = 0 if total == expected else max(1, workload.operations - count)
    after_tenth, after_half, after_all = sizes[1], sizes[len(sizes) // 2], sizes[-1]
    memory = {
        "memory": max(sizes) - idle,
        "memory_first_tenth": after_tenth - idle,
        "memory_second_half": after_all - after_half,
    }
    return {
        **cost(meter, workload.operations, workload.operations - lost),
        **{key: size / MEGABYTE for key, size in memory.items()},
    }


async def measure_streams(client: AsyncClient, workload: Workload) -> None:
    """Measure streams, with some in flight."""
    for _ in workload.iterations:
        await _warm_up_streams(client, workload)
        texts: list[str] = []
        with workload.meter() as meter:
            await _stream(client, workload.model(), workload.operations, workload.in_flight, texts.append)
        workload.record(cost(meter, workload.operations * workload.events, len(texts)))


async def measure_latencies(client: AsyncClient, workload: Workload) -> None:
    """Measure the time from the server's write of an event to the user's code."""
    for _ in workload.iterations:
        await _warm_up_streams(client, workload)
        latencies: list[float] = []

        def on_text(text: str, append: Callable[[float], None] = latencies.append) -> None:
            append(time.monotonic() - float(text))

        with workload.meter() as meter:
            await _stream(client, workload.model(), workload.operations, workload.in_flight, on_text)
        settled = sorted(latencies[int(_UNSETTLED * len(latencies)) :])
        workload.record(
            {
                **cost(meter, workload.operations * workload.events, len(latencies)),
                "p50": MILLI * statistics.median(settled),
                "p99": MILLI * settled[int(0.99 * len(settled))],
            }
        )


async def measure_big_events(client: AsyncClient, workload: Workload) -> None:
    """Measure how the cost of an event grows with its size."""
    await _measure_growth(client, workload, len)


async def measure_many_events(client: AsyncClient, workload: Workload) -> None:
    """Measure how the cost of a stream grows with the number of its events."""
    await _measure_growth(client, workload, lambda _text: 1)


async def _measure_growth(client: AsyncClient, workload: Workload, size_of: Callable[[str], int]) -> None:
    await _warm_up_streams(client, workload)
    for _ in workload.iterations:
        costs: list[float] = []
        for size, repeats in GROWTH_STEPS:
            texts: list[str] = []
            with workload.meter() as meter:
                await _stream(client, workload.model(workload.events * size), repeats, 1, texts.append)
            check_received(sum(map(size_of, texts)), workload.events * size * repeats)
            costs.append(meter.cpu / (size * repeats))
        workload.record(growth(costs, workload))


async def _call_repeatedly(client: AsyncClient, model: str, count: int) -> list[str]:
    return [await client.call(model) for _ in range(count)]


async def _call(client: AsyncClient, model: str, count: int, in_flight: int) -> list[str]:
    """Return the ids of *count* calls."""
    if in_flight == 1:
        return await _call_repeatedly(client, model, count)
    ids = await asyncio.gather(*(_call_repeatedly(client, model, count // in_flight) for _ in range(in_flight)))
    return list(itertools.chain.from_iterable(ids))


async def _stream(client: AsyncClient, model: str, count: int, in_flight: int, on_text: OnText) -> None:
    for _ in range(count // in_flight):
        if in_flight == 1:
            await client.stream(model, on_text)
        else:
            await asyncio.gather(*(client.stream(model, on_text) for _ in range(in_flight)))


async def _warm_up_streams(client: AsyncClient, workload: Workload) -> None:
    """Open the connections, and let the client import the modules that it loads lazily."""
    await _stream(client, WARM_UP_STREAM, workload.in_flight, workload.in_flight, lambda _text: None)


ASYNC_WORKLOADS: dict[str, Any] = {
    "calls": measure_calls,
    "memory": measure_memory,
    "batch": measure_batch,
    "streams": measure_streams,
    "latencies": measure_latencies,
    "big_events": measure_big_events,
    "many_events": measure_many_events,
}
