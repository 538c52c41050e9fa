"""
One client that runs the workload of one scenario in this process: `python -m benchmarks.worker call neuralbox PORT`.

Prints lines of JSON: the versions of the measured packages after the warm-up, then the measurements of each iteration.
To profile a client, run this module under a profiler, against a server started by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any

from benchmarks import processes
from benchmarks.async_workloads import ASYNC_WORKLOADS
from benchmarks.blocking_workloads import BLOCKING_WORKLOADS
from benchmarks.clients.adapter import Address
from benchmarks.clients.registry import CLIENTS, Client
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.workload import Measurements, Workload

_MIN_CONNECTIONS = 16


def measure(
    scenario: Scenario,
    client: Client,
    port: int,
    *,
    record: Callable[[Measurements], object],
    iterations: Iterable[object] = range(1),
    scale: float = 1.0,
) -> None:
    """Let *client* run *scenario* once per item of *iterations*; *port*: the server's, without TLS."""
    control = processes.ServerControl(port)
    workload = Workload(scenario, control, iterations, record, scale)
    with contextlib.closing(control):
        address = control.tls_address() if scenario.tls else Address(port)
        if client.blocking:
            _measure_blocking(client, address, workload)
        else:
            processes.run(_measure_async(client, address, workload), uvloop=client.uvloop)


def _measure_blocking(client: Client, address: Address, workload: Workload) -> None:
    connections = max(_MIN_CONNECTIONS, workload.in_flight)
    with contextlib.closing(client.adapter_class()(address, connections)) as adapter:
        BLOCKING_WORKLOADS[workload.scenario.workload](adapter, workload)


async def _measure_async(client: Client, address: Address, workload: Workload) -> None:
    connections = max(_MIN_CONNECTIONS, workload.in_flight)
    async with contextlib.aclosing(client.adapter_class()(address, connections)) as adapter:
        await ASYNC_WORKLOADS[workload.scenario.workload](adapter, workload)


def versions(client: Client) -> dict[str, str]:
    """Return the versions of the installed packages that *client* uses."""
    installed: dict[str, str] = {}
    for package in client.packages:
        if package not in client.hidden and (package != "uvloop" or client.uvloop):
            with contextlib.suppress(metadata.PackageNotFoundError):
                installed[package] = metadata.version(package)
    return installed


def prepare(client: Client) -> None:
    """Set the environment of *client* and hide packages from it, before any of its modules is imported."""
    os.environ.update(client.environment)
    for package in client.hidden:
        # From now on an import of the package fails as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description="Run the workload of one scenario with one client.")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("port", type=int, help="the server's port without TLS")
    parser.add_argument("--scale", type=float, default=1.0, help="the fraction of the work to do; default 1.0")
    parser.add_argument("--core", type=int, help="the CPU core to stay on")
    parser.add_argument("--iterations", type=int, default=1, help="how often to run the workload; default 1")
    parser.add_argument("--interactive", action="store_true", help="run it once per line of standard input instead")
    args = parser.parse_args()
    processes.pin(args.core)
    _free_large_block()
    client = CLIENTS[args.client]
    prepare(client)

    def iterations() -> Iterator[object]:
        _print({"versions": versions(client)})
        yield from sys.stdin if args.interactive else range(args.iterations)

    def record(measurements: Measurements) -> None:
        _print({"measurements": measurements})

    measure(SCENARIOS[args.scenario], client, args.port, record=record, iterations=iterations(), scale=args.scale)


def _free_large_block() -> None:
    # Until a process has freed a large block once, glibc maps and unmaps each of the 256 KiB that asyncio reads into
    # without TLS: a sixth of a call. Every process that uses TLS, or has read a large file, is past that.
    bytearray(1024 * 1024)


def _print(members: dict[str, Any]) -> None:
    print(json.dumps(members), flush=True)


if __name__ == "__main__":
    main()
