"""
A server that is not the bottleneck: canned bytes, in a process of its own. `python -m benchmarks.server --port 8123`.

The model that a request names says what is answered, in whichever API's way its path asks for:

* ``call``, ``call.DELAY``: one answer, at once or after DELAY milliseconds. ``hold``: after the next GET /release.
* ``bulk.EVENTS``, ``bulk.EVENTS.SIZE``: a stream of EVENTS pieces of text in segments of SIZE bytes (65,536).
* ``live.EVENTS.RATE``: a stream of EVENTS pieces, each in a segment of its own, RATE a second. Each piece is the moment
  at which it was sent, in seconds of the monotonic clock. ``step.EVENTS.RATE``: in step with all others of that rate.
* ``big.BYTES``: a stream of one event with BYTES bytes of text.

GET /stats tells what was answered and what that cost. The process ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from benchmarks import processes, wire

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_TICK = 0.001  # seconds; both event loops' timers are no finer
_LEAST_PAUSE = 20e-6  # seconds that are worth sleeping
_SEGMENT = 64 * 1024
_TEXT = b" ocean"


class Connection(asyncio.Protocol):
    """One connection of a client; requests are answered in order, as each client waits for its answer."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (asyncio calls it)."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own are not of that class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End (asyncio calls it)."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer the requests that *data* completes (asyncio calls it)."""
        self._buffer += data
        while (end := self._buffer.find(_HEAD_END)) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            whole = end + len(_HEAD_END) + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end:whole], self._buffer[whole:]
            self._server.answer(self, head.split(b" ", 2)[1], body)

    def write(self, data: bytes) -> None:
        """Send *data*, if the client is still there."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def gone(self) -> bool:
        """Whether the client has gone away."""
        return self._transport is None


@dataclass
class LiveStream:
    """A stream that is sent event by event: what is *left* of it, and the moment when the next one is *due*."""

    connection: Connection
    way: wire.Wire
    left: int
    period: float
    due: float

    def send_due(self, now: float) -> None:
        """Send what is due by *now*."""
        while self.left and self.due <= now:
            moment = b"%.6f" % time.monotonic()
            self.connection.write(wire.segment(self.way.event(moment)))
            self.left -= 1
            self.due += self.period
        if not self.left:
            self.connection.write(wire.segment(self.way.end) + wire.STREAM_TAIL)


@dataclass
class CannedServer:
    """What all connections share: the counts, the calls that are held, the streams that are live."""

    served: int = 0
    held: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    streams: list[LiveStream] = field(default_factory=list[LiveStream])
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def answer(self, connection: Connection, path: bytes, body: bytes) -> None:
        """Answer one request."""
        way = wire.BY_PATH.get(path)
        model = _MODEL.search(body)
        if way is None or model is None:
            self._control(connection, path)
            return
        self.served += 1
        kind, *numbers = model[1].decode().split(".")
        _PROGRAMS[kind](self, connection, way, *map(int, numbers))

    def call(self, connection: Connection, way: wire.Wire, delay: int = 0) -> None:
        """Answer after *delay* milliseconds."""
        answer = way.answer(self.served)
        if delay:
            asyncio.get_running_loop().call_later(delay / 1000, connection.write, answer)
        else:
            connection.write(answer)

    def hold(self, connection: Connection, way: wire.Wire) -> None:
        """Answer when all are released."""
        self.held.append(functools.partial(connection.write, way.answer(self.served)))

    def bulk(self, connection: Connection, way: wire.Wire, events: int, size: int = _SEGMENT) -> None:
        """Stream as fast as the client reads, in segments of *size* bytes."""
        connection.write(_stream(way, _TEXT, events, size))

    def big(self, connection: Connection, way: wire.Wire, size: int) -> None:
        """Stream one event with *size* bytes of text."""
        connection.write(_stream(way, b"a" * size, 1, _SEGMENT))

    def live(self, connection: Connection, way: wire.Wire, events: int, rate: int, phase: float | None = None) -> None:
        """Stream *rate* events a second, the first after a part of a period: *phase*, or by chance."""
        connection.write(wire.STREAM_HEAD + wire.segment(way.begin))
        period = 1 / rate
        # As generations of different users are, each at its own moments.
        due = period * (time.monotonic() // period + 1 + (self.chance.random() if phase is None else phase))
        if not self.streams:
            asyncio.get_running_loop().call_soon(self._tick)
        self.streams.append(LiveStream(connection, way, events, period, due))

    def step(self, connection: Connection, way: wire.Wire, events: int, rate: int) -> None:
        """Stream *rate* events a second, in step with all others: the worst case for the wait of each."""
        self.live(connection, way, events, rate, phase=0.0)

    def _tick(self) -> None:
        now = time.monotonic()
        for stream in self.streams:
            stream.send_due(now)
        self.streams = [stream for stream in self.streams if stream.left and not stream.connection.gone]
        if self.streams:
            pause = min(stream.due for stream in self.streams) - time.monotonic()
            if pause < _TICK:
                # No timer is as fine, and events that wait for one would come in step.
                if pause > _LEAST_PAUSE:
                    time.sleep(pause)
                asyncio.get_running_loop().call_soon(self._tick)
            else:
                asyncio.get_running_loop().call_later(_TICK / 2, self._tick)

    def _control(self, connection: Connection, path: bytes) -> None:
        if path == b"/release":
            held, self.held = self.held, []
            for send in held:
                send()
        stats = {"served": self.served, "held": len(self.held), "cpu": time.process_time()}
        connection.write(wire.whole(json.dumps(stats).encode()))


_PROGRAMS: dict[str, Callable[..., None]] = {
    "call": CannedServer.call,
    "hold": CannedServer.hold,
    "bulk": CannedServer.bulk,
    "big": CannedServer.big,
    "live": CannedServer.live,
    "step": CannedServer.step,
}
# A few programs at a time; the largest answer has 10 MB.
_stream = functools.lru_cache(8)(wire.Wire.stream)


async def serve(port: int) -> None:
    """Serve on *port* of the loopback, 0 for any; print it; end when standard input ends."""
    loop = asyncio.get_running_loop()
    state = CannedServer()
    # A thousand connections may be opened at once.
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await _end_of_input(loop)


async def _end_of_input(loop: asyncio.AbstractEventLoop) -> None:
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(ended.set)

    # No executor: that would wait for this thread when Ctrl-C ends the process.
    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description="A server of canned answers.")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free, which is printed")
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    said = parser.parse_args()
    processes.pin(said.core)
    processes.run(serve(said.port), uvloop=processes.has_uvloop())


if __name__ == "__main__":
    main()
