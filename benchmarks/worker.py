"""
One client doing the work of one scenario, in a process of its own: `python -m benchmarks.worker call neuralbox PORT`.

Prints what it measured as JSON. To look where the time goes, run a profiler over it, against a server started by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from importlib import metadata

from benchmarks import processes
from benchmarks.clients.registry import CLIENTS, Client
from benchmarks.loads import ASYNC_LOADS, BLOCKING_LOADS, Load, Numbers
from benchmarks.scenarios import SCENARIOS, Scenario

_LEAST_CONNECTIONS = 16


def measure(scenario: Scenario, client: Client, port: int, scale: float = 1.0) -> Numbers:
    """Let *client* do *scenario* against the server on *port* and return its numbers."""
    control = processes.Control(port)
    load = Load(scenario, control, scale)
    with contextlib.closing(control):
        if client.blocking:
            return _measure_blocking(client, port, load)
        return processes.run(_measure_async(client, port, load), uvloop=client.uvloop)


def _measure_blocking(client: Client, port: int, load: Load) -> Numbers:
    with contextlib.closing(client.factory()(port, max(_LEAST_CONNECTIONS, load.in_flight))) as adapter:
        numbers: Numbers = BLOCKING_LOADS[load.scenario.load](adapter, load)
        return numbers


async def _measure_async(client: Client, port: int, load: Load) -> Numbers:
    async with contextlib.aclosing(client.factory()(port, max(_LEAST_CONNECTIONS, load.in_flight))) as adapter:
        numbers: Numbers = await ASYNC_LOADS[load.scenario.load](adapter, load)
        return numbers


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
    said = parser.parse_args()
    processes.pin(said.core)
    client = CLIENTS[said.client]
    for package in client.without:
        # An import of it now fails as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    numbers = measure(SCENARIOS[said.scenario], client, said.port, said.scale)
    print(json.dumps({"numbers": numbers, "versions": versions(client)}))


if __name__ == "__main__":
    main()
