"""
One client doing the work of one scenario, in a process of its own: `python -m benchmarks.worker call neuralbox PORT`.

Prints JSON: the versions of what is measured when it has warmed up, then the numbers of each turn. To look where the
time goes, run a profiler over it, against a server started by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any

from benchmarks import processes
from benchmarks.clients.registry import CLIENTS, Client
from benchmarks.loads import ASYNC_LOADS, BLOCKING_LOADS, Load, Numbers
from benchmarks.scenarios import SCENARIOS, Scenario

_LEAST_CONNECTIONS = 16


def measure(
    scenario: Scenario,
    client: Client,
    port: int,
    *,
    tell: Callable[[Numbers], object],
    turns: Iterable[object] = range(1),
    scale: float = 1.0,
) -> None:
    """Let *client* do *scenario* in each of *turns* against the server on *port*, and *tell* its numbers."""
    control = processes.Control(port)
    load = Load(scenario, control, turns, tell, scale)
    with contextlib.closing(control):
        if client.blocking:
            _measure_blocking(client, port, load)
        else:
            processes.run(_measure_async(client, port, load), uvloop=client.uvloop)


def _measure_blocking(client: Client, port: int, load: Load) -> None:
    with contextlib.closing(client.factory()(port, max(_LEAST_CONNECTIONS, load.in_flight))) as adapter:
        BLOCKING_LOADS[load.scenario.load](adapter, load)


async def _measure_async(client: Client, port: int, load: Load) -> None:
    async with contextlib.aclosing(client.factory()(port, max(_LEAST_CONNECTIONS, load.in_flight))) as adapter:
        await ASYNC_LOADS[load.scenario.load](adapter, load)


def versions(client: Client) -> dict[str, str]:
    """Return the versions of what *client* uses, as far as it is installed."""
    found: dict[str, str] = {}
    for package in client.packages:
        if package not in client.without and (package != "uvloop" or client.uvloop):
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
    return found


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="One client doing the work of one scenario.")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("port", type=int, help="the server's")
    parser.add_argument("--scale", type=float, default=1.0, help="do this part of the work; default 1.0")
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    parser.add_argument("--turns", type=int, default=1, help="do the work so often; default 1")
    parser.add_argument("--told", action="store_true", help="instead, do it once for each line of standard input")
    said = parser.parse_args()
    processes.pin(said.core)
    client = CLIENTS[said.client]
    for package in client.without:
        # An import of it now fails as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]

    def turns() -> Iterator[object]:
        _tell({"versions": versions(client)})
        yield from sys.stdin if said.told else range(said.turns)

    measure(SCENARIOS[said.scenario], client, said.port, tell=_tell_numbers, turns=turns(), scale=said.scale)


def _tell_numbers(numbers: Numbers) -> None:
    _tell({"numbers": numbers})


def _tell(members: dict[str, Any]) -> None:
    print(json.dumps(members), flush=True)


if __name__ == "__main__":
    main()
