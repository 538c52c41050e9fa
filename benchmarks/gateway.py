"""
The cost of `neuralbox gateway`, next to LiteLLM's proxy in the same run: ``python -m benchmarks.gateway``.

One server (`benchmarks.server`) is behind both, each in its own API. Clients are in this process. What is measured is
the CPU time of the proxy's process per call and per event of live streams, and how much later the first piece of text
arrives through a proxy than without one while 50 live streams run through it. Each round measures each proxy once, and
requests with and without a proxy alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import psutil

from benchmarks import processes

_CALLS, _IN_FLIGHT = 300, 16
_STREAMS, _EVENTS, _RATE = 50, 40, 20  # live streams, events of each, events per second
_PROBES = 30
_START = 180.0  # seconds for a proxy to start
_KEY = f"sk-{secrets.token_hex(16)}"  # LiteLLM's proxy requires one
_PATH = "/v1/chat/completions"
_CONFIG = """\
model_list:
  - model_name: "*"
    litellm_params:
      model: "openai/*"
      api_base: "{url}"
      api_key: none
litellm_settings:
  telemetry: false
"""


@attrs.frozen
class Proxy:
    """A proxy that listens on *port*; None as *process*: the server itself."""

    name: str
    port: int
    process: psutil.Process | None = None

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used, with its children."""
        if self.process is None:
            return 0.0
        times = [process.cpu_times() for process in [self.process, *self.process.children(recursive=True)]]
        return sum(time.user + time.system for time in times)


@contextlib.contextmanager
def gateway(server_port: int) -> Generator[Proxy]:
    """Run `neuralbox gateway` in front of the server."""
    url = f"http://127.0.0.1:{server_port}/api/v2"
    environment = {**os.environ, "NEURALBOX_BASE_URL": url, "NEURALBOX_API_KEY": "nb_benchmark"}
    command = [
        sys.executable,
        "-m",
        "neuralbox_async",
        "gateway",
        "--port",
        "0",
        "--quiet",
        "--max-concurrency",
        "1000",
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while found is None and process.stdout is not None and (line := process.stdout.readline()):
                found = re.search(r"listens at http://127\.0\.0\.1:(\d+)/", line)
            if found is None:
                msg = "the gateway did not start"
                raise RuntimeError(msg)
            yield Proxy("neuralbox gateway", int(found[1]), psutil.Process(process.pid))
        finally:
            process.terminate()


@contextlib.contextmanager
def litellm(python: str, server_port: int) -> Generator[Proxy]:
    """Run LiteLLM's proxy, which *python* has, in front of the server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_CONFIG.format(url=f"http://127.0.0.1:{server_port}/v1"), encoding="utf-8")
        # The console script of its environment, in front of whose interpreter no links are resolved.
        command = [str(Path(python).absolute().parent / "litellm"), "--config", str(config), "--port", str(port)]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
        environment["LITELLM_MASTER_KEY"] = _KEY
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            [*command, "--host", "127.0.0.1"], env=environment, stdout=quiet, stderr=quiet
        ) as process:
            try:
                _wait_for(port, process)
                yield Proxy("LiteLLM's proxy", port, psutil.Process(process.pid))
            finally:
                process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.2)
    msg = "LiteLLM's proxy did not start"
    raise RuntimeError(msg)


class Client:
    """Sends OpenAI's requests to a proxy."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def _post(self, proxy: Proxy, model: str, *, stream: bool) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        return self._session.post(
            f"http://127.0.0.1:{proxy.port}{_PATH}", json=body, headers={"Authorization": f"Bearer {_KEY}"}
        )

    async def call(self, proxy: Proxy) -> None:
        """Get one whole completion."""
        async with self._post(proxy, "call", stream=False) as response:
            completion = await response.json()
            if response.status != 200 or not completion["choices"][0]["message"]["content"]:
                msg = f"{proxy.name}: {response.status} {completion}"
                raise RuntimeError(msg)

    async def stream(self, proxy: Proxy, model: str) -> tuple[int, float]:
        """Return the number of chunks with text of a stream, and the seconds until the first."""
        started, first, count = time.perf_counter(), 0.0, 0
        async with self._post(proxy, model, stream=True) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        first = first or time.perf_counter() - started
                        count += 1
        if not count:
            msg = f"{proxy.name}: no text ({response.status})"
            raise RuntimeError(msg)
        return count, first


