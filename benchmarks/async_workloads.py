"""
The work loads: what a client has to do while it is measured.

Each warms up, then does its work once a turn and tells its numbers by the keys of the metrics. A turn begins with a
little work that is not measured: the processor's caches are full of what others did, idle connections may be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.clients.adapter import AsyncClient, BatchClient, BlockingClient, Take
from benchmarks.meter import Meter, resident
from benchmarks.processes import Control
from benchmarks.scenarios import Scenario

Numbers: TypeAlias = dict[str, float]

_WARM_UP_CALLS = 50
_WARM_UP_STREAM = "bulk.500"
_MEGA = 1e6
_MICRO, _MILLI, _KILO = 1e6, 1e3, 1e3
_MIB = 1024 * 1024
_POLL = 0.02
_SETTLED = 0.2  # the part of a latency run that is left out: connections are being made
_GROWTH = ((1, 3), (10, 1))  # three of one size, then one that is ten times as large


@dataclass(frozen=True)
class Load:
    """
    A scenario at a *scale* of its operations and events, and the way to ask the server.

    The work is done once for each of *turns*, which may block until it is this client's turn; *tell* takes its numbers.
    """

    scenario: Scenario
    control: Control
    turns: Iterable[object]
    tell: Callable[[Numbers], object]
    scale: float = 1.0

    @property
    def in_flight(self) -> int:
        """How many calls or streams are there at a time."""
        return min(self.scenario.in_flight, self._scaled(self.scenario.in_flight))

    @property
    def operations(self) -> int:
        """How many calls or streams there are in a turn: a multiple of *in_flight*."""
        return max(1, self._scaled(self.scenario.operations) // self.in_flight) * self.in_flight

    @property
    def events(self) -> int:
        """How many events each stream has."""
        return self._scaled(self.scenario.events)

    def program(self, events: int | None = None) -> str:
        """Return what the server is asked for."""
        return self.scenario.program.format(events=self.events if events is None else events)

    def meter(self) -> Meter:
        """Return a meter for what is measured."""
        return Meter(self.control)

    def _scaled(self, number: int) -> int:
        return max(1, round(number * self.scale))


def _cost(meter: Meter, count: int, arrived: int) -> Numbers:
    return {"cpu": _MICRO * meter.cpu / count, "lost": count - arrived, "busy": meter.busy, "rate": count / meter.wall}


# ------------------------------------------------------------------------------------------------------- asynchronous


async def _call_often(client: AsyncClient, program: str, count: int) -> list[str]:
    return [await client.call(program) for _ in range(count)]


async def _call_at_once(client: AsyncClient, program: str, count: int, at_once: int) -> list[str]:
    """Return the ids of *count* calls, *at_once* at a time."""
    if at_once == 1:
        return await _call_often(client, program, count)
    found = await asyncio.gather(*(_call_often(client, program, count // at_once) for _ in range(at_once)))
    return list(itertools.chain.from_iterable(found))


async def calls(client: AsyncClient, load: Load) -> None:
    """Call, some at a time."""
    await _call_often(client, "call", _WARM_UP_CALLS)
    for _ in load.turns:
        await _call_at_once(client, load.program(), max(load.in_flight, _WARM_UP_CALLS), load.in_flight)
        with load.meter() as meter:
            ids = await _call_at_once(client, load.program(), load.operations, load.in_flight)
        load.tell(_cost(meter, load.operations, len(set(ids))))


async def memory(client: AsyncClient, load: Load) -> None:
    """Call, and look at the memory while the server holds all answers back."""
    await client.call("call")
    for _ in load.turns:
        before = resident()
        pending = asyncio.create_task(_call_at_once(client, load.program(), load.operations, load.operations))
        while load.control.stats()["held"] < load.operations:  # noqa: ASYNC110 - it is another process that counts
            await asyncio.sleep(_POLL)
        grown = resident() - before
        load.control.release()
        ids = await pending
        load.tell({"memory": grown / load.operations / _KILO, "lost": load.operations - len(set(ids))})


async def batch(client: BatchClient, load: Load) -> None:
    """Do many calls in one batch, and look at the memory after each tenth."""
    await _call_often(client, "call", _WARM_UP_CALLS)
    idle = resident()
    for _ in load.turns:
        await _call_at_once(client, load.program(), load.in_flight, load.in_flight)
        load.tell(await _one_batch(client, load, idle))


async def _one_batch(client: BatchClient, load: Load, idle: int) -> Numbers:
    sizes = [resident()]
    tenth = max(1, load.operations // 10)
    # Each id once, without keeping them: their order is not known, their sum is.
    total, count, first = 0, 0, int(load.control.stats()["served"]) + 1
    with load.meter() as meter:
        async with contextlib.aclosing(client.many(load.program(), load.operations, load.in_flight)) as ids:
            async for found in ids:
                total += int(found.rpartition("_")[2] or 0)
                count += 1
                if count % tenth == 0:
                    sizes.append(resident())
    expected = sum(range(first, first + load.operations))
    lost = 0 if total == expected else max(1, load.operations - count)
    early, half, last = sizes[1], sizes[len(sizes) // 2], sizes[-1]
    grown = {"memory": max(sizes) - idle, "early": early - idle, "late": last - half}
    cost = _cost(meter, load.operations, load.operations - lost)
    return {**cost, **{name: size / _MEGA for name, size in grown.items()}}


async def _read(client: AsyncClient, program: str, count: int, at_once: int, take: Take) -> None:
    for _ in range(count // at_once):
        if at_once == 1:
            await client.stream(program, take)
        else:
            await asyncio.gather(*(client.stream(program, take) for _ in range(at_once)))


async def _open_streams(client: AsyncClient, load: Load) -> None:
    """Open the connections, and let the client load what it loads late."""
    await _read(client, _WARM_UP_STREAM, load.in_flight, load.in_flight, lambda _text: None)


async def streams(client: AsyncClient, load: Load) -> None:
    """Read streams, some at a time."""
    for _ in load.turns:
        await _open_streams(client, load)
        texts: list[str] = []
        with load.meter() as meter:
            await _read(client, load.program(), load.operations, load.in_flight, texts.append)
        load.tell(_cost(meter, load.operations * load.events, len(texts)))


async def lags(client: AsyncClient, load: Load) -> None:
    """Read live streams, and look at how old each event is when it comes."""
    for _ in load.turns:
        await _open_streams(client, load)
        found: list[float] = []

        def take(text: str, note: Callable[[float], None] = found.append) -> None:
            note(time.monotonic() - float(text))

        with load.meter() as meter:
            await _read(client, load.program(), load.operations, load.in_flight, take)
        settled = sorted(found[int(_SETTLED * len(found)) :])
        percentiles = {"p50": _MILLI * statistics.median(settled), "p99": _MILLI * settled[int(0.99 * len(settled))]}
        load.tell({**_cost(meter, load.operations * load.events, len(found)), **percentiles})


async def big_events(client: AsyncClient, load: Load) -> None:
    """Read some events of one size, then one that is ten times as large."""
    await _open_streams(client, load)
    for _ in load.turns:
        load.tell(await _growth(client, load, len))


async def many_events(client: AsyncClient, load: Load) -> None:
    """Read some streams of one length, then one that is ten times as long."""
    await _open_streams(client, load)
    for _ in load.turns:
        load.tell(await _growth(client, load, lambda _text: 1))


async def _growth(client: AsyncClient, load: Load, size_of: Callable[[str], int]) -> Numbers:
    costs: list[float] = []
    for factor, repeats in _GROWTH:
        texts: list[str] = []
        with load.meter() as meter:
            await _read(client, load.program(load.events * factor), repeats, 1, texts.append)
        _check_size(sum(map(size_of, texts)), load.events * factor * repeats)
        costs.append(meter.cpu / (factor * repeats))
    return _grown(costs, load)


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        msg = f"{expected:,} were sent and {found:,} came"
        raise AssertionError(msg)


def _grown(costs: list[float], load: Load) -> Numbers:
    small, large = costs
    units = load.events / (_MIB if load.scenario.load == "big_events" else 1)
    return {"growth": large / small, "cpu": _MICRO * large / units}


# ----------------------------------------------------------------------------------------------------------- blocking


def _block_often(client: BlockingClient, program: str, count: int) -> list[str]:
    return [client.call(program) for _ in range(count)]


def blocking_calls(client: BlockingClient, load: Load) -> None:
    """Call one after the other."""
    for _ in load.turns:
        _block_often(client, load.program(), _WARM_UP_CALLS)
        with load.meter() as meter:
            ids = _block_often(client, load.program(), load.operations)
        load.tell(_cost(meter, load.operations, len(set(ids))))


def blocking_streams(client: BlockingClient, load: Load) -> None:
    """Read one stream after the other."""
    for _ in load.turns:
        client.stream(_WARM_UP_STREAM, lambda _text: None)
        texts: list[str] = []
        with load.meter() as meter:
            for _ in range(load.operations):
                client.stream(load.program(), texts.append)
        load.tell(_cost(meter, load.operations * load.events, len(texts)))


def threads(client: BlockingClient, load: Load) -> None:
    """Call from one thread, then from many at a time."""
    each = load.operations // load.in_flight
    with ThreadPoolExecutor(load.in_flight) as pool:
        for _ in load.turns:
            _block_often(client, load.program(), _WARM_UP_CALLS)
            with load.meter() as alone:
                _block_often(client, load.program(), each)
            _block_at_once(pool, client, load, _WARM_UP_CALLS)
            with load.meter() as meter:
                ids = _block_at_once(pool, client, load, each)
            numbers = _cost(meter, load.operations, len(set(ids)))
            load.tell({**numbers, "throughput": numbers["rate"] / (each / alone.wall)})


def _block_at_once(pool: ThreadPoolExecutor, client: BlockingClient, load: Load, each: int) -> list[str]:
    """Return the ids of *each* calls of every thread."""
    together = threading.Barrier(load.in_flight)  # so that no thread of the pool does the work of two

    def work() -> list[str]:
        together.wait()
        return _block_often(client, load.program(), each)

    done = [pool.submit(work) for _ in range(load.in_flight)]
    return [found for thread in done for found in thread.result()]


def blocking_big_events(client: BlockingClient, load: Load) -> None:
    """Read some events of one size, then one that is ten times as large."""
    _blocking_growth(client, load, len)


def blocking_many_events(client: BlockingClient, load: Load) -> None:
    """Read some streams of one length, then one that is ten times as long."""
    _blocking_growth(client, load, lambda _text: 1)


def _blocking_growth(client: BlockingClient, load: Load, size_of: Callable[[str], int]) -> None:
    client.stream(_WARM_UP_STREAM, lambda _text: None)
    for _ in load.turns:
        costs: list[float] = []
        for factor, repeats in _GROWTH:
            texts: list[str] = []
            with load.meter() as meter:
                for _ in range(repeats):
                    client.stream(load.program(load.events * factor), texts.append)
            _check_size(sum(map(size_of, texts)), load.events * factor * repeats)
            costs.append(meter.cpu / (factor * repeats))
        load.tell(_grown(costs, load))


ASYNC_LOADS: dict[str, Any] = {
    "calls": calls,
    "memory": memory,
    "batch": batch,
    "streams": streams,
    "lags": lags,
    "big_events": big_events,
    "many_events": many_events,
}
BLOCKING_LOADS: dict[str, Any] = {
    "calls": blocking_calls,
    "streams": blocking_streams,
    "threads": threads,
    "big_events": blocking_big_events,
    "many_events": blocking_many_events,
}