async def cpu_per_call(client: Client, proxy: Proxy) -> float:
    """Return the microseconds of CPU of the proxy per whole completion, 16 at a time."""
    limit = asyncio.Semaphore(_IN_FLIGHT)

    async def one() -> None:
        async with limit:
            await client.call(proxy)

    before = proxy.cpu()
    await asyncio.gather(*(one() for _ in range(_CALLS)))
    return 1e6 * (proxy.cpu() - before) / _CALLS


async def cpu_per_event(client: Client, proxy: Proxy) -> float:
    """Return the microseconds of CPU of the proxy per event of 50 live streams, their requests included."""
    before = proxy.cpu()
    await asyncio.gather(*(client.stream(proxy, f"live.{_EVENTS}.{_RATE}") for _ in range(_STREAMS)))
    return 1e6 * (proxy.cpu() - before) / (_STREAMS * _EVENTS)


async def first_texts(client: Client, proxy: Proxy, direct: Proxy) -> tuple[list[float], list[float]]:
    """Return the milliseconds until the first text, through *proxy* and without it, while 50 live streams run."""
    streams = [asyncio.create_task(client.stream(proxy, f"live.{_EVENTS * 4}.{_RATE}")) for _ in range(_STREAMS)]
    await asyncio.sleep(0.5)
    through, without = list[float](), list[float]()
    for _ in range(_PROBES):
        through.append(1e3 * (await client.stream(proxy, "bulk.1"))[1])
        without.append(1e3 * (await client.stream(direct, "bulk.1"))[1])
        await asyncio.sleep(0.02)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    return through, without


@attrs.define
class Results:
    """What was measured of one proxy, in all rounds."""

    calls: list[float] = attrs.field(factory=list[float])
    events: list[float] = attrs.field(factory=list[float])
    through: list[float] = attrs.field(factory=list[float])
    without: list[float] = attrs.field(factory=list[float])

    def row(self) -> list[float]:
        """Return the medians of the CPU times, and the added time of the first text: its median, and that at best."""
        median, tenth = (
            percentile(self.through) - percentile(self.without) for percentile in (statistics.median, _fastest_tenth)
        )
        return [statistics.median(self.calls), statistics.median(self.events), median, tenth]


def _fastest_tenth(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[0]


async def measure(proxies: list[Proxy], direct: Proxy, rounds: int) -> None:
    """Measure the *proxies* in turn, and print a table."""
    names = ("CPU per call, µs", "CPU per live event, µs", "first text later by, ms", "the fastest tenth, ms")
    results = {proxy.name: Results() for proxy in proxies}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session)
        for proxy in [*proxies, *proxies]:  # warm up: connections, lazy imports
            await asyncio.gather(*(client.call(proxy) for _ in range(_IN_FLIGHT)))
            await client.stream(proxy, "bulk.1")
        for _ in range(rounds):
            for proxy in proxies:
                result = results[proxy.name]
                result.calls.append(await cpu_per_call(client, proxy))
                result.events.append(await cpu_per_event(client, proxy))
                through, without = await first_texts(client, proxy, direct)
                result.through += through
                result.without += without
    print(f"| | {' | '.join(names)} |")
    print("|---|" + "---|" * len(names))
    for name, result in results.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in result.row())} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each proxy is measured")
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter that has litellm[proxy]")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(processes.server())
        proxies = [stack.enter_context(gateway(port))]
        if arguments.litellm:
            proxies.append(stack.enter_context(litellm(arguments.litellm, port)))
        asyncio.run(measure(proxies, Proxy("the server", port), arguments.rounds))


if __name__ == "__main__":
    main()
